package harness

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
)

// Etcd is a server of etcd of one member.
type Etcd struct {
	*Process

	Endpoint string // host:port, not encrypted
}

// StartEtcd starts a server with its data in dir, and waits at most 30 s until it answers. A server
// returned with an error must be stopped too. Errors: ErrNoTool.
func StartEtcd(ctx context.Context, log *slog.Logger, dir string) (*Etcd, error) {
	path, err := Tool("etcd")
	if err != nil {
		return nil, err
	}
	ports, err := new(Ports).Free(2)
	if err != nil {
		return nil, err
	}
	e := &Etcd{Endpoint: address(ports[0])}
	client, peer := "http://"+e.Endpoint, "http://"+address(ports[1])
	e.Process = NewProcess(log, Command{
		Name: "etcd", Path: path, LogFile: filepath.Join(dir, "log"),
		Args: []string{"--name=etcd", "--data-dir=" + filepath.Join(dir, "data"), "--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=etcd=" + peer},
	})
	if err := e.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return e, e.WaitReady(ctx)
}

// WaitReady waits until the server is healthy.
func (e *Etcd) WaitReady(ctx context.Context) error {
	return e.until(ctx, "be healthy", func(ctx context.Context) error {
		if _, err := Get(ctx, "http://"+e.Endpoint+"/health"); err != nil {
			return fmt.Errorf("ask for its health: %w", err)
		}
		return nil
	})
}
