package account

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseReadsWhatStringWrites(t *testing.T) {
	for _, u := range []IDs{{}, {UID: 1, GID: 2}, {UID: maxID, GID: maxID, Groups: []uint32{1, 2, 3}}} {
		if got, err := Parse(u.String()); err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("%+v became %+v, %v", u, got, err)
		}
	}
	for _, s := range []string{"", "1", "1:2,", "a:b", "1:2,x", "1:2,4294967296", "1:2" + strings.Repeat(",1", maxGroups+1)} {
		if got, err := Parse(s); err == nil && s != "1:2," {
			t.Errorf("%q became %+v", s, got)
		}
	}
}
