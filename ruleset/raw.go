package ruleset

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"

	"github.com/knockwall/knockwall/internal/methods"
)

// rawConfig, rawWall and rawDoor are the rule files as HCL decodes them. Attributes stay
// expressions, so that diagnostics can point at each value.
type rawConfig struct {
	Walls  []rawWall  `hcl:"wall,block"`
	Doors  []rawDoor  `hcl:"door,block"`
	Shares []rawShare `hcl:"share,block"`
}

type rawWall struct {
	Table      hcl.Expression `hcl:"table,optional"`
	LogGroup   hcl.Expression `hcl:"nflog_group,optional"`
	Queue      hcl.Expression `hcl:"queue,optional"`
	Interfaces hcl.Expression `hcl:"interfaces,optional"`
	Trusted    hcl.Expression `hcl:"trusted,optional"`
	OnStop     hcl.Expression `hcl:"on_stop,optional"`
	Hold       hcl.Expression `hcl:"hold,optional"`
	Reorder    hcl.Expression `hcl:"reorder,optional"`
	MaxSources hcl.Expression `hcl:"max_sources,optional"`
	MaxWindows hcl.Expression `hcl:"max_windows,optional"`
	Identity   hcl.Expression `hcl:"identity,optional"`
	Range      hcl.Range      `hcl:",def_range"`
}

type rawDoor struct {
	Name      string    `hcl:"name,label"`
	Range     hcl.Range `hcl:",def_range"`
	NameRange hcl.Range `hcl:"name,label_range"`
	Body      hcl.Body  `hcl:",remain"`

	content         *hcl.BodyContent // the content of Body; methods read their parts of it
	Ports           hcl.Expression
	CloseSequence   hcl.Expression
	SequenceTimeout hcl.Expression
	Window          hcl.Expression
	Flags           hcl.Expression
	MaxConnections  hcl.Expression
	Closed          hcl.Expression
	OnFailure       hcl.Expression
	Interfaces      hcl.Expression
	To              hcl.Expression
	Trusted         hcl.Expression
	SourcePrefix    hcl.Expression
	PenaltyPrefix   hcl.Expression
	UDPTimeout      hcl.Expression
	Traps           hcl.Expression
	Penalty         hcl.Expression
	OnOpen, OnClose *rawCommand
}

// attributes returns the fields for the door's own attributes, by attribute name.
func (r *rawDoor) attributes() map[string]*hcl.Expression {
	return map[string]*hcl.Expression{
		"ports": &r.Ports, "close_sequence": &r.CloseSequence, "seq_timeout": &r.SequenceTimeout,
		"window": &r.Window, "tcp_flags": &r.Flags, "max_connections": &r.MaxConnections,
		"closed": &r.Closed, "on_failure": &r.OnFailure, "interfaces": &r.Interfaces, "to": &r.To,
		"trusted": &r.Trusted, "source_prefix": &r.SourcePrefix, "penalty_prefix": &r.PenaltyPrefix,
		"udp_timeout": &r.UDPTimeout, "traps": &r.Traps, "penalty": &r.Penalty,
	}
}

// doorSchema returns the attributes and blocks of a door, those of the methods included.
func doorSchema() *hcl.BodySchema {
	schema := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "on_open"}, {Type: "on_close"}}}
	names := slices.Collect(maps.Keys(new(rawDoor).attributes()))
	for _, k := range methods.Kinds {
		if k.IsBlock() {
			header := hcl.BlockHeaderSchema{Type: k.Name}
			if k.Blocks != nil {
				header.LabelNames = []string{k.Label}
			}
			schema.Blocks = append(schema.Blocks, header)
		}
		if k.Attribute != nil {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name})
	}
	return schema
}

// decodeDoor decodes the body of a door, except the parts that methods read.
func (l *Loaded) decodeDoor(r *rawDoor, schema *hcl.BodySchema) {
	content, diags := r.Body.Content(schema)
	l.foreign(diags)
	r.content = content
	for name, to := range r.attributes() {
		*to = r.attribute(name)
	}
	for name, to := range map[string]**rawCommand{"on_open": &r.OnOpen, "on_close": &r.OnClose} {
		if b := l.oneBlock(r, name); b != nil {
			*to = &rawCommand{Range: b.DefRange}
			l.foreign(gohcl.DecodeBody(b.Body, nil, *to))
		}
	}
}

// attribute returns the value of an attribute, or an expression for which absent is true.
func (r *rawDoor) attribute(name string) hcl.Expression {
	if a := r.content.Attributes[name]; a != nil {
		return a.Expr
	}
	return hcl.StaticExpr(cty.NullVal(cty.DynamicPseudoType), r.Body.MissingItemRange())
}

// oneBlock returns the first block of a type, or nil. It reports any further one as an
// error.
func (l *Loaded) oneBlock(r *rawDoor, name string) *hcl.Block {
	blocks := r.content.Blocks.OfType(name)
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks[1:] {
		l.fail("Duplicate "+name+" block", fmt.Sprintf("Only one %s block is allowed. Another was defined at %s.", name, fileLine(blocks[0].DefRange)), &b.DefRange)
	}
	return blocks[0]
}

type rawCommand struct {
	Command hcl.Expression `hcl:"command"`
	Timeout hcl.Expression `hcl:"timeout,optional"`
	Range   hcl.Range      `hcl:",def_range"`
}
