package report

import "time"

// Calendar counts by day and by hour of the day, in the time zone of its period.
type Calendar struct {
	Days []Day // one after the other, from the period's first day to its last
	zone *time.Location
}

// Day is the counts of a day.
type Day struct {
	Date  time.Time // midnight in UTC, to count days with
	Hours [24]int
}

// Total returns the count of the whole day.
func (d *Day) Total() (n int) {
	for _, h := range d.Hours {
		n += h
	}
	return n
}

// dateOf returns the date of a time in a zone.
func dateOf(t time.Time, zone *time.Location) time.Time {
	year, month, day := t.In(zone).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

func newCalendar(from, until time.Time) Calendar {
	c := Calendar{zone: until.Location()}
	last := dateOf(until, c.zone)
	for d := dateOf(from, c.zone); !d.After(last); d = d.AddDate(0, 0, 1) {
		c.Days = append(c.Days, Day{Date: d})
	}
	return c
}

// add counts n at a time in the period.
func (c *Calendar) add(t time.Time, n int) {
	day := int(dateOf(t, c.zone).Sub(c.Days[0].Date) / (24 * time.Hour))
	if day >= 0 && day < len(c.Days) {
		c.Days[day].Hours[t.In(c.zone).Hour()] += n
	}
}

// Total returns the count of all days.
func (c *Calendar) Total() (n int) {
	for i := range c.Days {
		n += c.Days[i].Total()
	}
	return n
}

// Most returns the highest count of an hour.
func (c *Calendar) Most() (n int) {
	for _, d := range c.Days {
		for _, h := range d.Hours {
			n = max(n, h)
		}
	}
	return n
}
