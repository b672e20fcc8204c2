package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Progress shows how far long work is, on one line of a terminal and not at all elsewhere.
type Progress struct {
	w           io.Writer
	what        string
	done, total int64
	began, last time.Time
}

// Progress begins to show work of a known amount, in any unit.
func (e *Env) Progress(what string, total int64) *Progress {
	p := &Progress{what: what, total: total, began: time.Now()}
	if Interactive(e.Err) {
		p.w = e.Err
	}
	return p
}

// barWidth is the width of the bar in characters.
const barWidth = 30

// Add counts work that is done.
func (p *Progress) Add(n int64) {
	p.done += n
	if p.w == nil || time.Since(p.last) < 100*time.Millisecond && p.done < p.total {
		return
	}
	p.last = time.Now()
	part := 1.0
	if p.total > 0 {
		part = min(1, float64(p.done)/float64(p.total))
	}
	full := int(part * barWidth)
	_, _ = fmt.Fprintf(p.w, "\r%s [%s%s] %3.0f%% %s", p.what, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		part*100, time.Since(p.began).Round(time.Second))
}

// Close ends the line.
func (p *Progress) Close() {
	if p.w != nil {
		_, _ = fmt.Fprintln(p.w)
	}
}
