package harness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// bucketName is the one bucket a cluster keeps its blocks in.
const bucketName = "blocks"

// Spec is one process of a cluster.
type Spec struct {
	Name   string   // unique; also the ingester's ID in the ring
	Target string   // what -target takes, "ingester" or "distributor,querier"
	Zone   string   // availability zone
	Flags  []string // come last, and so win
	Env    []string // added to the environment
	// TLS is how the process is asked whether it is ready, if its HTTP listener speaks TLS.
	TLS *tls.Config
	// Machine is where the process runs; nil: on the loopback address.
	Machine *Machine
}

// Options says what cluster to make.
type Options struct {
	Dir      string       // data and logs; each process works in a directory below it
	Binary   string       // the built amphora
	Log      *slog.Logger // nil: silent
	Nodes    []Spec       // nil: ThreeZones
	Replicas int          // 0: 3
	Files    bool         // keep blocks in a directory instead of an S3 server
	Ports    Ports        // where ports come from; zero: any free ones
	Flags    []string     // for every node
}

// ThreeZones is the smallest cluster that survives the loss of a zone: an ingester in each of
// three zones, and two of everything else.
func ThreeZones() []Spec {
	return []Spec{
		{Name: "ingester-a", Target: "ingester", Zone: "a"},
		{Name: "ingester-b", Target: "ingester", Zone: "b"},
		{Name: "ingester-c", Target: "ingester", Zone: "c"},
		{Name: "distributor-1", Target: "distributor", Zone: "a"},
		{Name: "distributor-2", Target: "distributor", Zone: "b"},
		{Name: "querier-1", Target: "querier,store-gateway", Zone: "b"},
		{Name: "querier-2", Target: "querier,store-gateway", Zone: "c"},
	}
}

// OneProcess is everything in one process. Its Options need Replicas: 1.
func OneProcess() []Spec { return []Spec{{Name: "all", Target: "all"}} }

// Node is one process of the product.
type Node struct {
	*Process
	Spec

	HTTP, GRPC, Gossip int // ports
	DataDir            string
}

// URL returns the address of path on the node's HTTP port.
func (n *Node) URL(path string) string {
	if n.TLS != nil {
		return "https://" + n.Machine.Seen(n.HTTP) + path
	}
	return "http://" + n.Machine.Seen(n.HTTP) + path
}

// WaitReady waits until the node answers /ready with 200. It fails at once if the process ends.
func (n *Node) WaitReady(ctx context.Context) error {
	return n.until(ctx, "be ready", n.Ready)
}

// Ready returns nil if the node says that it is ready.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	by := http.DefaultClient
	if n.TLS != nil {
		by = &http.Client{Transport: &http.Transport{TLSClientConfig: n.TLS, DisableKeepAlives: true}}
	}
	_, err := GetBy(ctx, by, n.URL("/ready"))
	return err
}

// Cluster is a set of processes that form one installation.
type Cluster struct {
	S3 *S3 // nil with Options.Files

	opts Options

	mu    sync.Mutex // guards nodes
	nodes []*Node
}

// NewCluster starts the S3 server and every node, and returns without waiting for them to be
// ready. The caller must Stop the cluster, also when an error is returned with it.
func NewCluster(ctx context.Context, opts Options) (*Cluster, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if opts.Nodes == nil {
		opts.Nodes = ThreeZones()
	}
	if opts.Replicas == 0 {
		opts.Replicas = 3
	}
	c := &Cluster{opts: opts}
	for _, path := range []*string{&c.opts.Dir, &c.opts.Binary} { // processes work elsewhere
		abs, err := filepath.Abs(*path)
		if err != nil {
			return c, fmt.Errorf("make %s absolute: %w", *path, err)
		}
		*path = abs
	}
	if !opts.Files {
		ports, err := c.opts.Ports.Free(1)
		if err != nil {
			return c, err
		}
		if c.S3, err = StartS3(ctx, opts.Log, filepath.Join(c.opts.Dir, "s3"), ports[0], bucketName); err != nil {
			return c, err
		}
	}
	for _, spec := range opts.Nodes { // all get their ports first, so that each can name the others
		if _, err := c.plan(spec); err != nil {
			return c, err
		}
	}
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// plan makes a node without starting it.
func (c *Cluster) plan(spec Spec) (*Node, error) {
	ports, err := c.opts.Ports.Free(3)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.opts.Dir, spec.Name)
	n := &Node{Spec: spec, HTTP: ports[0], GRPC: ports[1], Gossip: ports[2], DataDir: filepath.Join(dir, "data")}
	path, _ := spec.Machine.on(c.opts.Binary)
	n.Process = NewProcess(c.opts.Log, Command{Name: spec.Name, Path: path, LogFile: filepath.Join(dir, "log"), Env: spec.Env})
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.nodes, func(o *Node) bool { return o.Spec.Name == spec.Name }) {
		return nil, fmt.Errorf("two nodes named %s", spec.Name)
	}
	c.nodes = append(c.nodes, n)
	for _, o := range c.nodes { // a node that starts again may then join any other
		_, first := o.Machine.on(c.opts.Binary)
		o.setArgs(append(first, c.flags(o)...))
	}
	return n, nil
}

// Add starts one more node.
func (c *Cluster) Add(spec Spec) (*Node, error) {
	n, err := c.plan(spec)
	if err != nil {
		return nil, err
	}
	return n, n.Start()
}

// Move gives a node that does not run other ports, as a machine has another address when it comes
// back.
func (c *Cluster) Move(n *Node) error {
	ports, err := c.opts.Ports.Free(3)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n.HTTP, n.GRPC, n.Gossip = ports[0], ports[1], ports[2]
	_, first := n.Machine.on(c.opts.Binary)
	n.setArgs(append(first, c.flags(n)...))
	return nil
}

// flags needs c.mu.
func (c *Cluster) flags(n *Node) []string {
	var join []string
	for _, o := range c.nodes {
		if o != n {
			join = append(join, o.Machine.join(o.Gossip))
		}
	}
	host, open := loopback, loopback
	if n.Machine != nil {
		host, open = n.Machine.Addr, "0.0.0.0" // this process comes by another wire than the others
	}
	flags := []string{
		"-target=" + n.Target,
		"-auth.unsafe-listen-without-authentication=" + strconv.FormatBool(n.Machine != nil),
		"-auth.multitenancy-enabled=true",
		"-server.http-listen-address=" + open, "-server.http-listen-port=" + strconv.Itoa(n.HTTP),
		"-server.grpc-listen-address=" + host, "-server.grpc-listen-port=" + strconv.Itoa(n.GRPC),
		"-memberlist.bind-addr=" + host, "-memberlist.bind-port=" + strconv.Itoa(n.Gossip),
		"-memberlist.advertise-addr=" + host,
		"-ingester.ring.instance-id=" + n.Spec.Name,
		"-ingester.ring.instance-addr=" + host,
		"-ingester.ring.replication-factor=" + strconv.Itoa(c.opts.Replicas),
		"-ingester.ring.zone-awareness-enabled=" + strconv.FormatBool(c.zones()),
		"-ingester.ring.min-ready-duration=0s",
		"-ingester.data-dir=" + n.DataDir,
	}
	if len(join) > 0 {
		flags = append(flags, "-memberlist.join="+strings.Join(join, ","))
	}
	if n.Zone != "" {
		flags = append(flags, "-ingester.ring.instance-availability-zone="+n.Zone)
	}
	if c.S3 != nil {
		flags = append(flags, c.S3.Flags(bucketName)...)
	} else {
		flags = append(flags, "-blocks-storage.backend=filesystem", "-blocks-storage.filesystem.dir="+filepath.Join(c.opts.Dir, bucketName))
	}
	return slices.Concat(flags, c.opts.Flags, n.Flags)
}

// SetFlags gives n other flags of its own, which count from its next start on.
func (c *Cluster) SetFlags(n *Node, flags ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.Flags = flags
	_, first := n.Machine.on(c.opts.Binary)
	n.setArgs(append(first, c.flags(n)...))
}

func (c *Cluster) zones() bool {
	return slices.ContainsFunc(c.opts.Nodes, func(s Spec) bool { return s.Zone != "" })
}

// Nodes returns the nodes in the order in which they were made.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Node returns the node of that name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes() {
		if n.Spec.Name == name {
			return n
		}
	}
	return nil
}

// Of returns the nodes that run target.
func (c *Cluster) Of(target string) []*Node {
	return slices.DeleteFunc(c.Nodes(), func(n *Node) bool {
		return !slices.Contains(strings.Split(n.Target, ","), target)
	})
}

// Running returns the nodes that run.
func (c *Cluster) Running() []*Node {
	return slices.DeleteFunc(c.Nodes(), func(n *Node) bool { return n.PID() == 0 })
}

// WaitReady waits until every running node is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if n.PID() == 0 {
			continue
		}
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop stops what runs: at once what holds nothing, then the ingesters, which upload as they
// go, then the S3 server. Errors name processes that did not end well.
func (c *Cluster) Stop() error {
	keeps := c.Of("ingester")
	err := errors.Join(
		stopAll(slices.DeleteFunc(c.Nodes(), func(n *Node) bool { return slices.Contains(keeps, n) })),
		stopAll(keeps))
	for _, n := range c.Nodes() {
		err = errors.Join(err, n.Races())
	}
	if c.S3 != nil {
		err = errors.Join(err, c.S3.Stop())
	}
	return err
}

func stopAll(nodes []*Node) error {
	problems := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { problems[i] = n.Process.Stop() })
	}
	wg.Wait()
	return errors.Join(problems...)
}
