package pagecache

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// mood is what a server does with requests for items.
type mood string

const (
	well     mood = "well"
	hanging  mood = "hanging"  // it never answers
	babbling mood = "babbling" // it answers what is no answer
	refusing mood = "failing"  // it says that it cannot
	cutting  mood = "cutting"  // it hangs up within an item
	flipping mood = "flipping" // a bit of each item is another
	swapping mood = "swapping" // each item is one of another key
	shrunk   mood = "shrunk"   // each item lacks its end
	gone     mood = "gone"     // it hangs up
	killed   mood = "killed"   // nobody listens
)

// server speaks as much of memcached's protocol as the client does, as well as its mood lets it.
type server struct {
	net.Listener

	mu    sync.Mutex // guards what follows
	mood  mood
	items map[string][]byte
	conns []net.Conn
	over  bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, mood: well, items: map[string][]byte{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.conns = append(s.conns, c); s.over {
				_ = c.Close()
			}
			s.mu.Unlock()
			wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { s.kill(); wg.Wait() })
	return s
}

// kill ends the server and its connections.
func (s *server) kill() {
	_ = s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *server) be(m mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = m
}

func (s *server) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.items)
}

func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		words := strings.Fields(line)
		if err != nil || len(words) == 0 {
			return
		}
		var data []byte
		if words[0] == "set" && len(words) >= 5 {
			n, err := strconv.Atoi(words[4])
			if err != nil || n > 1<<20 {
				return
			}
			data = make([]byte, n+2)
			if _, err := io.ReadFull(r, data); err != nil {
				return
			}
			data = data[:n]
		}
		answer, more := s.answer(words, data)
		if _, err := c.Write(answer); err != nil || !more {
			return
		}
	}
}

// answer returns what is sent, and whether the connection goes on.
func (s *server) answer(words []string, data []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.mood {
	case hanging:
		return nil, true
	case gone:
		return nil, false
	case refusing:
		return []byte("SERVER_ERROR out of memory\r\n"), true
	case babbling:
		return []byte("VALUE \x00\xff 0 -7\r\nSTORED\r\nEND"), true
	}
	switch words[0] {
	case "set":
		s.items[words[1]] = data
		return []byte("STORED\r\n"), true
	case "get", "gets":
		var out bytes.Buffer
		for _, k := range words[1:] {
			s.item(&out, k)
		}
		if s.mood == cutting && out.Len() > 0 {
			return out.Bytes()[:out.Len()/2], false
		}
		out.WriteString("END\r\n")
		return out.Bytes(), true
	}
	return []byte("ERROR\r\n"), true
}

// item writes the item of a key. It is called with s.mu.
func (s *server) item(out *bytes.Buffer, key string) {
	item, ok := s.items[key]
	if !ok {
		return
	}
	switch s.mood {
	case flipping:
		item = bytes.Clone(item)
		item[len(item)/2] ^= 4
	case shrunk:
		item = item[:len(item)-1]
	case swapping:
		for k, other := range s.items {
			if k != key {
				item = other
				break
			}
		}
	}
	fmt.Fprintf(out, "VALUE %s 0 %d 1\r\n%s\r\n", key, len(item), item)
}

// opened is a cache at s.
func opened(t *testing.T, s *server, timeout time.Duration) *Cache {
	t.Helper()
	c, err := Open(Config{Backend: Memcached, Addresses: []string{s.Addr().String()}, Timeout: timeout, ConnectTimeout: timeout, MaxIdle: 4}, "test", itemBytes, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestNothingThatTheServerDoesChangesWhatIsRead reads stretches, small objects and items by the client that
// processes have, from a server in every mood, and from one that was killed.
func TestNothingThatTheServerDoesChangesWhatIsRead(t *testing.T) {
	t.Parallel()
	data := make([]byte, 9*itemBytes+77)
	r := rand.NewChaCha8([32]byte{3})
	_, _ = r.Read(data)
	for _, m := range []mood{well, hanging, babbling, refusing, cutting, flipping, swapping, shrunk, gone, killed} {
		t.Run(string(m), func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			timeout := 30 * time.Second
			if m == hanging {
				timeout = 50 * time.Millisecond
			}
			c := opened(t, s, timeout)
			fetched := 0
			read := func(what string) {
				t.Helper()
				got, err := c.Range(t.Context(), "t1/b/index", 0, int64(len(data)), func(_ context.Context, _ string, off, length int64) (io.ReadCloser, error) {
					fetched++
					return io.NopCloser(bytes.NewReader(data[off : off+length])), nil
				})
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				all, err := io.ReadAll(got)
				_ = got.Close()
				if err != nil || !bytes.Equal(all, data) {
					t.Fatalf("%s: %d bytes, %v, want the %d that are stored", what, len(all), err, len(data))
				}
				meta, err := c.Object(t.Context(), "t1/b/meta.json", func() ([]byte, error) { return []byte("meta"), nil })
				if err != nil || string(meta) != "meta" {
					t.Fatalf("%s: %q, %v", what, meta, err)
				}
				if item, ok := c.Get(t.Context(), "ampr1:x"); ok && string(item) != "answer" {
					t.Fatalf("%s: %q", what, item)
				}
				c.Set("ampr1:x", []byte("answer"), time.Hour)
			}
			read("at first")
			if m != hanging { // with so short a timeout a busy machine may not get anything written
				deadline := time.Now().Add(30 * time.Second)
				for s.len() < 12 && time.Now().Before(deadline) {
					time.Sleep(time.Millisecond)
				}
			}
			if s.be(m); m == killed {
				s.kill()
			}
			c.resumes.Store(0)
			fetched = 0
			read("in that mood")
			if (fetched == 0) != (m == well) {
				t.Errorf("%d requests to the bucket", fetched)
			}
			switch m {
			case flipping, swapping, shrunk:
				if testutil.ToFloat64(c.damaged) == 0 {
					t.Error("no damaged item was counted")
				}
			case hanging, babbling, refusing, cutting: // to the client, a connection that ends is the end of an answer
				if testutil.ToFloat64(c.failures) == 0 {
					t.Error("no failure was counted")
				}
			}
		})
	}
}

// TestAServerThatIsSlowIsNotWaitedForInMemory writes much more than what may wait to a server that never
// answers.
func TestAServerThatIsSlowIsNotWaitedForInMemory(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.be(hanging)
	reg := prometheus.NewRegistry()
	c, err := Open(Config{Backend: Memcached, Addresses: []string{s.Addr().String()}, Timeout: time.Hour, ConnectTimeout: 30 * time.Second, MaxIdle: 4}, "test", mostQueuedBytes, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill(); _ = c.Close() })
	const all = 1000
	for i := range all { // each may be as large as all that may wait
		c.Set(fmt.Sprint("k", i), []byte("item"), time.Hour)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	skipped := 0.0
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "operation_skipped_total") {
			for _, m := range f.GetMetric() {
				skipped += m.GetCounter().GetValue()
			}
		}
	}
	if most := 2.0 * mostWriters; all-skipped > most {
		t.Errorf("%v items wait or are on their way, want at most %v", all-skipped, most)
	}
}
