package head

import (
	"os"
	"path/filepath"
	"strconv"
)

// pause keeps appends out while the TSDB drops what was cut from memory, as long as it has no file
// of closed chunks of its own: finding none it starts to count its files anew, and a first one that
// an append makes at that moment would have a number that it does not expect. It then ends the
// process, or takes the chunks of one file for those of another. From its first file on there always
// is one, and nothing has to wait. Only the cut that runs uses it.
type pause struct {
	on  bool
	old uint64 // number of the last file that the head was opened with
}

// pauseAppends keeps appends out, if need be, until resumeAppends. Those under way are waited for.
func (h *Head) pauseAppends() error {
	if h.pause.on {
		return nil
	}
	last, err := h.lastChunkFile()
	if err != nil {
		return err
	}
	if last > h.pause.old {
		return nil
	}
	h.flush.Lock()
	h.pause.on = true
	return nil
}

// resumeAppends ends a pause, if there is one.
func (h *Head) resumeAppends() {
	if h.pause.on {
		h.pause.on = false
		h.flush.Unlock()
	}
}

// lastChunkFile is the number of the newest file of closed chunks; 0: there is none. After the TSDB
// deleted all of them it counts from 1 again.
func (h *Head) lastChunkFile() (uint64, error) {
	entries, err := os.ReadDir(filepath.Join(h.o.Dir, chunksDir))
	if err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	last := uint64(0)
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			last = max(last, n)
		}
	}
	if last == 0 {
		h.pause.old = 0
	}
	return last, nil
}
