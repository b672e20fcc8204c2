// Package buckets owns the commands that inspect and change blocks in object storage without a
// server.
package buckets

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// overridesWait bounds the reading of the files with overrides.
const overridesWait = time.Minute

// location is where a bucket is, by flags of the same names as the server's below blocks_storage, or
// by the file that configures the server.
type location struct {
	prefix string // of the flags
	file   string
	conf   bucket.Config
	given  map[string]*string
	made   bool // a directory that does not exist is made
}

// declare adds the flags. A second bucket has a prefix.
func (l *location) declare(cmd *kingpin.CmdClause, e *cli.Env, prefix, what string) {
	l.prefix, l.given = prefix, map[string]*string{}
	cmd.Flag(prefix+"config.file", "Configuration file of the server, of which blocks_storage says where "+what+" is.").StringVar(&l.file)
	set := config.NewSet()
	set.Mount("", &l.conf)
	for _, f := range set.Fields() {
		value := new(string)
		l.given[f.Flag] = value
		help := f.Doc
		if prefix == "" {
			variable := "AMPHORA_BLOCKS_STORAGE_" + strings.TrimPrefix(f.Env(), "AMPHORA_")
			*value = e.Getenv(variable) // not the default, which would stand in the help
			help += " ($" + variable + ")"
		}
		cmd.Flag(prefix+f.Flag, help).PlaceHolder(strings.ToUpper(f.Type)).StringVar(value)
	}
}

// words takes flags that are words of one text, as --bucket-config of mimirtool has them.
func (l *location) words(text string) error {
	list := strings.Fields(text)
	for i := 0; i < len(list); i++ {
		name, value, ok := strings.Cut(strings.TrimLeft(list[i], "-"), "=")
		if !ok && i+1 < len(list) {
			i++
			value = list[i]
		}
		into := l.given[name]
		if into == nil {
			return fmt.Errorf("--bucket-config: there is no flag -%s", name)
		}
		*into = value
	}
	return nil
}

// open opens the bucket. The caller closes it.
func (l *location) open(ctx context.Context, e *cli.Env) (objstore.InstrumentedBucket, error) {
	l.conf = bucket.Config{}
	set := config.NewSet()
	set.Mount("", &l.conf)
	var whole *app.Config
	if l.file != "" {
		var err error
		if whole, err = l.server(); err != nil {
			return nil, err
		}
		l.conf = whole.Bucket
	}
	for _, f := range set.Fields() {
		if v := *l.given[f.Flag]; v != "" {
			if err := f.Set(v); err != nil {
				return nil, fmt.Errorf("--%s%s: %w", l.prefix, f.Flag, err)
			}
		}
	}
	if l.conf.Backend == bucket.Filesystem && !l.made {
		if _, err := os.Stat(l.conf.Filesystem.Dir); err != nil {
			return nil, fmt.Errorf("--%sfilesystem.dir: %w", l.prefix, err)
		}
	}
	b, err := bucket.New(ctx, l.conf, "amphoratool", e.Log, prometheus.NewRegistry())
	if err != nil || whole == nil || l.conf.Backend != bucket.S3 {
		return b, err
	}
	return bucket.Encrypting(b, app.TenantEncryption(overridesOf(whole, e))), nil
}

// server returns the settings of the server: those of its file, or the defaults.
func (l *location) server() (*app.Config, error) {
	whole := new(app.Config)
	all := config.NewSet()
	all.Mount("", whole)
	if l.file == "" {
		return whole, nil
	}
	data, err := os.ReadFile(l.file)
	if err != nil {
		return nil, err
	}
	return whole, all.LoadYAML(l.file, data)
}

// overridesOf reads the overrides of tenants when something is first written: who only reads may do
// without them. They are those of the files, not those of workspaces.
func overridesOf(whole *app.Config, e *cli.Env) func(tenant.ID) (limits.View, error) {
	all := sync.OnceValues(func() (*limits.Overrides, error) {
		o := limits.NewOverrides(&whole.Limits, whole.Runtime, limits.Deps{Log: e.Log, Env: e.Getenv})
		ctx, cancel := context.WithTimeout(context.Background(), overridesWait)
		defer cancel()
		if err := services.StartAndAwaitRunning(ctx, o); err != nil {
			return nil, err
		}
		return o, services.StopAndAwaitTerminated(ctx, o)
	})
	return func(id tenant.ID) (limits.View, error) {
		o, err := all()
		if err != nil {
			return limits.View{}, err
		}
		return o.For(id), nil
	}
}
