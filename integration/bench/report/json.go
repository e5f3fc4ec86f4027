package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxJSON is the maximum size that Read accepts, in bytes: a hundred times the size of a
// report with all rows.
const maxJSON = 1 << 20

// WriteJSON writes the report as JSON for Read.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("writing the report as JSON: %w", err)
	}
	return nil
}

// Read reads a report that WriteJSON has written. It rejects unknown fields, which would be
// lost silently, and impossible figures, which would be compared.
func Read(from io.Reader) (*Report, error) {
	limited := &io.LimitedReader{R: from, N: maxJSON + 1}
	decoder := json.NewDecoder(limited)
	decoder.DisallowUnknownFields()
	r := new(Report)
	err := decoder.Decode(r)
	if err == nil {
		if _, err = decoder.Token(); err == nil {
			err = errors.New("there is more after it")
		} else if err == io.EOF {
			err = nil
		}
	}
	if limited.N == 0 {
		err = fmt.Errorf("it has more than %d bytes", maxJSON)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, fmt.Errorf("not a report of integration/bench: %w", err)
	}
	return r, nil
}

// check returns an error if a figure cannot have been measured.
func (r *Report) check() error {
	if len(r.Rows) == 0 {
		return errors.New("it has no rows")
	}
	ids := map[string]bool{}
	for _, row := range r.Rows {
		if row.ID == "" {
			return fmt.Errorf("the row %q has no ID", row.Title)
		}
		if ids[row.ID] {
			return fmt.Errorf("the row %s is there twice", row.ID)
		}
		ids[row.ID] = true
		if err := row.check(); err != nil {
			return fmt.Errorf("row %s: %w", row.ID, err)
		}
	}
	return nil
}

func (r Row) check() error {
	systems := map[string]bool{}
	for _, c := range r.Cells {
		if c.System == "" {
			return errors.New("a cell has no system")
		}
		if systems[c.System] {
			return fmt.Errorf("%s is there twice", c.System)
		}
		systems[c.System] = true
		if c.N < 0 || c.Median < 0 || c.P95 < 0 || c.P99 < 0 {
			return fmt.Errorf("%s has a figure below 0", c.System)
		}
		if c.Done < 0 || c.Done > c.Of {
			return fmt.Errorf("%s: %d of %d cannot be", c.System, c.Done, c.Of)
		}
	}
	for _, g := range r.Goals {
		if g.AtMost < 0 {
			return fmt.Errorf("the goal %q is below 0", g.Text)
		}
	}
	return nil
}
