package harness

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Consul answers the part of Consul's HTTP interface that keeps keys and values, from memory: reads
// that wait for changes, and changes under the condition that nobody else made one.
type Consul struct {
	*httptest.Server

	mu      sync.Mutex // guards the fields below
	index   uint64
	pairs   map[string]consulPair
	changed chan struct{} // closed with the next change
}

type consulPair struct {
	Key                      string
	Value                    []byte
	CreateIndex, ModifyIndex uint64
	Flags, LockIndex         uint64
}

// StartConsul starts a server, which must be closed.
func StartConsul() *Consul {
	c := &Consul{index: 1, pairs: map[string]consulPair{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/kv/{key...}", c.read)
	mux.HandleFunc("PUT /v1/kv/{key...}", c.write)
	mux.HandleFunc("DELETE /v1/kv/{key...}", c.remove)
	c.Server = httptest.NewServer(mux)
	return c
}

// Host is host:port, not encrypted.
func (c *Consul) Host() string { return c.Listener.Addr().String() }

// Keys is how many keys there are.
func (c *Consul) Keys() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pairs)
}

// Stop closes the server and all connections, also those that wait.
func (c *Consul) Stop() {
	c.CloseClientConnections()
	c.Close()
}

func (c *Consul) read(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	known, _ := strconv.ParseUint(q.Get("index"), 10, 64) // absent: answers at once
	wait, err := time.ParseDuration(q.Get("wait"))
	if err != nil {
		wait = time.Minute
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	for {
		found, newest, changed := c.find(r.PathValue("key"), q.Has("recurse"))
		if known == 0 || newest > known {
			c.answer(w, found, newest)
			return
		}
		select {
		case <-changed:
		case <-limit.C:
			c.answer(w, found, newest)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// find returns what is at key, or at all keys that begin so, and the index of the last change there.
func (c *Consul) find(key string, prefix bool) (found []consulPair, newest uint64, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newest = 1
	for k, p := range c.pairs {
		if k == key || prefix && strings.HasPrefix(k, key) {
			found, newest = append(found, p), max(newest, p.ModifyIndex)
		}
	}
	return found, newest, c.changed
}

func (c *Consul) answer(w http.ResponseWriter, found []consulPair, newest uint64) {
	w.Header().Set("X-Consul-Index", strconv.FormatUint(newest, 10))
	w.Header().Set("X-Consul-LastContact", "0")
	w.Header().Set("X-Consul-KnownLeader", "true")
	if len(found) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(found) // a client that is gone asks again
}

func (c *Consul) write(w http.ResponseWriter, r *http.Request) {
	value, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pairs[r.PathValue("key")]
	if cas := r.URL.Query().Get("cas"); cas != "" && cas != strconv.FormatUint(p.ModifyIndex, 10) {
		_, _ = io.WriteString(w, "false")
		return
	}
	c.index++
	p.Key, p.Value, p.ModifyIndex = r.PathValue("key"), value, c.index
	if p.CreateIndex == 0 {
		p.CreateIndex = c.index
	}
	c.pairs[p.Key] = p
	c.wake()
	_, _ = io.WriteString(w, "true")
}

func (c *Consul) remove(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	delete(c.pairs, r.PathValue("key"))
	c.wake()
	_, _ = io.WriteString(w, "true")
}

// wake needs the lock.
func (c *Consul) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}
