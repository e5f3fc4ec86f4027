package sequence_test

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

var seed = flag.Uint64("seed", rand.Uint64(), "what the random knocks of the model test begin with")

// model applies the rules of a Tracker as simply as possible: it keeps a list of
// attempts, and in each a map of what was heard.
type model struct {
	doors    []sequence.Lock
	most     int
	attempts []*modelAttempt // the oldest first
	evicted  uint64
	listed   int // how often an attempt was put among those that are evicted first
	restored int

	victimBucketsOf func(door int, source packet.Source) [2]int
	victimBuckets   map[int]*[4]*modelDisplaced
}

// modelDisplaced is a victim: the first knock of an evicted attempt.
type modelDisplaced struct {
	door      int
	source    packet.Source
	first     modelKnock
	again     []packet.Packet
	forgotten bool // its lock was replaced
}

func newModel(doors []sequence.Lock, most int, tracker *sequence.Tracker) *model {
	return &model{doors: doors, most: most, victimBucketsOf: tracker.ShelvesOf, victimBuckets: map[int]*[4]*modelDisplaced{}}
}

type modelAttempt struct {
	door    int
	source  packet.Source
	steps   []packet.Port
	started time.Time
	taken   int
	order   []int                   // the steps that were heard, as they came
	heard   map[int]modelKnock      // by step
	again   map[int][]packet.Packet // by step: those with which it was dialled again, the newest first
	second  *modelKnock             // of a complete attempt: what may be the second of a new one
	doubted bool
	listed  int // when it was put among those that are evicted first
}

func newModelAttempt(door int, source packet.Source, started time.Time) *modelAttempt {
	return &modelAttempt{door: door, source: source, started: started, heard: map[int]modelKnock{}, again: map[int][]packet.Packet{}}
}

// mayFollow reports whether steps may be heard in an order, or in one that begins with
// it: if the missing steps come after them in order, no three are in reverse order.
func mayFollow(order []int) bool {
	all := slices.Clone(order)
	for step := range slices.Max(order) {
		if !slices.Contains(order, step) {
			all = append(all, step)
		}
	}
	for i, first := range all {
		for j, second := range all[i:] {
			for _, third := range all[i+j:] {
				if first > second && second > third {
					return false
				}
			}
		}
	}
	return true
}

// redial records a packet that dialled a step again. Three are remembered.
func (a *modelAttempt) redial(step int, p packet.Packet) {
	all := append([]packet.Packet{p}, a.again[step]...)
	a.again[step] = all[:min(len(all), 3)]
}

// knows reports whether a packet was heard for a step.
func (a *modelAttempt) knows(step int, p packet.Packet) bool {
	k, ok := a.heard[step]
	return ok && (sameConnection(k.connection, p) ||
		slices.ContainsFunc(a.again[step], func(other packet.Packet) bool { return sameConnection(other, p) }))
}

// early returns what was heard early for certain, in order of arrival.
func (a *modelAttempt) early() (early []modelKnock) {
	for _, step := range a.order {
		if k := a.heard[step]; step > a.taken && !k.redialled {
			early = append(early, k)
		}
	}
	return early
}

// maybe returns what was perhaps heard for the step after the one that is due.
func (a *modelAttempt) maybe() (modelKnock, bool) {
	k, ok := a.heard[a.taken+1]
	return k, ok && k.redialled
}

// forget drops a knock that may have been early and was not.
func (a *modelAttempt) forget(step int) {
	delete(a.heard, step)
	delete(a.again, step)
	a.order = slices.DeleteFunc(a.order, func(s int) bool { return s == step })
}

type modelKnock struct {
	connection packet.Packet
	at         time.Time
	redialled  bool // it may be a redial of the step before
}

func (a *modelAttempt) complete() bool { return a.taken == len(a.steps) }

// yields reports whether an attempt is evicted before those that do not yield.
func (a *modelAttempt) yields() bool { return a.taken < 2 || a.complete() }

// hear records a knock, and takes all steps that are then heard in a row.
func (m *model) hear(a *modelAttempt, step int, k modelKnock) {
	yielded := a.yields()
	a.heard[step] = k
	delete(a.again, step)
	a.order = append(a.order, step)
	for was := a.taken; ; a.taken++ {
		if _, ok := a.heard[a.taken]; !ok {
			a.doubted = a.doubted && a.taken == was
			break
		}
	}
	if a.yields() && !yielded {
		m.list(a)
	}
}

func (m *model) list(a *modelAttempt) {
	m.listed++
	a.listed = m.listed
}

func (m *model) remove(a *modelAttempt) {
	m.attempts = slices.DeleteFunc(m.attempts, func(b *modelAttempt) bool { return a == b })
}

func (m *model) add(a *modelAttempt) {
	a.steps = m.doors[a.door].Steps
	if len(m.attempts) == m.most {
		out := m.attempts[0]
		for _, b := range m.attempts {
			if b.yields() && (!out.yields() || b.listed < out.listed) {
				out = b
			}
		}
		m.remove(out)
		m.moveToVictims(out)
	}
	m.attempts = append(m.attempts, a)
	m.list(a)
}

// moveToVictims records an evicted attempt. If it has taken one step, it is put into one
// of two buckets: in the place of the oldest victim there, or in an empty place.
func (m *model) moveToVictims(a *modelAttempt) {
	m.evicted++
	if a.taken != 1 {
		return
	}
	var place **modelDisplaced
	for _, victimBucket := range m.victimBucketsOf(a.door, a.source) {
		if m.victimBuckets[victimBucket] == nil {
			m.victimBuckets[victimBucket] = new([4]*modelDisplaced)
		}
		for i := range m.victimBuckets[victimBucket] {
			p := &m.victimBuckets[victimBucket][i]
			if place == nil || *place != nil && (*p == nil || (*p).first.at.Before((*place).first.at)) {
				place = p
			}
		}
	}
	first := a.heard[0]
	first.at = a.started
	*place = &modelDisplaced{door: a.door, source: a.source, first: first, again: a.again[0][:min(len(a.again[0]), 1)]}
}

// take removes the victim of a source, and returns it, or nil.
func (m *model) take(door int, source packet.Source) *modelDisplaced {
	for _, victimBucket := range m.victimBuckets {
		for i, d := range victimBucket {
			if d != nil && !d.forgotten && d.door == door && d.source == source {
				victimBucket[i] = nil
				return d
			}
		}
	}
	return nil
}

func (m *model) restoreVictim(door int, source packet.Source, now time.Time) *modelAttempt {
	d := m.take(door, source)
	if d == nil || now.Sub(d.first.at) > m.doors[door].Timeout {
		return nil
	}
	m.restored++
	return m.anew(door, source, d.first, d.again)
}

// anew adds an attempt that has begun with a knock.
func (m *model) anew(door int, source packet.Source, first modelKnock, again []packet.Packet) *modelAttempt {
	a := newModelAttempt(door, source, first.at)
	m.add(a)
	m.hear(a, 0, first)
	if len(again) > 0 {
		a.again[0] = again
	}
	return a
}

func (m *model) Doubt(door int, source packet.Source) {
	if a := m.find(door, source); a != nil {
		a.doubted = true
	}
}

func (m *model) Swapped(door int, source packet.Source) (n int) {
	a := m.find(door, source)
	if a == nil {
		return 0
	}
	// Missing steps come last, and so does what may be a redial.
	place := func(step int) int {
		if i := slices.Index(a.order, step); i >= 0 && (step < a.taken || !a.heard[step].redialled) {
			return i
		}
		return len(a.order) + step
	}
	for later := range a.steps {
		for step := range later {
			if place(step) > place(later) {
				n++
			}
		}
	}
	return n
}

func (m *model) Replace(door int) {
	m.attempts = slices.DeleteFunc(m.attempts, func(a *modelAttempt) bool { return a.door == door })
	for _, victimBucket := range m.victimBuckets {
		for _, d := range victimBucket {
			if d != nil && d.door == door {
				d.forgotten = true
			}
		}
	}
}

func (m *model) find(door int, source packet.Source) *modelAttempt {
	for _, a := range m.attempts {
		if a.door == door && a.source == source {
			return a
		}
	}
	return nil
}

func (m *model) Forget(door int, source packet.Source) (sequence.Attempt, bool) {
	if a := m.find(door, source); a != nil {
		m.remove(a)
		return a.public(), true
	}
	if d := m.take(door, source); d != nil {
		return d.public(), true
	}
	return sequence.Attempt{}, false
}

func (d *modelDisplaced) public() sequence.Attempt {
	return sequence.Attempt{Lock: d.door, Source: d.source, Step: 1, Started: d.first.at}
}

// lapse ends an attempt whose time is up, or whose missing steps did not come in time. If
// its early knock is a first knock, that begins a new attempt.
func (m *model) lapse(a *modelAttempt, now time.Time) (left *modelAttempt, ended sequence.Reason) {
	if now.Sub(a.started) > m.doors[a.door].Timeout {
		m.remove(a)
		if a.complete() || a.doubted {
			return nil, sequence.NotEnded
		}
		return nil, a.public().Reason()
	}
	if k, ok := a.maybe(); ok && now.Sub(k.at) > reorder {
		a.forget(a.taken + 1)
	}
	if !slices.ContainsFunc(a.early(), func(k modelKnock) bool { return now.Sub(k.at) > reorder }) {
		return a, sequence.NotEnded
	}
	if !a.doubted {
		ended = sequence.WrongOrder
	}
	return m.instead(a), ended
}

// instead ends an attempt, and returns the one that the latest of its early knocks
// begins, or nil.
func (m *model) instead(a *modelAttempt) *modelAttempt {
	m.remove(a)
	if early := a.early(); len(early) > 0 {
		if k := early[len(early)-1]; k.connection.Port == a.steps[0] {
			return m.anew(a.door, a.source, k, nil)
		}
	}
	return nil
}

func (m *model) Knock(door int, p packet.Packet, now time.Time) (out sequence.Outcome) {
	d := m.doors[door]
	source := d.Prefix.Of(p.Source)
	knock := modelKnock{connection: p, at: now}
	a := m.find(door, source)
	if a == nil {
		a = m.restoreVictim(door, source, now)
	}
	if a != nil {
		taken := a.taken
		if a, out.Ended = m.lapse(a, now); out.Ended != sequence.NotEnded {
			out.EndedAt = taken
		}
	}
	if a == nil {
		return m.begin(door, source, knock, out)
	}

	out.Step = a.taken
	fits := -1
	for step, port := range slices.Backward(d.Steps) {
		if port != p.Port {
			continue
		}
		if a.knows(step, p) {
			return out
		}
		if _, known := a.heard[step]; !known && mayFollow(append(slices.Clone(a.order), step)) {
			fits = step
		}
	}
	first, last := p.Port == d.Steps[0], len(d.Steps)-1
	redials := a.taken > 0 && p.Port == d.Steps[a.taken-1]
	switch {
	case fits >= 0 && fits == a.taken:
		m.hear(a, fits, knock)
		out.Step, out.Progress = a.taken, sequence.Advanced
		if a.complete() {
			out.Progress = sequence.Completed
		}
		return out
	case a.complete() && redials && !first:
		if last == 0 || p.Port != d.Steps[1] {
			a.redial(last, p)
			return out
		}
		a.redial(last, a.heard[last].connection)
		a.heard[last], a.second = knock, &knock
		return out
	case redials && !a.complete():
		a.redial(a.taken-1, p)
		if len(a.early()) > 0 {
			return out
		}
		if a.taken == 1 {
			m.remove(a)
			a.started, a.doubted = now, false
			m.attempts = append(m.attempts, a)
			m.list(a)
		}
		if _, ok := a.maybe(); ok {
			a.forget(a.taken + 1)
		}
		if a.taken < last && d.Steps[a.taken+1] == p.Port {
			knock.redialled = true
			m.hear(a, a.taken+1, knock)
		}
		return out
	case fits >= 0 && !a.doubted:
		m.hear(a, fits, knock)
		out.Progress = sequence.Early
		return out
	case a.complete() && first && a.second != nil && now.Sub(a.second.at) <= reorder:
		m.remove(a)
		b := newModelAttempt(door, source, a.second.at)
		m.add(b)
		m.hear(b, 1, *a.second)
		b.again[1] = a.again[last]
		return m.Knock(door, p, now)
	}
	if !a.complete() && !a.doubted {
		out.Ended, out.EndedAt = sequence.WrongOrder, a.taken
	}
	if a.complete() || m.instead(a) == nil {
		m.remove(a)
		return m.begin(door, source, knock, out)
	}
	next := m.Knock(door, p, now)
	if out.Ended != sequence.NotEnded {
		next.Ended, next.EndedAt = out.Ended, out.EndedAt
	}
	return next
}

func (m *model) begin(door int, source packet.Source, k modelKnock, out sequence.Outcome) sequence.Outcome {
	out.Step = 0
	step := slices.Index(m.doors[door].Steps, k.connection.Port)
	if step < 0 {
		return out
	}
	a := newModelAttempt(door, source, k.at)
	m.add(a)
	m.hear(a, step, k)
	out.Step = a.taken
	switch {
	case a.complete():
		out.Progress = sequence.Completed
	case a.taken > 0:
		out.Progress = sequence.Advanced
	default:
		out.Progress = sequence.Early
	}
	return out
}

func sameConnection(a, b packet.Packet) bool {
	return a.SourcePort == b.SourcePort && a.Sequence == b.Sequence
}

func (m *model) Expire(now time.Time, ended func(sequence.Attempt)) {
	for len(m.attempts) > 0 {
		a := m.attempts[0]
		if now.Sub(a.started) <= m.doors[a.door].Timeout {
			return
		}
		if !a.complete() && !a.doubted {
			ended(a.public())
		}
		m.attempts = m.attempts[1:]
	}
}

func (m *model) All(now time.Time) (all []sequence.Attempt) {
	for _, a := range slices.Backward(m.attempts) {
		if !a.complete() && !a.doubted && now.Sub(a.started) <= m.doors[a.door].Timeout {
			all = append(all, a.public())
		}
	}
	return all
}

func (a *modelAttempt) public() sequence.Attempt {
	return sequence.Attempt{
		Lock: a.door, Source: a.source, Step: a.taken, Started: a.started,
		Strayed: len(a.early()) > 0, Doubted: a.doubted,
	}
}

// trial is a Tracker and its model, which get the same knocks.
type trial struct {
	*testing.T
	doors   []sequence.Lock
	known   []int // their indexes in trialDoors, -1 for others
	tracker *sequence.Tracker
	model   *model
	now     time.Time
}

// trialDoors share prefixes and ports, repeat ports, and differ in their timeouts and
// source prefixes.
func trialDoors() []sequence.Lock {
	doors := []sequence.Lock{
		door(7000, 8000),
		door(7000, 8000, 9000),
		door(9000, 8000, 7000),
		door(7000, 8000, 7000),
		door(7000, 7000, 8000),
		door(7000, 8000, 9000, 7000),
		door(7000, 8000, 7000, 9000, 7000),
		door(7000, 8000, 9000, 8000),
		door(7000, 8000, 8000, 7000),
		door(7000),
		doorOf(udp(7000), tcp(7000), udp(8000)),
	}
	doors[2].Timeout = time.Second
	doors[1].Prefix = packet.SourcePrefix{IPv4: 31, IPv6: 64}
	return doors
}

var trialSources = []netip.Addr{alice, bob, alice6, bob6, carol6}

func newTrial(t *testing.T, most int) *trial {
	doors := trialDoors()
	epoch := time.Unix(1, 0)
	known := make([]int, len(doors))
	for i := range known {
		known[i] = i
	}
	tracker := sequence.NewTracker(doors, reorder, most, epoch)
	return &trial{
		T: t, doors: doors, known: known, now: epoch,
		tracker: tracker,
		model:   newModel(doors, most, tracker),
	}
}

func (t *trial) knock(door int, p packet.Packet) sequence.Outcome {
	t.Helper()
	got, want := t.tracker.Knock(door, p, t.now), t.model.Knock(door, p, t.now)
	if got != want {
		t.Fatalf("%v at door %d, %v from %v: %+v, want %+v",
			t.now.Sub(time.Unix(1, 0)), door, p.Port, p.Source, got, want)
	}
	return got
}

func (t *trial) expire() {
	t.Helper()
	var got, want []sequence.Attempt
	t.tracker.Expire(t.now, func(a sequence.Attempt) { got = append(got, a) })
	t.model.Expire(t.now, func(a sequence.Attempt) { want = append(want, a) })
	if diff := cmp.Diff(want, got, compareSources); diff != "" {
		t.Fatalf("expired (-want +got):\n%s", diff)
	}
}

func (t *trial) replace(door int) {
	t.tracker.Replace(door, t.doors[door].Steps)
	t.model.Replace(door)
}

func (t *trial) forget(door int, addr netip.Addr) {
	t.Helper()
	source := t.doors[door].Prefix.Of(addr)
	got, ok := t.tracker.Forget(door, source)
	want, wantOK := t.model.Forget(door, source)
	if got != want || ok != wantOK {
		t.Fatalf("forgotten of %s at door %d: %+v, %t, want %+v, %t", source, door, got, ok, want, wantOK)
	}
}

func (t *trial) doubt(door int, addr netip.Addr) {
	source := t.doors[door].Prefix.Of(addr)
	t.tracker.Doubt(door, source)
	t.model.Doubt(door, source)
}

// oddly replaces a door, or forgets or doubts a source's attempt there, now and then.
func (t *trial) oddly(random *rand.Rand) {
	t.Helper()
	door := random.IntN(len(t.doors))
	switch random.IntN(64) {
	case 0:
		t.replace(door)
	case 1, 2:
		t.forget(door, trialSources[random.IntN(len(trialSources))])
	case 3, 4, 5:
		t.doubt(door, trialSources[random.IntN(len(trialSources))])
	}
}

// check compares all visible state of the two, and checks the inside of the Tracker.
func (t *trial) check() {
	t.Helper()
	if err := t.tracker.Check(); err != nil {
		t.Fatal(err)
	}
	if got, want := t.tracker.Len(), len(t.model.attempts); got != want {
		t.Fatalf("%d attempts, want %d", got, want)
	}
	if got, want := t.tracker.Evicted(), t.model.evicted; got != want {
		t.Fatalf("%d attempts were evicted, want %d", got, want)
	}
	got, want := slices.Collect(t.tracker.All(t.now)), t.model.All(t.now)
	if !slices.Equal(got, want) {
		t.Fatalf("under way (-want +got):\n%s", cmp.Diff(want, got, compareSources))
	}
	for _, a := range t.model.attempts {
		if got, ok := t.tracker.Of(a.door, a.source); !ok || got != a.public() {
			t.Fatalf("of %s at door %d: %+v, %t, want %+v", a.source, a.door, got, ok, a.public())
		}
		if got, want := t.tracker.Swapped(a.door, a.source), t.model.Swapped(a.door, a.source); got != want {
			t.Fatalf("of %s at door %d %d pairs are swapped, want %d, of %v", a.source, a.door, got, want, a.order)
		}
	}
	victims := 0
	for _, victimBucket := range t.model.victimBuckets {
		for _, d := range victimBucket {
			if d == nil {
				continue
			}
			victims++
			if d.forgotten {
				continue
			}
			if got, ok := t.tracker.Of(d.door, d.source); !ok || got != d.public() {
				t.Fatalf("of %s at door %d: %+v, %t", d.source, d.door, got, ok)
			}
		}
	}
	if _, got := t.tracker.Displaced(); got != victims {
		t.Fatalf("of %d evicted attempts the first knock is remembered, want %d", got, victims)
	}
}

// pass makes another Tracker inherit the attempts. It has some of the doors, in another
// order, and may have places for more or fewer attempts. The model forgets the rest. Now
// and then all is the same, and nothing is forgotten.
func (t *trial) pass(random *rand.Rand) {
	t.Helper()
	all := trialDoors()
	var doors []sequence.Lock
	var chosen []int // indexes of doors
	which := random.Perm(len(all))[:1+random.IntN(len(all))]
	if random.IntN(2) == 0 && !slices.Contains(t.known, -1) {
		which = t.known
	}
	for _, i := range which {
		doors = append(doors, all[i])
		chosen = append(chosen, i)
	}
	if random.IntN(3) == 0 { // an unknown door with more steps
		doors = append(doors, door(1, 2, 3, 4, 5, 6, 7, 8))
		chosen = append(chosen, -1)
	}
	doorOf := func(door int) int {
		if t.known[door] < 0 {
			return -1
		}
		return slices.Index(chosen, t.known[door])
	}
	most := 1 + random.IntN(16)
	if random.IntN(2) == 0 {
		most = t.model.most
	}
	next := sequence.NewTracker(doors, reorder, most, t.now.Add(-time.Duration(random.IntN(3))*time.Hour))
	next.Inherit(t.tracker, doorOf)

	m := newModel(doors, most, next)
	m.restored = t.model.restored
	same := most == t.model.most
	for door := range t.doors {
		same = same && doorOf(door) == door
	}
	if same {
		m.victimBuckets = t.model.victimBuckets
	}
	var kept []*modelAttempt
	for _, a := range t.model.attempts {
		if i := doorOf(a.door); i >= 0 {
			a.door = i
			kept = append(kept, a)
		}
	}
	surplus := len(kept) - most
	for _, a := range kept {
		if surplus > 0 && a.yields() {
			surplus--
			m.moveToVictims(a)
		} else {
			m.add(a)
		}
	}
	t.tracker, t.model, t.doors, t.known = next, m, doors, chosen
	t.check()
}

// Attempts go on unchanged when another Tracker inherits them.
func TestATrackerGoesOnWhereAnotherHasStopped(t *testing.T) {
	t.Logf("run again with -seed=%d", *seed)
	random := rand.New(rand.NewPCG(*seed, 1000))
	trial := newTrial(t, 16)
	completed, evicted := 0, uint64(0)
	keptDisplaced := 0
	for range 20_000 {
		door := random.IntN(len(trial.doors))
		steps := trial.doors[door].Steps
		addr := trialSources[random.IntN(len(trialSources))]
		source := uint16(random.IntN(6))
		passed := false
		for step := range steps {
			if random.IntN(4) == 0 {
				step = random.IntN(len(steps))
			}
			out := trial.knock(door, packet.Packet{Source: addr, Port: steps[step], SourcePort: source})
			trial.check()
			if out.Progress == sequence.Completed && passed {
				completed++
			}
			trial.now = trial.now.Add(pause(6 + random.IntN(58)))
			if random.IntN(16) == 0 {
				was := trial.known[door]
				trial.pass(random)
				if len(trial.model.victimBuckets) > 0 {
					keptDisplaced++
				}
				evicted += trial.tracker.Evicted()
				if door = slices.Index(trial.known, was); was < 0 || door < 0 {
					break
				}
				passed = true
			}
		}
		if random.IntN(16) == 0 {
			trial.expire()
			trial.check()
		}
		trial.oddly(random)
	}
	if completed < 100 || evicted < 100 || keptDisplaced < 100 || trial.model.restored < 100 {
		t.Errorf("%d attempts were completed at a later Tracker, %d were evicted, %d times some of those were remembered, and %d went on: too few",
			completed, evicted, keptDisplaced, trial.model.restored)
	}
}

func TestTrackerDoesWhatItsModelDoes(t *testing.T) {
	t.Logf("run again with -seed=%d", *seed)
	for _, most := range []int{1, 2, 7, 64} {
		random := rand.New(rand.NewPCG(*seed, uint64(most)))
		trial := newTrial(t, most)
		reached := map[sequence.Progress]int{}
		ended := map[sequence.Reason]int{}
		swapped := 0
		for range 10_000 {
			door := random.IntN(len(trial.doors))
			steps := trial.doors[door].Steps
			addr := trialSources[random.IntN(len(trialSources))]
			// A run at one door, so that attempts get far: mostly in order, or with
			// neighbours swapped, or with each knock dialled several times.
			swap, dials := random.IntN(4), 1
			if random.IntN(4) == 0 {
				dials = 1 + random.IntN(6)
			}
			for n := range len(steps) * dials {
				step := n / dials
				if swap < 2 && (step+swap)%2 == 0 && step+1 < len(steps) {
					step++
				} else if swap < 2 && (step+swap)%2 == 1 && step > 0 {
					step--
				}
				if random.IntN(8) == 0 {
					step = random.IntN(len(steps))
				}
				p := packet.Packet{Source: addr, Port: steps[step], SourcePort: uint16(random.IntN(6))}
				if p.Port.Protocol == packet.TCP {
					p.Sequence = uint32(random.IntN(2))
				}
				out := trial.knock(door, p)
				reached[out.Progress]++
				ended[out.Ended]++
				if out.Progress == sequence.Completed && trial.tracker.Swapped(door, trial.doors[door].Prefix.Of(addr)) > 0 {
					swapped++
				}
				trial.check()
				trial.now = trial.now.Add(pause(random.IntN(128)))
				if random.IntN(8*dials) == 0 {
					break // to go on with other sources
				}
			}
			trial.oddly(random)
			trial.check()
			if random.IntN(16) == 0 {
				trial.expire()
				trial.check()
			}
		}
		// The random knocks are useless if they do not reach everything.
		for p := sequence.Nothing; p <= sequence.Completed; p++ {
			if reached[p] == 0 {
				t.Errorf("of %d attempts at most: no knock led to progress %d", most, p)
			}
		}
		if swapped < 100 {
			t.Errorf("of %d attempts at most: %d were complete of which knocks were swapped", most, swapped)
		}
		if most < 64 && trial.model.restored == 0 {
			t.Errorf("of %d attempts at most: none went on after it was evicted", most)
		}
		for r := sequence.NotEnded; r <= sequence.TooLate; r++ {
			if ended[r] == 0 {
				t.Errorf("of %d attempts at most: no attempt ended for reason %d", most, r)
			}
		}
	}
}

// pause returns a time to wait, mostly short, and sometimes one of the limits. It is in
// whole microseconds, the resolution of a Tracker.
func pause(n int) time.Duration {
	switch n {
	case 0:
		return reorder
	case 1:
		return reorder + time.Microsecond
	case 2:
		return time.Second
	case 3:
		return time.Second + time.Microsecond
	case 4:
		return timeout
	case 5:
		return timeout + time.Microsecond
	}
	return time.Duration(n%16) * time.Millisecond
}

// FuzzTracker makes each knock from two bytes.
func FuzzTracker(f *testing.F) {
	f.Add(uint8(0), []byte{})
	f.Add(uint8(3), []byte{0x08, 0x10, 0x09, 0x20, 0x0a, 0x30})
	// With room for two attempts: three sources begin, and the first goes on.
	f.Add(uint8(1), []byte{0x01, 0x41, 0x0a, 0x41, 0x13, 0x41, 0x2e, 0x41})
	f.Add(uint8(1), []byte{0x40, 0x00, 0x41, 0x51, 0xff, 0xff, 0x42, 0x12})
	f.Fuzz(func(t *testing.T, most uint8, b []byte) {
		b = b[:min(len(b), 512)] // long enough for all that can happen
		trial := newTrial(t, 1+int(most%8))
		ports := []packet.Port{tcp(7000), tcp(8000), tcp(9000), udp(7000), udp(8000)}
		for ; len(b) >= 2; b = b[2:] {
			trial.now = trial.now.Add(pause(int(b[1] >> 2)))
			which := int(b[0])
			door := which % len(trial.doors)
			switch {
			case which == 0xff:
				trial.expire()
			case which == 0xfe:
				trial.replace(int(b[1]) % len(trial.doors))
			case which >= 0xf9 && b[1]&0x80 != 0: // each of the sources
				trial.doubt(int(b[1])%len(trial.doors), trialSources[which-0xf9])
			case which >= 0xf9:
				trial.forget(int(b[1])%len(trial.doors), trialSources[which-0xf9])
			default:
				which /= len(trial.doors)
				trial.knock(door, packet.Packet{
					Source:     trialSources[which%len(trialSources)],
					Port:       ports[which/len(trialSources)%len(ports)],
					SourcePort: uint16(b[1] & 3),
				})
			}
			trial.check()
			if n := trial.tracker.Len(); n > 1+int(most%8) {
				t.Fatalf("%d attempts", n)
			}
		}
	})
}
