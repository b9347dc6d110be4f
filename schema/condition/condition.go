// Package condition decides in CEL which messages a route takes.
//
// A condition sees four variables:
//
//	body     the message, as JSON; null when it is not JSON. Numbers are doubles,
//	         which compare with integers as one would think
//	headers  map(string, string): the first value of each header
//	module   string: who sent it
//	output   string: under this name
//
// It is a pure function of them: there is no clock, no state and no I/O, and what
// it may cost is bounded.
package condition

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

const (
	// MaxSource is the most bytes of a condition.
	MaxSource = 4 << 10

	maxCost    = 200_000 // of one evaluation, in CEL's units: some milliseconds
	maxNesting = 64      // of a condition's brackets
	maxProblem = 3       // problems that are told of one condition
)

// Condition is a compiled condition, safe for concurrent use.
type Condition struct {
	source  string
	program cel.Program
}

// Compile reads a condition. The error says line and column of each problem,
// "1:6: …".
func Compile(source string) (*Condition, error) {
	if len(source) > MaxSource {
		return nil, fmt.Errorf("condition: %d bytes are more than the %d that it may have", len(source), MaxSource)
	}
	if strings.TrimSpace(source) == "" {
		return nil, errors.New("condition: it is empty; leave it out to take everything")
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, fmt.Errorf("condition: %w", describe(issues))
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("condition: 1:1: it is of type %s: want one that is true or false", cel.FormatCELType(t))
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	return &Condition{source, program}, nil
}

func environment() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("body", cel.DynType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("module", cel.StringType),
		cel.Variable("output", cel.StringType),
		cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(MaxSource),
		cel.ParserRecursionLimit(maxNesting),
		ext.Strings(),
	)
}

// describe makes one error of what the compiler found.
func describe(issues *cel.Issues) error {
	var out []string
	for i, e := range issues.Errors() {
		if i == maxProblem {
			out = append(out, fmt.Sprintf("and %d more", len(issues.Errors())-i))
			break
		}
		message, _, _ := strings.Cut(e.Message, "\n")
		message, _, _ = strings.Cut(message, " expecting {") // every token that there is
		message = strings.Replace(message, "mismatched input '<EOF>'", "it ends too early", 1)
		out = append(out, fmt.Sprintf("%d:%d: %s", max(e.Location.Line(), 1), e.Location.Column()+1, message))
	}
	return errors.New(strings.Join(out, "; "))
}

// String is the source.
func (c *Condition) String() string { return c.source }

// Holds says whether the condition holds for a message. With an error it does
// not: a member is missing, types do not fit, or it costs too much.
func (c *Condition) Holds(module, output string, headers map[string]string, body []byte) (bool, error) {
	if headers == nil {
		headers = map[string]string{}
	}
	out, _, err := c.program.Eval(map[string]any{
		"body":    func() any { return value(body) }, // is called where the condition looks at it
		"headers": headers,
		"module":  module,
		"output":  output,
	})
	if err != nil {
		return false, fmt.Errorf("condition: %w", err)
	}
	holds, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("condition: it is of type %s: want one that is true or false", out.Type().TypeName())
	}
	return bool(holds), nil
}

// value is the body as JSON; null when it is not.
func value(body []byte) any {
	var v any
	if err := json.Unmarshal(body, &v); err != nil || v == nil {
		return types.NullValue
	}
	return v
}
