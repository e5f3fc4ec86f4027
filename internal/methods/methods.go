// Package methods lists the methods that rule files can name.
package methods

import (
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
)

// Kinds are the methods: first those with knocks, so that the others can keep off their
// ports.
var Kinds = []*method.Kind{
	&fixed.Kind,
	&rolling.Kind,
	&lists.Kind,
	&passwords.Kind,
}
