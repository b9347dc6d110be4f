package schema

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as Go writes it: "1m30s".
type Duration time.Duration

// MarshalText writes the duration as "1m30s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "1m30s".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Bytes is a size, written as a number of bytes or with a binary suffix: "64Mi".
type Bytes int64

var byteUnits = []struct {
	suffix string
	shift  uint
}{{"Ki", 10}, {"Mi", 20}, {"Gi", 30}, {"Ti", 40}}

// UnmarshalJSON reads 1048576, "1048576" or "1Mi".
func (b *Bytes) UnmarshalJSON(data []byte) error {
	s := string(data)
	if len(s) > 0 && s[0] == '"' {
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
	}
	v, err := ParseBytes(s)
	if err != nil {
		return err
	}
	*b = v
	return nil
}

// Short writes the size for people, to one digit after the point: "1.5 GiB".
func (b Bytes) Short() string {
	if b < 1<<10 && b > -1<<10 {
		return fmt.Sprintf("%d B", int64(b))
	}
	v, unit := float64(b)/(1<<10), 0
	// What would be written as 1024.0 of one unit is 1.0 of the next.
	for ; math.Round(math.Abs(v)*10) >= 10240 && unit < len(byteUnits)-1; unit++ {
		v /= 1024
	}
	return fmt.Sprintf("%.1f %sB", v, byteUnits[unit].suffix)
}

// ParseBytes reads "1048576" or "1Mi"; the suffixes are Ki, Mi, Gi and Ti.
func ParseBytes(s string) (Bytes, error) {
	digits, shift := s, uint(0)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			digits, shift = rest, u.shift
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q: want a number of bytes, or one with Ki, Mi, Gi or Ti", s)
	}
	return Bytes(n << shift), nil
}
