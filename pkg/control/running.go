package control

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Scraper is a scraper as the processes that run scrapers see it.
type Scraper struct {
	ID        string
	Workspace string
	// Revision changes with the configuration and the workspace.
	Revision string
	Config   []byte
	// Applied says that the revision is known to run.
	Applied bool
	// Logs are the components whose log the owner asks for, with the place it is for.
	Logs     []string
	LogGroup string
}

// Scrapers lists the scrapers of all accounts, for those that run them. It is used by one goroutine.
type Scrapers struct {
	documents *docstore.Store
	directory *Directory
	known     map[string]knownScraper // by key
}

type knownScraper struct {
	version docstore.Version
	doc     scraperDoc
}

// NewScrapers returns the list of the scrapers in documents. directory knows workspaces.
func NewScrapers(documents *docstore.Store, directory *Directory) *Scrapers {
	return &Scrapers{documents, directory, map[string]knownScraper{}}
}

// List returns the scrapers that are to run. Those whose workspace is not in use are not. Errors: Unavailable.
func (s *Scrapers) List(ctx context.Context) ([]Scraper, error) {
	entries, err := s.documents.List(ctx, scrapersPrefix)
	if err != nil {
		return nil, err
	}
	next := make(map[string]knownScraper, len(entries))
	var out []Scraper
	for _, e := range entries {
		k, err := s.look(ctx, e)
		if errs.KindOf(err) == errs.NotFound && err != nil {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		next[e.Key] = k
		d := &k.doc
		if d.State != active {
			continue
		}
		_, _, state, err := s.directory.Lookup(ctx, d.workspaceID())
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return nil, err
		}
		if state != active {
			continue
		}
		x := Scraper{ID: d.ID, Workspace: d.workspaceID(), Revision: d.Revision, Config: plain(d.Config), Applied: d.Applied.Revision == d.Revision && d.Applied.Error == ""}
		if d.Logging != nil {
			x.LogGroup = d.Logging.LogGroup
			for _, c := range d.Logging.Components {
				x.Logs = append(x.Logs, c.Type)
			}
			slices.Sort(x.Logs)
		}
		out = append(out, x)
	}
	s.known = next
	return out, nil
}

func (s *Scrapers) look(ctx context.Context, e docstore.Entry) (knownScraper, error) {
	if k, ok := s.known[e.Key]; ok && k.version == e.Version {
		return k, nil
	}
	d, err := s.documents.Get(ctx, e.Key)
	if err != nil {
		return knownScraper{}, err
	}
	k := knownScraper{version: d.Version}
	if err := json.Unmarshal(d.Data, &k.doc); err != nil {
		return knownScraper{}, errs.New(errs.Internal, "document %s cannot be read: %w", e.Key, err)
	}
	return k, nil
}

// Report says what became of a revision: it runs, or it cannot for the reason problem. Errors: Unavailable.
func (s *Scrapers) Report(ctx context.Context, id, revision, problem string) error {
	_, err := s.documents.Update(ctx, scraperKey(id), func(old docstore.Doc) ([]byte, error) {
		var d scraperDoc
		if old.Version == "" {
			return nil, nil
		}
		if err := json.Unmarshal(old.Data, &d); err != nil {
			return nil, errs.New(errs.Internal, "document %s cannot be read: %w", old.Key, err)
		}
		now := applied{revision, problem, d.Applied.Ran || problem == ""}
		if d.Revision != revision || d.Applied == now {
			return nil, nil
		}
		d.Applied = now
		return encode(&d)
	})
	return err
}
