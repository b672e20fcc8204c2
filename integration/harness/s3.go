package harness

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
)

// S3 is an S3 server over a directory. Objects are files under Dir/<bucket>, so a test may look
// at, damage or remove them without a client.
type S3 struct {
	*Process

	Endpoint  string // host:port, plain HTTP
	Region    string
	AccessKey string
	SecretKey string
	Dir       string
}

// StartS3 starts a server with its data, made if missing, in dir and the named buckets, and waits
// at most 30 s until it answers. port 0 takes a free one. A server returned with an error must be stopped too.
// Errors: ErrNoTool.
func StartS3(ctx context.Context, log *slog.Logger, dir string, port int, buckets ...string) (*S3, error) {
	path, err := Tool("versitygw")
	if err != nil {
		return nil, err
	}
	if port == 0 {
		free, err := new(Ports).Free(1)
		if err != nil {
			return nil, err
		}
		port = free[0]
	}
	s := &S3{Endpoint: address(port), Region: "us-east-1", AccessKey: "amphora", SecretKey: "loopback-only", Dir: filepath.Join(dir, "data")}
	for _, b := range append(buckets, "") {
		if err := os.MkdirAll(filepath.Join(s.Dir, b), 0o700); err != nil {
			return nil, fmt.Errorf("make bucket %s: %w", b, err)
		}
	}
	s.Process = NewProcess(log, Command{
		Name: "s3", Path: path, LogFile: filepath.Join(dir, "log"),
		Args: []string{"--quiet", "--port", s.Endpoint, "--region", s.Region, "posix", s.Dir},
		Env:  []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey},
	})
	if err := s.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s, s.WaitReady(ctx)
}

// WaitReady waits until the server takes connections.
func (s *S3) WaitReady(ctx context.Context) error {
	return s.until(ctx, "take connections", func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Endpoint)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Flags points a process of the product at one bucket of s.
func (s *S3) Flags(bucket string) []string {
	return []string{
		"-blocks-storage.backend=s3",
		"-blocks-storage.s3.endpoint=" + s.Endpoint,
		"-blocks-storage.s3.region=" + s.Region,
		"-blocks-storage.s3.bucket-name=" + bucket,
		"-blocks-storage.s3.access-key-id=" + s.AccessKey,
		"-blocks-storage.s3.secret-access-key=" + s.SecretKey,
		"-blocks-storage.s3.insecure=true",
	}
}
