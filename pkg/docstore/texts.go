package docstore

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Texts are documents that people write and several APIs change, each with what one of these APIs notes of it.
// Text and note are one object, so that a change of both is one swap: the note is a comment of YAML in the
// last line. A text that nobody noted anything of is stored as it is. One that is deleted leaves its memory
// for a while, which Sweep ends. Its methods may be called at the same time.
type Texts struct {
	store *Store
	now   func() time.Time

	mu    sync.Mutex // guards known
	known map[string]seenText
}

// Text is a document with its note. Version is "" if there was never any, or none is remembered.
type Text struct {
	Doc
	Gone   bool            // there is no text, only a memory
	Note   json.RawMessage // of this text; it goes with it
	Memory json.RawMessage // outlives the text
}

// Exists says whether there is a text.
func (t Text) Exists() bool { return t.Version != "" && !t.Gone }

// TextEntry is a text in a listing, without its data and its memory.
type TextEntry struct {
	Entry
	Note json.RawMessage
}

// seenText is what is remembered of one version, so that listings need not read it again.
type seenText struct {
	version  Version
	gone     bool
	modified time.Time
	note     json.RawMessage
}

// trailer is the last line of what is stored.
type trailer struct {
	Modified time.Time       `json:"modified"`
	Gone     bool            `json:"gone,omitempty"`
	Note     json.RawMessage `json:"note,omitempty"`
	Memory   json.RawMessage `json:"memory,omitempty"`
}

const (
	trailerMark = "# amphora: "
	// memorySize divides the size of what is stored of a text that is gone, so that a listing reads no others.
	memorySize = 4096
	// gonePrefix is where the keys are noted of texts that are gone, for Sweep.
	gonePrefix = "gone/"
	maxKnown   = 100_000
)

// NewTexts returns the texts in s; now is for tests, nil: time.Now.
func NewTexts(s *Store, now func() time.Time) *Texts {
	if now == nil {
		now = time.Now
	}
	return &Texts{store: s, now: now, known: map[string]seenText{}}
}

// split takes the last line off what is stored; ok is false if there is none.
func split(data []byte) (text []byte, t trailer, ok bool) {
	line := bytes.TrimRight(data, " ")
	at := bytes.LastIndexByte(line, '\n') + 1
	line = line[at:]
	if !bytes.HasPrefix(line, []byte(trailerMark)) || json.Unmarshal(line[len(trailerMark):], &t) != nil {
		return data, trailer{}, false
	}
	return data[:max(0, at-1)], t, true
}

// joined is what is stored of a text.
func joined(text []byte, t trailer) ([]byte, error) {
	line, err := json.Marshal(t)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode the note of a document: %w", err)
	}
	out := append(append(bytes.Clone(text), '\n'), trailerMark...)
	if t.Gone {
		out = []byte(trailerMark)
	}
	out = append(out, line...)
	if t.Gone {
		out = append(out, strings.Repeat(" ", memorySize-len(out)%memorySize)...)
	}
	return out, nil
}

// textOf reads what is stored.
func textOf(d Doc) Text {
	text, t, ok := split(d.Data)
	if !ok {
		return Text{Doc: d}
	}
	d.Data, d.Modified = text, t.Modified
	if t.Gone {
		d.Data = nil
	}
	return Text{d, t.Gone, t.Note, t.Memory}
}

// stored is what is stored of next in the place of a document that has the version was; nil: nothing.
func (t *Texts) stored(next Text) ([]byte, error) {
	_, _, alike := split(next.Data)
	switch {
	case next.Gone:
		next.Data, next.Note = nil, nil
	case next.Note == nil && next.Memory == nil && !alike:
		return next.Data, nil
	}
	return joined(next.Data, trailer{next.Modified, next.Gone, next.Note, next.Memory})
}

// Look returns a text, or what is remembered of it: that there is none is no error.
func (t *Texts) Look(ctx context.Context, key string) (Text, error) {
	d, err := t.store.Get(ctx, key)
	if errs.KindOf(err) == errs.NotFound {
		return Text{Doc: Doc{Key: key}}, nil
	}
	if err != nil {
		return Text{}, err
	}
	x := textOf(d)
	t.remember(key, x)
	return x, nil
}

// Change reads a text, lets change make its next state and swaps it in, again from the start when somebody else
// was faster; nil leaves all as it is. A next state that is Gone deletes the text and keeps the memory. When the text
// was modified is for change to say. It returns the version that there is. Errors: those of change, and Conflict when others are faster all the time.
func (t *Texts) Change(ctx context.Context, key string, change func(old Text) (next *Text, err error)) (Version, error) {
	d, err := t.store.Update(ctx, key, func(d Doc) ([]byte, error) {
		old := Text{Doc: d}
		if d.Version != "" {
			old = textOf(d)
		}
		next, err := change(old)
		if err != nil || next == nil {
			return nil, err
		}
		if next.Gone {
			if err := t.bury(ctx, key); err != nil {
				return nil, err
			}
		}
		return t.stored(*next)
	})
	return d.Version, err
}

// bury notes a text that is about to be deleted.
func (t *Texts) bury(ctx context.Context, key string) error {
	_, err := t.store.Overwrite(ctx, gonePrefix+key, []byte(t.now().UTC().Format(time.RFC3339Nano)))
	return err
}

// Get returns a text. Errors: NotFound.
func (t *Texts) Get(ctx context.Context, key string) (Doc, error) {
	x, err := t.Look(ctx, key)
	if err == nil && !x.Exists() {
		err = errs.New(errs.NotFound, "document %s does not exist", key)
	}
	return x.Doc, err
}

// Put writes data, which must not be empty, if the text's version is expect, "" if there is none, and returns the
// new version. Its note stays. Errors: Conflict.
func (t *Texts) Put(ctx context.Context, key string, data []byte, expect Version) (Version, error) {
	for {
		old, err := t.Look(ctx, key)
		if err != nil {
			return "", err
		}
		was := old.Version
		if old.Gone {
			was = ""
		}
		if was != expect {
			return "", conflict(key, expect)
		}
		bytes, err := t.stored(Text{Doc{Data: data, Modified: t.now().UTC()}, false, old.Note, old.Memory})
		if err != nil {
			return "", err
		}
		v, err := t.store.Put(ctx, key, bytes, old.Version)
		if old.Gone && errs.KindOf(err) == errs.Conflict {
			continue // swept meanwhile, or made by somebody else
		}
		return v, err
	}
}

// Overwrite writes data, which must not be empty, whatever there is. A note stays.
func (t *Texts) Overwrite(ctx context.Context, key string, data []byte) error {
	_, err := t.Change(ctx, key, func(old Text) (*Text, error) {
		old.Data, old.Gone, old.Modified = data, false, t.now().UTC()
		return &old, nil
	})
	return err
}

// Delete removes a text if its version is expect. Errors: Conflict, NotFound.
func (t *Texts) Delete(ctx context.Context, key string, expect Version) error {
	old, err := t.Look(ctx, key)
	switch {
	case err != nil:
		return err
	case !old.Exists():
		return errs.New(errs.NotFound, "document %s does not exist", key)
	case old.Version != expect:
		return conflict(key, expect)
	case old.Memory == nil:
		return t.store.Delete(ctx, key, expect)
	}
	if err := t.bury(ctx, key); err != nil {
		return err
	}
	data, err := t.stored(Text{Doc{Modified: t.now().UTC()}, true, nil, old.Memory})
	if err != nil {
		return err
	}
	_, err = t.store.Put(ctx, key, data, expect)
	return err
}

// List returns the texts whose keys begin with prefix, sorted by key.
func (t *Texts) List(ctx context.Context, prefix string) ([]Entry, error) {
	entries, err := t.store.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	out := entries[:0]
	for _, e := range entries {
		gone := false
		if e.Size%memorySize == 0 {
			x, err := t.see(ctx, e)
			if err != nil {
				return nil, err
			}
			gone = x.gone
		}
		if !gone {
			out = append(out, e)
		}
	}
	return out, nil
}

// Noted returns a text that was listed with its note; false: it was deleted since.
func (t *Texts) Noted(ctx context.Context, e Entry) (TextEntry, bool, error) {
	x, err := t.see(ctx, e)
	if err != nil || x.gone {
		return TextEntry{}, false, err
	}
	e.Version = x.version
	if !x.modified.IsZero() {
		e.Modified = x.modified
	}
	return TextEntry{e, x.note}, true, nil
}

// see returns what is known of a listed version, and reads it if that is nothing.
func (t *Texts) see(ctx context.Context, e Entry) (seenText, error) {
	t.mu.Lock()
	x, ok := t.known[e.Key]
	t.mu.Unlock()
	if ok && x.version == e.Version {
		return x, nil
	}
	now, err := t.Look(ctx, e.Key)
	if err != nil {
		return seenText{}, err
	}
	return seenText{now.Version, !now.Exists(), now.Modified, now.Note}, nil
}

func (t *Texts) remember(key string, x Text) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxKnown {
		clear(t.known)
	}
	t.known[key] = seenText{x.Version, x.Gone, x.Modified, x.Note}
}

// Sweep forgets texts that are gone for longer than age.
func (t *Texts) Sweep(ctx context.Context, age time.Duration) error {
	graves, err := t.store.List(ctx, gonePrefix)
	if err != nil {
		return err
	}
	for _, g := range graves {
		d, err := t.store.Get(ctx, g.Key)
		if err == nil {
			err = t.sweep(ctx, d, age)
		}
		if k := errs.KindOf(err); err != nil && k != errs.NotFound && k != errs.Conflict {
			return err
		}
	}
	return nil
}

// sweep forgets one. Whoever changes it at the same moment is in the right.
func (t *Texts) sweep(ctx context.Context, grave Doc, age time.Duration) error {
	if at, err := time.Parse(time.RFC3339Nano, string(grave.Data)); err == nil && t.now().Sub(at) < age {
		return nil
	}
	key := strings.TrimPrefix(grave.Key, gonePrefix)
	x, err := t.Look(ctx, key)
	if err != nil {
		return err
	}
	if x.Gone {
		if t.now().Sub(x.Modified) < age {
			return nil
		}
		if err := t.store.Delete(ctx, key, x.Version); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	return t.store.Delete(ctx, grave.Key, grave.Version)
}
