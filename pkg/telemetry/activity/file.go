package activity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The file is slots of entryBytes. The first says whose the file is; each other names a request:
// two bytes with the length of the text, 0 for none, eight with the time since when in milliseconds,
// and the text. All numbers are little endian.
//
// Slots are written, and not mapped into memory: a page of a mapped file that the disk has no room for
// ends the process, and one that it is slow to give holds up a processor. A write costs a microsecond of
// a query, and what was written is there however the process ends.
const (
	entryBytes = 1024 // divides a page, so that a kill tears none
	textBytes  = entryBytes - 10
	pageBytes  = 4096
	magic      = "amphora activity 1\n"
	// mostFiles is how many processes may share a path.
	mostFiles = 16
)

// leftover is a request that a killed process was at.
type leftover struct {
	of    string // the process
	since time.Time
	text  string
}

func offset(slot int) int64 { return int64(slot+1) * entryBytes }

func appendEntry(b []byte, since time.Time, text string) []byte {
	if len(text) > textBytes {
		text = strings.ToValidUTF8(text[:textBytes], "")
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	b = binary.LittleEndian.AppendUint64(b, uint64(since.UnixMilli()))
	return append(b, text...)
}

// take returns the file at path, made anew with room for entries, and what was left in it. If another
// process has that file it is path.2, path.3 and so on, the first that nobody has.
func take(path string, entries int, target string) (*os.File, []leftover, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, nil, err
	}
	for i := range mostFiles {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i+1)
		}
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // The operator names the file.
		if err != nil {
			return nil, nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				continue
			}
			return nil, nil, fmt.Errorf("lock %s: %w", name, err)
		}
		left, err := begin(f, entries, target)
		if err != nil {
			_ = f.Close()
			return nil, left, err
		}
		return f, left, nil
	}
	return nil, nil, fmt.Errorf("%d processes have files there already; each needs a directory of its own", mostFiles)
}

// begin reads what was left in f, and makes it anew. A file of something else is left alone.
func begin(f *os.File, entries int, target string) ([]leftover, error) {
	old, err := io.ReadAll(io.LimitReader(f, (mostEntries+1)*entryBytes))
	if err != nil {
		return nil, fmt.Errorf("read what is left: %w", err)
	}
	if len(old) > 0 && !bytes.HasPrefix(old, []byte(magic)) && strings.Trim(string(old), "\x00") != "" {
		return nil, errors.New("the file is something else, and is left alone; name another, or remove it")
	}
	left := parse(old)
	// The whole is written, so that the disk has its room and later writes need none, and by the page: Linux keeps what
	// one call wrote or read as a piece, and goes through all blocks of a piece whenever some of it is written.
	fresh := make([]byte, (entries+1)*entryBytes)
	copy(fresh, magic+target+", process "+strconv.Itoa(os.Getpid())+", started "+time.Now().UTC().Format(time.RFC3339)+"\n")
	if err := f.Truncate(0); err != nil { // what is kept of the file in memory goes with it
		return left, err
	}
	for at := 0; at < len(fresh); at += pageBytes {
		if _, err := f.WriteAt(fresh[at:min(at+pageBytes, len(fresh))], int64(at)); err != nil {
			return left, err
		}
	}
	return left, nil
}

// parse reads a file that may be cut or damaged anywhere: what cannot be an entry is none.
func parse(b []byte) []leftover {
	if len(b) < entryBytes || !bytes.HasPrefix(b, []byte(magic)) {
		return nil
	}
	of, _, _ := strings.Cut(strings.TrimPrefix(string(b[:entryBytes]), magic), "\n")
	of = strings.ToValidUTF8(of, "?")
	var left []leftover
	for b = b[entryBytes:]; len(b) >= entryBytes; b = b[entryBytes:] {
		n := int(binary.LittleEndian.Uint16(b))
		if n == 0 || n > textBytes {
			continue
		}
		since := time.UnixMilli(int64(binary.LittleEndian.Uint64(b[2:])))
		left = append(left, leftover{of: of, since: since, text: strings.ToValidUTF8(string(b[10:10+n]), "?")})
	}
	byAge(left)
	return left
}
