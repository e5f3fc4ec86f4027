package sequence

import "fmt"

// Check reports what is wrong with the lists and chains inside a Tracker, each
// of which must hold each attempt once.
func (t *Tracker) Check() error {
	listed := 0
	older := int32(none)
	for i := t.oldest; i != none; i = t.attempts[i].newer {
		a := &t.attempts[i]
		if a.older != older {
			return fmt.Errorf("attempt %d comes after %d and says after %d", i, older, a.older)
		}
		if found := t.find(a.key); found != i {
			return fmt.Errorf("attempt %d is found as %d", i, found)
		}
		if d := t.locks[a.key.at]; int(a.taken) > len(d.Steps) || a.early>>len(d.Steps) != 0 {
			return fmt.Errorf("attempt %d has taken %d steps and heard %b early of %d", i, a.taken, a.early, len(d.Steps))
		}
		if early := a.early >> a.taken << a.taken &^ (1 << a.taken); early != a.early || int(a.taken) < len(t.locks[a.key.at].Steps) && a.redialled&^a.early != 0 {
			return fmt.Errorf("attempt %d has taken %d steps, heard %b early, %b of them redialled", i, a.taken, a.early, a.redialled)
		}
		older = i
		if listed++; listed > t.count {
			return fmt.Errorf("more than %d attempts are listed", t.count)
		}
	}
	if older != t.newest || listed != t.count {
		return fmt.Errorf("%d attempts of %d are listed, up to %d, the newest is %d", listed, t.count, older, t.newest)
	}
	chained := 0
	for _, i := range t.buckets {
		for ; i != none && chained <= t.count; i = t.attempts[i].chain {
			chained++
		}
	}
	free := 0
	for i := t.free; i != none && free <= int(t.used); i = t.attempts[i].chain {
		free++
	}
	if chained != t.count || free != int(t.used)-t.count {
		return fmt.Errorf("of %d used attempts %d are in use: %d are chained, %d are free", t.used, t.count, chained, free)
	}
	return nil
}
