// Package methods lists the methods of rule files.
package methods

import (
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/fwknop"
	"github.com/knockwall/knockwall/internal/method/keys"
	"github.com/knockwall/knockwall/internal/method/lists"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/internal/method/rolling"
)

// Kinds are the methods, those with knocks first. The others check their ports against the
// knocks.
var Kinds = []*method.Kind{
	&fixed.Kind,
	&rolling.Kind,
	&lists.Kind,
	&passwords.Kind,
	&keys.Kind,
	&fwknop.Kind,
}
