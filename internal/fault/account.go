package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/hub"
	"github.com/tidemark-edge/tidemark/twin"
)

// Account holds what a device's sender was told against what its hub holds.
type Account struct {
	Expected []string // reasons for which messages may be lost; without any, none may
	Repeats  bool     // what is at the hub may be there once more in another epoch

	d     *Device
	told  map[string]int64   // bytes read, by file
	sent  map[string]*series // by name
	fresh bool               // the hub's part was read since the hub began anew
	next  uint64             // of the hub's stream
	lanes map[string]*arrivals
}

// series are the numbers that one goroutine of one life of the sender sent.
type series struct {
	output  string
	excused uint64 // up to here nothing is promised
	tried   uint64 // the highest
	took    map[uint64]bool
	refused map[uint64]string
	got     map[uint64]bool
	came    map[uint64][]place // at the hub
}

// place is where in a lane something is: epochs are counted in the order in which
// they came.
type place struct {
	epoch int
	seq   uint64
}

func (p place) before(o place) bool {
	return p.epoch < o.epoch || p.epoch == o.epoch && p.seq < o.seq
}

// arrivals are what the hub holds of one lane and of what came late in it.
type arrivals struct {
	epochs map[string]int
	lost   []loss
}

// loss is a range that does not come.
type loss struct {
	from, to place
	reason   string
}

// Counts are sums over all series.
type Counts struct {
	Tried, Took, Refused, Arrived, Lost int
}

func newAccount(d *Device) *Account {
	return &Account{d: d, told: map[string]int64{}, sent: map[string]*series{}, lanes: map[string]*arrivals{}}
}

// Counts reads all that was told and counts.
func (a *Account) Counts() Counts {
	a.readTold()
	var c Counts
	for _, s := range a.sent {
		c.Tried += int(s.tried)
		c.Took += len(s.took)
		c.Refused += len(s.refused)
		c.Arrived += len(s.came)
	}
	for _, l := range a.lanes {
		for _, r := range l.lost {
			c.Lost += int(r.to.seq - r.from.seq + 1)
		}
	}
	return c
}

// Excuse asks nothing more of the messages that were sent by these outputs up to now,
// or by any where none is named: parts of the device's disk were damaged. Of the
// lanes' sequences all is asked as before.
func (a *Account) Excuse(outputs ...string) {
	a.readTold()
	for _, s := range a.sent {
		if len(outputs) == 0 || slices.Contains(outputs, s.output) {
			s.excused = s.tried
		}
	}
}

// readTold reads what the senders wrote since the last time, but for a line that is
// being written.
func (a *Account) readTold() {
	files, _ := filepath.Glob(filepath.Join(a.d.toldDir(), "*"))
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			a.d.t.Fatal(err)
		}
		f.Seek(a.told[path], 0)
		for lines := bufio.NewReader(f); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			a.told[path] += int64(len(line))
			a.read(strings.Fields(line))
		}
		f.Close()
	}
}

// read takes one line of a sender.
func (a *Account) read(words []string) {
	if words[0] == "got" {
		words = append([]string{"got", "local"}, words[1:]...)
	}
	s := a.series(words[2])
	n, err := strconv.ParseUint(words[3], 10, 64)
	if err != nil {
		a.d.t.Fatalf("a sender wrote %q", words)
	}
	switch s.output = words[1]; words[0] {
	case "try":
		s.tried = max(s.tried, n)
	case "took":
		s.took[n] = true
	case "no":
		if words[4] != strconv.Itoa(twin.CodeFailed) { // of which nobody knows whether it is on the disk
			s.refused[n] = words[4]
		}
	case "got":
		s.got[n] = true
	}
}

func (a *Account) series(name string) *series {
	s := a.sent[name]
	if s == nil {
		s = &series{took: map[uint64]bool{}, refused: map[uint64]string{}, got: map[uint64]bool{}, came: map[uint64][]place{}}
		a.sent[name] = s
	}
	return s
}

// readHub reads what came at the hub since the last time.
func (a *Account) readHub() error {
	m, err := a.d.Hub.Messages()
	if err != nil {
		return err
	}
	if !a.fresh { // nothing is taken for granted of a hub that was away
		a.next, a.lanes = 0, map[string]*arrivals{}
		for _, s := range a.sent {
			clear(s.came)
		}
	}
	ctx, cancel := context.WithTimeout(a.d.t.Context(), time.Minute)
	defer cancel()
	a.fresh = true
	return m.Read(ctx, hub.Filter{Device: a.d.Name}, a.next, func(one hub.Message) bool {
		if one.At >= a.next {
			a.next = one.At + 1
			a.arrive(one)
		}
		return true
	})
}

// arrive takes one message of the hub.
func (a *Account) arrive(m hub.Message) {
	name := strings.TrimSuffix(m.Lane, twin.Late(""))
	l := a.lanes[name]
	if l == nil {
		l = &arrivals{epochs: map[string]int{}}
		a.lanes[name] = l
	}
	if _, known := l.epochs[m.Epoch]; !known {
		l.epochs[m.Epoch] = len(l.epochs)
	}
	at := place{l.epochs[m.Epoch], m.Seq}
	if m.Lost != nil {
		if m.Lost.Reason != twin.LostDeferred {
			l.lost = append(l.lost, loss{place{at.epoch, m.Lost.From}, at, m.Lost.Reason})
		}
		return
	}
	var body struct {
		Series string
		N      uint64
	}
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return // not of a sender
	}
	s := a.series(body.Series)
	s.came[body.N] = append(s.came[body.N], at)
}

// Settle waits until all that the sender was told by now is accounted for, and
// returns what is not when patience ends, and what no patience mends.
func (a *Account) Settle(patience time.Duration) (violations []string) {
	a.readTold()
	until := map[string]uint64{} // what is sent from now on is for the next time
	for name, s := range a.sent {
		until[name] = s.tried
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		a.readTold()
		waiting, wrong := a.compare(until)
		if len(waiting) == 0 {
			waiting = a.audit()
		}
		if len(waiting) == 0 || time.Now().After(deadline) {
			return append(wrong, waiting...)
		}
	}
}

// compare says what is still to come, and what is wrong for good.
func (a *Account) compare(until map[string]uint64) (waiting, wrong []string) {
	if err := a.readHub(); err != nil {
		return []string{err.Error()}, nil
	}
	missing := map[string]uint64{}
	for _, name := range slices.Sorted(maps.Keys(a.sent)) {
		s := a.sent[name]
		if s.output == "local" {
			waiting = append(waiting, s.undelivered(name, until[name])...)
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(s.came)) {
			switch {
			case n <= s.excused:
			case len(s.came[n]) > 1 && !(a.Repeats && apartInEpochs(s.came[n])):
				wrong = append(wrong, fmt.Sprintf("%s %d is at the hub %d times: %v", name, n, len(s.came[n]), s.came[n]))
			case s.refused[n] != "":
				wrong = append(wrong, fmt.Sprintf("%s %d was refused (%s), and is at the hub", name, n, s.refused[n]))
			}
		}
		for _, n := range slices.Sorted(maps.Keys(s.took)) {
			if n > until[name] || n <= s.excused || len(s.came[n]) > 0 {
				continue
			}
			missing[s.output]++
			if l := a.lanes[s.output]; l == nil || !l.explains(s, n, a.Expected) {
				waiting = append(waiting, fmt.Sprintf("%s %d was taken, and is neither at the hub nor said to be lost", name, n))
			}
		}
	}
	for _, lane := range slices.Sorted(maps.Keys(a.lanes)) {
		lost, why := a.lanes[lane].unexpected(lane, a.Expected)
		if wrong = append(wrong, why...); lost < missing[lane] {
			waiting = append(waiting, fmt.Sprintf("lane %s: %d that were taken are not at the hub, and %d are said to be lost", lane, missing[lane], lost))
		}
	}
	return few(waiting), few(wrong)
}

// apartInEpochs reports whether no two places are of one epoch.
func apartInEpochs(places []place) bool {
	seen := map[int]bool{}
	for _, p := range places {
		if seen[p.epoch] {
			return false
		}
		seen[p.epoch] = true
	}
	return true
}

// few bounds a list.
func few(all []string) []string {
	if len(all) > 5 {
		all = append(all[:5:5], fmt.Sprintf("and %d more like it", len(all)-5))
	}
	return all
}

// undelivered are the messages to the sender itself that it did not get.
func (s *series) undelivered(name string, until uint64) (waiting []string) {
	for _, n := range slices.Sorted(maps.Keys(s.took)) {
		if n <= until && n > s.excused && !s.got[n] {
			waiting = append(waiting, fmt.Sprintf("%s %d was taken, and was not delivered on the device", name, n))
		}
	}
	return waiting
}

// explains reports whether a range that is lost lies where n would: behind what of
// its series came before it, and before what came after.
func (l *arrivals) explains(s *series, n uint64, expected []string) bool {
	low, high := place{-1, 0}, place{1 << 30, 0}
	for i := n; i > 0; i-- {
		if len(s.came[i]) > 0 {
			low = s.came[i][0]
			break
		}
	}
	for i := n; i <= s.tried; i++ {
		if len(s.came[i]) > 0 {
			high = s.came[i][0]
			break
		}
	}
	return slices.ContainsFunc(l.lost, func(r loss) bool {
		return slices.Contains(expected, r.reason) && low.before(r.to) && r.from.before(high)
	})
}

// unexpected says how many are lost, and which of them should not be.
func (l *arrivals) unexpected(lane string, expected []string) (sum uint64, wrong []string) {
	for _, r := range l.lost {
		sum += r.to.seq - r.from.seq + 1
		if !slices.Contains(expected, r.reason) {
			wrong = append(wrong, fmt.Sprintf("lane %s: %d to %d are lost: %s", lane, r.from.seq, r.to.seq, r.reason))
		}
	}
	return sum, wrong
}

// audit is what the hub's own account finds amiss.
func (a *Account) audit() (faults []string) {
	lanes, err := a.d.Hub.Audit(a.d.Name)
	if err != nil {
		return []string{err.Error()}
	}
	for _, lane := range lanes {
		for _, f := range lane.Faults {
			faults = append(faults, fmt.Sprintf("audit of lane %s: %s", lane.Lane, f))
		}
		if lane.Waiting > 0 {
			faults = append(faults, fmt.Sprintf("audit of lane %s: %d are still to come late", lane.Lane, lane.Waiting))
		}
	}
	return few(faults)
}
