package queue

// spot says that the record with the last sequence last is at place at of the
// stream.
type spot struct{ last, at uint64 }

// spots are the last few that were seen: where each of some readers is.
type spots struct {
	known [16]spot
	next  int
}

func (s *spots) add(p spot) {
	for i := range s.known {
		if s.known[i] == p {
			return
		}
	}
	s.known[s.next] = p
	s.next = (s.next + 1) % len(s.known)
}

// around says between which places the first record behind after is: behind low,
// and not behind high, where the stream has the places head to tail. Where after was
// the end of a record, as it is for whoever reads on, there is nothing to search.
func (s *spots) around(after, head, tail uint64) (low, high uint64) {
	low, high = max(head, 1)-1, max(tail, 1)
	for _, p := range s.known {
		switch {
		case p.at == 0:
		case p.last == after:
			at := max(p.at, max(head, 1)-1)
			return at, at
		case p.last <= after:
			low = max(low, p.at)
		default:
			high = min(high, p.at)
		}
	}
	return min(low, high), high
}
