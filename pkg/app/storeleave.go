package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/grafana/dskit/ring"
)

// shutdownFile says, over restarts, that the store-gateway is to leave the ring when it stops.
const shutdownFile = "shutdown-requested"

// storeLeave decides whether a store-gateway that is configured to keep its place in the ring gives
// it up at its next stop. It is an admin.Switch.
type storeLeave struct {
	entry *ring.BasicLifecycler
	file  string
	keep  bool // what is configured
}

// load goes on with what was asked for before a restart.
func (s *storeLeave) load() {
	if s.On() {
		s.entry.SetKeepInstanceInTheRingOnShutdown(false)
	}
}

// On says whether it was asked for.
func (s *storeLeave) On() bool {
	_, err := os.Stat(s.file)
	return err == nil
}

// Set asks for it or takes that back.
func (s *storeLeave) Set(_ context.Context, on bool) error {
	if on {
		if err := os.WriteFile(s.file, nil, 0o640); err != nil {
			return fmt.Errorf("prepare the shutdown: %w", err)
		}
	} else if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take back the shutdown: %w", err)
	}
	s.entry.SetKeepInstanceInTheRingOnShutdown(s.keep && !on)
	return nil
}

// done forgets what was asked for: the process has stopped in order, and so left the ring.
func (s *storeLeave) done() error {
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that the store-gateway left: %w", err)
	}
	return nil
}
