package report

import "slices"

// leading keeps up to a limit the entries that lead in an order. When it is full, the half
// that is behind makes room. So an entry that leads for long is kept with all its numbers,
// whatever the others are.
type leading[K comparable, V any] struct {
	limit   int
	order   func(a, b *V) int
	entries map[K]*V
	dropped bool // entries have made room
}

func newLeading[K comparable, V any](limit int, order func(a, b *V) int) leading[K, V] {
	return leading[K, V]{limit: limit, order: order, entries: map[K]*V{}}
}

// at returns the entry of a key. It makes one if there is none.
func (l *leading[K, V]) at(key K) *V {
	if v := l.entries[key]; v != nil {
		return v
	}
	if len(l.entries) >= l.limit {
		l.drop()
	}
	v := new(V)
	l.entries[key] = v
	return v
}

// drop makes room.
func (l *leading[K, V]) drop() {
	type entry struct {
		key   K
		value *V
	}
	var all []entry
	for k, v := range l.entries {
		all = append(all, entry{k, v})
	}
	slices.SortFunc(all, func(a, b entry) int { return l.order(a.value, b.value) })
	for _, e := range all[:(len(all)+1)/2] {
		delete(l.entries, e.key)
	}
	l.dropped = true
}

func (l *leading[K, V]) has(key K) bool { return l.entries[key] != nil }

// sorted returns the entries, those in the lead first.
func (l *leading[K, V]) sorted() []V {
	var all []V
	for _, v := range l.entries {
		all = append(all, *v)
	}
	slices.SortFunc(all, func(a, b V) int { return l.order(&b, &a) })
	return all
}
