package sequence

import (
	"hash/maphash"
	"time"
)

// This file stores the windows of a [Windows]: their records in chunks, so that no record
// ever moves and a new one never waits for others to be copied; an index by key; a heap by
// end; and the texts that name openers, each once. The Go map that is the index grows in
// small steps, too. A window takes about a hundred bytes.

// chunkRecords is how many records are allocated at a time.
const chunkRecords = 1024

// windowRecords is a growing array of records.
type windowRecords struct {
	chunks []*[chunkRecords]windowRecord
	used   int   // records that are or were in use
	free   int32 // the first free record of those, or none
}

func (r *windowRecords) at(i int32) *windowRecord {
	return &r.chunks[i/chunkRecords][i%chunkRecords]
}

// take returns a record that is free.
func (r *windowRecords) take() int32 {
	if i := r.free; i != none {
		r.free = r.at(i).chain
		return i
	}
	if r.used == len(r.chunks)*chunkRecords {
		r.chunks = append(r.chunks, new([chunkRecords]windowRecord))
	}
	r.used++
	return int32(r.used - 1)
}

// give takes a record back.
func (r *windowRecords) give(i int32) {
	*r.at(i) = windowRecord{place: none, chain: r.free}
	r.free = i
}

// since returns a time as records have it, and time returns it from there.
func (w *Windows) since(t time.Time) time.Duration { return t.Sub(w.epoch) }

func (w *Windows) time(d time.Duration) time.Time { return w.epoch.Add(d) }

func (w *Windows) hash(k key) uint32 {
	b := k.bytes()
	return uint32(maphash.Bytes(w.seed, b[:]))
}

// find returns the window with a key, or none.
func (w *Windows) find(k key) int32 {
	i, ok := w.byHash[w.hash(k)]
	if !ok {
		return none
	}
	for i != none && w.records.at(i).key != k {
		i = w.records.at(i).chain
	}
	return i
}

// add adds a window with a key that has none. It ends at the epoch.
func (w *Windows) add(k key) int32 {
	i := w.records.take()
	first, ok := w.byHash[w.hash(k)]
	if !ok {
		first = none
	}
	w.byHash[w.hash(k)] = i
	*w.records.at(i) = windowRecord{key: k, chain: first}
	w.order = append(w.order, i)
	w.put(len(w.order)-1, i)
	w.fix(i)
	return i
}

// forget removes a window.
func (w *Windows) forget(i int32) {
	r := w.records.at(i)
	if !r.isSpent() {
		w.count(i, -1)
	}
	w.unchain(i)
	last := len(w.order) - 1
	moved := w.order[last]
	w.order = w.order[:last]
	if moved != i {
		w.put(int(r.place), moved)
		w.fix(moved)
	}
	w.openers.release(r.opener)
	delete(w.admitted, i)
	w.records.give(i)
	if len(w.order) == 0 && w.records.used > chunkRecords {
		w.clear() // maps do not shrink
	}
}

// unchain removes a window from the index.
func (w *Windows) unchain(i int32) {
	r := w.records.at(i)
	hash := w.hash(r.key)
	before := w.byHash[hash]
	switch {
	case before != i:
		for w.records.at(before).chain != i {
			before = w.records.at(before).chain
		}
		w.records.at(before).chain = r.chain
	case r.chain == none:
		delete(w.byHash, hash)
	default:
		w.byHash[hash] = r.chain
	}
}

// endAt changes when a window ends.
func (w *Windows) endAt(i int32, until time.Time) {
	w.records.at(i).until = w.since(until)
	w.fix(i)
}

// put puts a window at a place of the heap.
func (w *Windows) put(place int, i int32) {
	w.order[place] = i
	w.records.at(i).place = int32(place)
}

// fix moves a window of the heap to where it belongs, after its end has changed.
func (w *Windows) fix(i int32) {
	ends := func(place int) time.Duration { return w.records.at(w.order[place]).until }
	until := w.records.at(i).until
	place := int(w.records.at(i).place)
	for place > 0 && until < ends((place-1)/2) {
		w.put(place, w.order[(place-1)/2])
		place = (place - 1) / 2
	}
	for child := 2*place + 1; child < len(w.order); child = 2*place + 1 {
		if child+1 < len(w.order) && ends(child+1) < ends(child) {
			child++
		}
		if ends(child) >= until {
			break
		}
		w.put(place, w.order[child])
		place = child
	}
	w.put(place, i)
}

// texts stores each text once, however many windows have it. The empty text has the number 0.
type texts struct {
	all   []heldText
	known map[string]uint32
	free  []uint32
}

type heldText struct {
	text  string
	holds int
}

func newTexts() texts {
	return texts{all: make([]heldText, 1), known: map[string]uint32{}}
}

func (t *texts) text(n uint32) string { return t.all[n].text }

// hold returns the number of a text. It stays until it is released as often as it was held.
func (t *texts) hold(text string) uint32 {
	if text == "" {
		return 0
	}
	n, ok := t.known[text]
	switch {
	case ok:
	case len(t.free) > 0:
		n = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	default:
		n = uint32(len(t.all))
		t.all = append(t.all, heldText{})
	}
	if !ok {
		t.all[n].text = text
		t.known[text] = n
	}
	t.all[n].holds++
	return n
}

func (t *texts) release(n uint32) {
	if n == 0 {
		return
	}
	h := &t.all[n]
	if h.holds--; h.holds == 0 {
		delete(t.known, h.text)
		*h = heldText{}
		t.free = append(t.free, n)
	}
}
