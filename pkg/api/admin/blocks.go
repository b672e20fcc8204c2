package admin

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// BlockUploads takes blocks that clients bring. Errors have the kinds of package errs.
type BlockUploads interface {
	StartUpload(ctx context.Context, id tenant.ID, block ulid.ULID, meta io.Reader) error
	// UploadFile takes the file name of size bytes.
	UploadFile(ctx context.Context, id tenant.ID, block ulid.ULID, name string, size int64, body io.Reader) error
	FinishUpload(ctx context.Context, id tenant.ID, block ulid.ULID) error
	// UploadResult says where an upload stands, and if it failed, why.
	UploadResult(ctx context.Context, id tenant.ID, block ulid.ULID) (state, problem string, err error)
}

// TenantDeletions removes all blocks of tenants.
type TenantDeletions interface {
	DeleteTenant(ctx context.Context, id tenant.ID) error
	// TenantDeleted says whether all blocks of a tenant are gone.
	TenantDeleted(ctx context.Context, id tenant.ID) (bool, error)
}

// CompactionJob is one piece of work that is due.
type CompactionJob struct {
	Key     string    `json:"key"`
	Stage   string    `json:"stage"`
	Shard   string    `json:"shard,omitempty"`
	MinTime time.Time `json:"minTime"`
	MaxTime time.Time `json:"maxTime"`
	Bytes   int64     `json:"bytes"`
	Blocks  []string  `json:"blocks"`
}

// StoredBlock is one block of a tenant in object storage.
type StoredBlock struct {
	ID              string    `json:"id"`
	MinTime         time.Time `json:"minTime"`
	MaxTime         time.Time `json:"maxTime"`
	Level           int       `json:"level"`
	Shard           string    `json:"shard,omitempty"`
	OutOfOrder      bool      `json:"outOfOrder,omitempty"`
	Bytes           int64     `json:"bytes,omitempty"`
	Uploaded        time.Time `json:"uploaded"`
	MarkedForDelete time.Time `json:"markedForDeletion,omitzero"`
	NotCompacted    string    `json:"notCompacted,omitempty"` // why it is set aside
}

// Stored knows what object storage holds.
type Stored interface {
	Tenants(ctx context.Context) ([]tenant.ID, error)
	// Blocks returns the tenant's blocks and when they were looked at.
	Blocks(ctx context.Context, id tenant.ID) ([]StoredBlock, time.Time, error)
}

// Planner knows what is due.
type Planner interface {
	Tenants(ctx context.Context) ([]tenant.ID, error)
	PlannedJobs(ctx context.Context, id tenant.ID) ([]CompactionJob, error)
	// Estimate is how long compaction of so many bytes takes, by how long it took lately; 0: unknown.
	Estimate(bytes int64) time.Duration
}

// BlockMarks sets and removes the marks of blocks. Errors have the kinds of package errs.
type BlockMarks interface {
	// MarkNoCompact sets a block aside from compaction; UnmarkNoCompact takes that back.
	MarkNoCompact(ctx context.Context, id tenant.ID, block ulid.ULID, details string) error
	UnmarkNoCompact(ctx context.Context, id tenant.ID, block ulid.ULID) error
	// MarkForDeletion hides a block from queries and deletes it later; UnmarkForDeletion takes that
	// back for as long as the block is there.
	MarkForDeletion(ctx context.Context, id tenant.ID, block ulid.ULID, details string) error
	UnmarkForDeletion(ctx context.Context, id tenant.ID, block ulid.ULID) error
}

// NoCompactMark sets, or with DELETE or undo=true removes, the mark that keeps the block in the path
// from being compacted.
func NoCompactMark(m BlockMarks) Handler { return mark(m.MarkNoCompact, m.UnmarkNoCompact) }

// DeletionMark sets, or with DELETE or undo=true removes, the mark by which the block in the path is
// deleted.
func DeletionMark(m BlockMarks) Handler { return mark(m.MarkForDeletion, m.UnmarkForDeletion) }

// mark answers a form of a page by sending the browser back to it.
func mark(set func(context.Context, tenant.ID, ulid.ULID, string) error, remove func(context.Context, tenant.ID, ulid.ULID) error) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.Parse(r.PathValue("tenant"))
		if err != nil {
			return err
		}
		b, err := blockOf(r)
		if err != nil {
			return err
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		if err := r.ParseForm(); err != nil {
			return errs.New(errs.Invalid, "read the form: %w", err)
		}
		if r.Method == http.MethodDelete || r.Form.Get("undo") == "true" {
			err = remove(r.Context(), id, b)
		} else {
			err = set(r.Context(), id, b, r.Form.Get("details"))
		}
		if err != nil {
			return err
		}
		if r.Form.Get("page") == "true" {
			secure(w.Header())
			w.Header().Set("Location", "../../blocks")
			w.WriteHeader(http.StatusSeeOther)
			return nil
		}
		return noContent(w)
	}
}

// blockOf returns the block in the path.
func blockOf(r *http.Request) (ulid.ULID, error) {
	u, err := ulid.ParseStrict(r.PathValue("block"))
	if err != nil {
		return u, errs.New(errs.Invalid, "invalid block ID %q", r.PathValue("block"))
	}
	return u, nil
}

// upload makes a handler of one call about the block in the path.
func upload(call func(w http.ResponseWriter, r *http.Request, id tenant.ID, block ulid.ULID) error) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		b, err := blockOf(r)
		if err != nil {
			return err
		}
		return call(w, r, id, b)
	}
}

// StartBlockUpload begins an upload; the body is the block's meta file.
func StartBlockUpload(u BlockUploads) Handler {
	return upload(func(w http.ResponseWriter, r *http.Request, id tenant.ID, b ulid.ULID) error {
		return u.StartUpload(r.Context(), id, b, r.Body)
	})
}

// stepTimeout is how long a client that uploads a file may pause. The file as a whole may take
// longer than a request otherwise may.
const stepTimeout = 30 * time.Second

// patientReader gives its client time for each read.
type patientReader struct {
	conn *http.ResponseController
	r    io.Reader
}

func (p patientReader) Read(b []byte) (int, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(stepTimeout)) // not every connection has deadlines
	return p.r.Read(b)
}

// UploadBlockFile takes the file named by path.
func UploadBlockFile(u BlockUploads) Handler {
	return upload(func(w http.ResponseWriter, r *http.Request, id tenant.ID, b ulid.ULID) error {
		conn := http.NewResponseController(w)
		_ = conn.SetWriteDeadline(time.Time{})
		err := u.UploadFile(r.Context(), id, b, r.URL.Query().Get("path"), r.ContentLength, patientReader{conn, r.Body})
		if err == nil { // of a body that did not come the server reads on by itself, no longer than this
			_ = conn.SetReadDeadline(time.Time{})
		}
		return err
	})
}

// FinishBlockUpload ends an upload.
func FinishBlockUpload(u BlockUploads) Handler {
	return upload(func(w http.ResponseWriter, r *http.Request, id tenant.ID, b ulid.ULID) error {
		return u.FinishUpload(r.Context(), id, b)
	})
}

// CheckBlockUpload says where an upload stands.
func CheckBlockUpload(u BlockUploads) Handler {
	type result struct {
		Result string `json:"result"`
		Error  string `json:"error,omitempty"`
	}
	return upload(func(w http.ResponseWriter, r *http.Request, id tenant.ID, b ulid.ULID) error {
		state, problem, err := u.UploadResult(r.Context(), id, b)
		if err != nil {
			return err
		}
		return sendJSON(w, result{state, problem})
	})
}

// DeleteTenant marks the calling tenant for deletion.
func DeleteTenant(d TenantDeletions) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		return d.DeleteTenant(r.Context(), id)
	}
}

// DeleteTenantStatus says whether the blocks of the calling tenant are gone.
func DeleteTenantStatus(d TenantDeletions) Handler {
	type status struct {
		Tenant  tenant.ID `json:"tenant_id"`
		Deleted bool      `json:"blocks_deleted"`
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.FromContext(r.Context())
		if err != nil {
			return err
		}
		done, err := d.TenantDeleted(r.Context(), id)
		if err != nil {
			return err
		}
		return sendJSON(w, status{id, done})
	}
}

// tenantsPage lists tenants with a link for each, to what follows its name.
func tenantsPage(name, title, suffix string, list func(context.Context) ([]tenant.ID, error)) Handler {
	page := newPage(name, title, `<table><tr><th>Tenant</th></tr>{{range .}}
<tr><td><a href="tenant/{{.}}/`+suffix+`">{{.}}</a></td></tr>{{end}}</table>`)
	return func(w http.ResponseWriter, r *http.Request) error {
		ids, err := list(r.Context())
		if err != nil {
			return err
		}
		if wantsJSON(r) {
			return sendJSON(w, map[string]any{"tenants": ids})
		}
		return sendPage(w, page, ids)
	}
}

// CompactorTenants lists the tenants of the bucket.
func CompactorTenants(p Planner) Handler {
	return tenantsPage("compactor-tenants", "Tenants with blocks", "planned_jobs", p.Tenants)
}

// StoredTenants lists the tenants of the bucket.
func StoredTenants(s Stored) Handler {
	return tenantsPage("store-gateway-tenants", "Tenants with blocks", "blocks", s.Tenants)
}

// PlannedJobs shows what is due of the tenant in the path.
func PlannedJobs(p Planner) Handler {
	page := newPage("planned-jobs", "Compaction jobs of tenant {{.Tenant}}", `<p>{{len .Jobs}} jobs are due, {{.Bytes}} bytes in all; the first one is done first. {{if .Seconds}}They take about {{.Seconds}} seconds, by how long jobs took lately.{{else}}How long that takes is known after the first job.{{end}}</p>
<table><tr><th>Stage</th><th>Shard</th><th>From</th><th>To</th><th class="n">Bytes</th><th>Blocks</th></tr>{{range .Jobs}}
<tr><td>{{.Stage}}</td><td>{{.Shard}}</td><td>{{rfc3339 .MinTime}}</td><td>{{rfc3339 .MaxTime}}</td><td class="n">{{.Bytes}}</td><td>{{range .Blocks}}{{.}}<br>{{end}}</td></tr>{{end}}</table>`)
	type jobs struct {
		Tenant tenant.ID `json:"tenant"`
		Bytes  int64     `json:"bytes"`
		// Seconds is the estimate of how long the jobs take; 0: unknown.
		Seconds float64         `json:"estimatedSeconds"`
		Jobs    []CompactionJob `json:"jobs"`
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.Parse(r.PathValue("tenant"))
		if err != nil {
			return err
		}
		out := jobs{Tenant: id, Jobs: []CompactionJob{}}
		list, err := p.PlannedJobs(r.Context(), id)
		if err != nil {
			return err
		}
		for _, j := range list {
			out.Bytes += j.Bytes
			out.Jobs = append(out.Jobs, j)
		}
		out.Seconds = p.Estimate(out.Bytes).Round(time.Second).Seconds()
		if wantsJSON(r) {
			return sendJSON(w, out)
		}
		return sendPage(w, page, out)
	}
}

// StoredBlocks shows the blocks of the tenant in the path.
func StoredBlocks(s Stored) Handler { return blocksPage(s, "") }

// MarkedBlocks is StoredBlocks with buttons that set and remove marks.
func MarkedBlocks(s Stored) Handler {
	return blocksPage(s, `<form method="post" action="block/{{.ID}}/no-compact-mark"><input type="hidden" name="page" value="true"><input type="hidden" name="undo" value="{{if .NotCompacted}}true{{else}}false{{end}}"><input type="hidden" name="details" value="set on the page of blocks"><button>{{if .NotCompacted}}Compact again{{else}}Do not compact{{end}}</button></form>
{{if not .MarkedForDelete.IsZero}}<form method="post" action="block/{{.ID}}/deletion-mark"><input type="hidden" name="page" value="true"><input type="hidden" name="undo" value="true"><button>Do not delete</button></form>{{end}}`)
}

// blocksPage shows the blocks of the tenant in the path; buttons is a template of one block.
func blocksPage(s Stored, buttons string) Handler {
	page := newPage("stored-blocks", "Blocks of tenant {{.Tenant}}", `<p>{{len .Blocks}} blocks, as of {{rfc3339 .AsOf}}.</p>
<table><tr><th>Block</th><th>From</th><th>To</th><th class="n">Level</th><th>Shard</th><th class="n">Bytes</th><th>Uploaded</th><th>Marks</th></tr>{{range .Blocks}}
<tr><td>{{.ID}}</td><td>{{rfc3339 .MinTime}}</td><td>{{rfc3339 .MaxTime}}</td><td class="n">{{.Level}}</td><td>{{.Shard}}</td><td class="n">{{.Bytes}}</td><td>{{rfc3339 .Uploaded}}</td>
<td>{{if .OutOfOrder}}out of order {{end}}{{if not .MarkedForDelete.IsZero}}to be deleted since {{rfc3339 .MarkedForDelete}} {{end}}{{with .NotCompacted}}<span class="bad">not compacted: {{.}}</span>{{end}}`+buttons+`</td></tr>{{end}}</table>`)
	type blocks struct {
		Tenant tenant.ID     `json:"tenant"`
		AsOf   time.Time     `json:"asOf"`
		Blocks []StoredBlock `json:"blocks"`
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := tenant.Parse(r.PathValue("tenant"))
		if err != nil {
			return err
		}
		out := blocks{Tenant: id, Blocks: []StoredBlock{}}
		list, asOf, err := s.Blocks(r.Context(), id)
		if err != nil {
			return err
		}
		out.AsOf, out.Blocks = asOf, append(out.Blocks, list...)
		if wantsJSON(r) {
			return sendJSON(w, out)
		}
		return sendPage(w, page, out)
	}
}
