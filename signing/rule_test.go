package signing

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, repository string
		want                bool
	}{
		{"example.com/app", "example.com/app", true},
		{"example.com/app", "example.com/app2", false},
		{"example.com/app", "example.com/app/x", false},
		{"example.com/app", "example.com.evil.org/app", false},
		{"example.com/*", "example.com/app", true},
		{"example.com/*", "example.com/team/app", false},
		{"example.com/team-*", "example.com/team-a", true},
		{"example.com/team-*", "example.com/team-", true},
		{"example.com/team-*", "example.com/team", false},
		{"example.com/*/app", "example.com/team/app", true},
		{"example.com/*/app", "example.com/app", false},
		{"example.com/**", "example.com/app", true},
		{"example.com/**", "example.com/a/b/c", true},
		{"example.com/**", "example.org/a", false},
		{"example.com/**/app", "example.com/app", true},
		{"example.com/**/app", "example.com/a/b/app", true},
		{"example.com/**/app", "example.com/a/app/b", false},
		{"example.com/**/app/**", "example.com/a/app/b", true},
		{"**", "example.com/a/b", true},
		{"**/app", "example.com/app", true},
		{"*/app", "example.com/app", true},
		{"*.example.com/app", "eu.example.com/app", true},
		{"*.example.com/app", "example.com/app", false},
		{"127.0.0.1:5000/*", "127.0.0.1:5000/app", true},
		{"127.0.0.1:5000/*", "127.0.0.1:5001/app", false},
		{"127.0.0.1:*/*", "127.0.0.1:5001/app", true},
	} {
		match, err := parsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&rule{match: match}).matches(tt.repository); got != tt.want {
			t.Errorf("%s matches %s = %t", tt.pattern, tt.repository, got)
		}
	}
}

// A pattern that a naive matcher takes exponential time for.
func TestMatchIsNotSlow(t *testing.T) {
	match, err := parsePattern("example.com" + strings.Repeat("/**/a", 60) + "/b")
	if err != nil {
		t.Fatal(err)
	}
	if (&rule{match: match}).matches("example.com" + strings.Repeat("/a", 100)) {
		t.Error("matches")
	}
}
