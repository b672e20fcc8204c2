// Package blocks owns the commands that upload blocks of other systems to a server.
package blocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
	"github.com/amphora-metrics/amphora/pkg/block"
)

// command is one invocation.
type command struct {
	*cli.Env
	server client.Client
	dirs   []string
	pause  time.Duration

	source   string
	head     bool
	dry      bool
	scratch  string
	selector []string
}

// Register adds `backfill` and the family `migrate`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e}
	backfill := app.Command("backfill", "Upload blocks to a tenant, which needs the limit compactor_block_upload_enabled.")
	c.declare(backfill)
	backfill.Arg("block-dirs", "Directories of blocks.").Required().ExistingDirsVar(&c.dirs)
	e.Do(backfill, c.backfill)
	c.registerMigrate(app)
}

func (c *command) declare(cmd *kingpin.CmdClause) {
	c.server.Declare(cmd, c.Env)
	cmd.Flag("sleep-time", "Time between looks at a block that the server checks.").Default("20s").DurationVar(&c.pause)
}

func (c *command) backfill(ctx context.Context) error {
	if err := c.server.Open(); err != nil {
		return err
	}
	return c.uploadAll(ctx, c.dirs)
}

// Upload uploads blocks one after the other by a client that is open, and waits pause between looks at a block that
// the server checks. A block that is there already is no fault.
func Upload(ctx context.Context, e *cli.Env, server client.Client, pause time.Duration, dirs []string) error {
	c := &command{Env: e, server: server, pause: pause}
	return c.uploadAll(ctx, dirs)
}

// uploadAll uploads blocks one after the other: the server checks one at a time. A block that is
// there already is no fault, so that an interrupted upload can be begun again.
func (c *command) uploadAll(ctx context.Context, dirs []string) error {
	sent, there := 0, 0
	var failed []error
	for _, dir := range dirs {
		switch err := c.upload(ctx, dir); {
		case errors.Is(err, errThere):
			there++
			c.Say("%s: there already", filepath.Base(dir))
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", dir, err))
			c.Say("%s: %v", filepath.Base(dir), err)
		default:
			sent++
			c.Say("%s: uploaded", filepath.Base(dir))
		}
	}
	c.Say("blocks: %d uploaded, %d there already, %d failed", sent, there, len(failed))
	return errors.Join(failed...)
}

var errThere = errors.New("the block is there already")

// upload uploads the block in dir and waits until the server has checked it.
func (c *command) upload(ctx context.Context, dir string) error {
	meta, err := readMeta(dir)
	if err != nil {
		return err
	}
	at := "/api/v1/upload/block/" + meta.ULID.String()
	body, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	_, err = c.server.Do(ctx, client.Call{Method: http.MethodPost, Path: at + "/start", Body: body, Type: "application/json"})
	var status *client.StatusError
	if errors.As(err, &status) && status.Status == http.StatusConflict {
		return errThere
	} else if err != nil {
		return err
	}
	var bytes int64
	for _, f := range meta.Thanos.Files {
		bytes += f.SizeBytes
	}
	p := c.Progress(filepath.Base(dir), bytes)
	defer p.Close()
	for _, f := range meta.Thanos.Files {
		if f.RelPath == block.MetaFile {
			continue
		}
		if err := c.uploadFile(ctx, at, dir, f); err != nil {
			return err
		}
		p.Add(f.SizeBytes)
	}
	if _, err := c.server.Do(ctx, client.Call{Method: http.MethodPost, Path: at + "/finish"}); err != nil {
		return err
	}
	return c.settled(ctx, at)
}

func (c *command) uploadFile(ctx context.Context, at, dir string, f block.File) error {
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.RelPath)))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	// No deadline: a file may be of any size, and the server bounds how long it waits.
	body, err := c.server.Stream(ctx, client.Call{Method: http.MethodPost, Path: at + "/files?path=" + url.QueryEscape(f.RelPath), Stream: file, Size: f.SizeBytes})
	if err != nil {
		return fmt.Errorf("upload %s: %w", f.RelPath, err)
	}
	return body.Close()
}

// settled waits until the server has checked the block.
func (c *command) settled(ctx context.Context, at string) error {
	wait := min(time.Second, c.pause) // small blocks are checked at once
	for {
		body, err := c.server.Get(ctx, at+"/check")
		if err != nil {
			return err
		}
		var state struct{ Result, Error string }
		if err := json.Unmarshal(body, &state); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		switch state.Result {
		case "complete":
			return nil
		case "failed":
			return fmt.Errorf("the server refused the block: %s", state.Error)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(2*wait+time.Millisecond, c.pause)
	}
}

// readMeta reads the meta file of the block in dir, with the list of its files.
func readMeta(dir string) (block.Meta, error) {
	data, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	if err != nil {
		return block.Meta{}, err
	}
	meta, err := block.ParseMeta(data)
	if err != nil {
		return meta, fmt.Errorf("%s: %w", block.MetaFile, err)
	}
	meta.Thanos.Files = nil
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if rel = filepath.ToSlash(rel); !block.IsData(rel) {
			return nil
		}
		info, err := d.Info()
		meta.Thanos.Files = append(meta.Thanos.Files, block.File{RelPath: rel, SizeBytes: info.Size()})
		return err
	})
	if err != nil {
		return meta, err
	}
	meta.Thanos.Files = append(meta.Thanos.Files, block.File{RelPath: block.MetaFile})
	return meta, nil
}

// blocksIn returns the directories of blocks in dir, the oldest first.
func blocksIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, e.Name(), block.MetaFile)); err == nil {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	slices.SortFunc(found, func(a, b string) int {
		ma, _ := readMeta(a) // what cannot be read is said when it is uploaded
		mb, _ := readMeta(b)
		return int(min(max(ma.MinTime-mb.MinTime, -1), 1))
	})
	return found, nil
}
