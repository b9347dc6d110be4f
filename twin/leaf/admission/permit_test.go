package admission

import (
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a", false}, {"a", "a.b", false},
		{"a.*", "a.b", true}, {"a.*", "a.*", true}, {"a.*", "a.>", false}, {"a.*", "a.b.c", false}, {"a.*", "a", false},
		{"a.>", "a.b", true}, {"a.>", "a.b.c", true}, {"a.>", "a.*", true}, {"a.>", "a.>", true}, {"a.>", "a.*.>", true}, {"a.>", "a", false}, {"a.>", "b.c", false},
		{"a.*.c", "a.b.c", true}, {"a.*.c", "a.*.c", true}, {"a.*.c", "a.b.*", false}, {"a.*.c", "a.>", false},
		{"a.b.>", "a.>", false}, {"a.b.>", "a.*.c", false}, {"a.*.>", "a.>", false}, {"a.*.>", "a.b.>", true},
		{"*.b", "a.b", true}, {"*.>", "a.b", true}, {"*.>", "a", false}, {">", "a", true}, {">", "a.>", true},
		{"a.b", "a.*", false}, {"a.b.*", "a.b.>", false},
	} {
		if got := covers(c.wide, c.narrow); got != c.want {
			t.Errorf("%s covers %s: %v", c.wide, c.narrow, got)
		}
	}
}

// matches reports whether a pattern matches a literal subject, token by token.
func matches(pattern, subject []string) bool {
	switch {
	case len(pattern) == 0:
		return len(subject) == 0
	case len(subject) == 0:
		return false
	case pattern[0] == ">":
		return true
	case pattern[0] != "*" && pattern[0] != subject[0]:
		return false
	}
	return matches(pattern[1:], subject[1:])
}

// literals are all subjects of up to four tokens of an alphabet of three.
func literals() [][]string {
	all, last := [][]string{}, [][]string{{}}
	for range 4 {
		var next [][]string
		for _, s := range last {
			for _, token := range []string{"a", "b", "c"} {
				next = append(next, append(append([]string{}, s...), token))
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

// FuzzCovers compares what is decided on patterns with what they match.
func FuzzCovers(f *testing.F) {
	subjects := literals()
	for _, seed := range [][2]string{{"a.*", "a.b"}, {"a.>", "a.*.>"}, {"*.b.>", "a.b.c"}, {"a.>", "a"}, {">", "*"}, {"a.*.c", "a.b.>"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, wide, narrow string) {
		if !isPattern(wide) || !isPattern(narrow) {
			return
		}
		w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
		if len(w) > 3 || len(n) > 3 {
			return
		}
		for _, s := range subjects {
			if covers(wide, narrow) && matches(n, s) && !matches(w, s) {
				t.Fatalf("%s covers %s, but not %s", wide, narrow, strings.Join(s, "."))
			}
		}
		// Whoever is granted may do nothing that is never granted.
		if grantable(narrow, []string{wide, ">", "*.>", "*"}) == nil {
			for _, own := range []string{"devices.d1.modules.m.rpc.x", "devices", "up.d1.twin", "messages.d1.x", "fleet.moved", "$JS.API.INFO", "$SYS.x", "_INBOX.d1.x", "_R_.x", "outbox.x"} {
				if matches(n, strings.Split(own, ".")) {
					t.Fatalf("%s is granted, and reaches %s", narrow, own)
				}
			}
		}
	})
}

func TestPermits(t *testing.T) {
	grants := schema.Grants{Publish: []string{"plant.>", "line.*.speed"}, Subscribe: []string{"plant.*", ">"}}
	publish := func(s ...string) schema.Allow { return schema.Allow{Publish: s} }
	subscribe := func(s ...string) schema.Allow { return schema.Allow{Subscribe: s} }
	call := func(s ...string) schema.Allow { return schema.Allow{Call: s} }
	for name, c := range map[string]struct {
		allow  schema.Allow
		grants schema.Grants
		want   string // in the error; "" is permitted
	}{
		"nothing":               {schema.Allow{}, schema.Grants{}, ""},
		"granted":               {publish("plant.a", "plant.*.b", "plant.>", "line.3.speed", "line.*.speed"), grants, ""},
		"everything granted":    {subscribe("plant.a", "x.y.>", "x"), grants, ""},
		"no grant":              {publish("plant.a"), schema.Grants{}, `module m: identity: allow: publish "plant.a": not granted on this device; the device's owner may add "plant.a" to grants: publish`},
		"grant of another verb": {publish("x.y"), grants, "not granted"},
		"wider":                 {publish("line.>"), grants, "not granted"},
		"the prefix itself":     {publish("plant"), grants, "not granted"},
		"wildcard first":        {subscribe("*.x"), grants, "begin with a name"},
		"everything":            {subscribe(">"), grants, "begin with a name"},
		"two wildcards":         {subscribe("*.>"), grants, "begin with a name"},
		"another module":        {subscribe("devices.d1.modules.other.in.x"), grants, "below devices is never granted"},
		"all modules":           {subscribe("devices.>"), grants, "never granted"},
		"devices alone":         {subscribe("devices"), grants, "never granted"},
		"to the hub":            {subscribe("up.d1.twin"), grants, "never granted"},
		"messages":              {subscribe("messages.>"), grants, "never granted"},
		"JetStream":             {subscribe("$JS.API.>"), grants, "never granted"},
		"system":                {subscribe("$SYS.>"), grants, "never granted"},
		"inboxes":               {subscribe("_INBOX.>"), grants, "never granted"},
		"answers":               {subscribe("_R_.>"), grants, "never granted"},
		"the outbox":            {subscribe("$OUTBOX.OUTBOX_hub"), grants, "never granted"},
		"empty":                 {subscribe(""), grants, "not a subject"},
		"empty token":           {subscribe("plant..a"), grants, "not a subject"},
		"leading dot":           {subscribe(".plant"), grants, "not a subject"},
		"trailing dot":          {subscribe("plant."), grants, "not a subject"},
		"space":                 {subscribe("plant. devices"), grants, "not a subject"},
		"line":                  {subscribe("plant\r\nPUB x"), grants, "not a subject"},
		"zero":                  {subscribe("plant.\x00"), grants, "not a subject"},
		"> inside":              {subscribe("plant.>.a"), grants, "not a subject"},
		"wildcard in a token":   {subscribe("pl*nt.a"), grants, "not a subject"},
		"long":                  {subscribe("a." + strings.Repeat("x", maxSubject)), grants, "not a subject"},
		"calls":                 {call("camera/snapshot", "camera/*"), schema.Grants{}, ""},
		"no calls":              {call("camera/snapshot"), schema.Grants{NoCalls: true}, "noCalls"},
		"any module":            {call("*/snapshot"), schema.Grants{}, "want"},
		"subject as a method":   {call("camera/a.b"), schema.Grants{}, "want"},
		"subject as a module":   {call("camera.rpc.x/y"), schema.Grants{}, "want"},
		"no method":             {call("camera"), schema.Grants{}, "want"},
		"everything of it":      {call("camera/>"), schema.Grants{}, "want"},
		"broken grant":          {publish("plant.a"), schema.Grants{Publish: []string{"plant..>", "", "plant.>.x"}}, "not granted"},
	} {
		err := Permits(schema.Desired{Modules: []schema.Module{{Name: "m", Identity: schema.Identity{Allow: c.allow}}}}, c.grants)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		some := granted(c.allow, c.grants)
		if again := permits(some, c.grants); again != nil {
			t.Errorf("%s: what is granted is not permitted: %v", name, again)
		}
		if c.want == "" && len(some.Publish)+len(some.Subscribe)+len(some.Call) != len(c.allow.Publish)+len(c.allow.Subscribe)+len(c.allow.Call) {
			t.Errorf("%s: granted %+v only", name, some)
		}
	}
}
