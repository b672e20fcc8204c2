package bucket

import (
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// puts is an S3 server that takes every object and remembers the headers that it came with.
type puts struct {
	mu   sync.Mutex // guards seen
	seen map[string]http.Header
}

func (p *puts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.Method != http.MethodPut {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[r.URL.Path] = r.Header.Clone()
	w.Header().Set("ETag", `"1"`)
}

// encryption returns type, key and context of an object as they were sent.
func (p *puts) encryption(path string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.seen[path]
	if !ok {
		return "not written"
	}
	text, _ := base64.StdEncoding.DecodeString(h.Get("X-Amz-Server-Side-Encryption-Context"))
	return strings.Join([]string{h.Get("X-Amz-Server-Side-Encryption"), h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"), string(text)}, " ")
}

func encrypterOf(object string) (Encryption, error) {
	switch owner, _, _ := strings.Cut(object, "/"); owner {
	case "keyed":
		return Encryption{Type: SSEKMS, KeyID: "key-1", Context: `{"team":"a"}`}, nil
	case "plainly-keyed":
		return Encryption{Type: SSEKMS, KeyID: "key-2"}, nil
	case "managed":
		return Encryption{Type: SSES3, KeyID: "ignored"}, nil
	case "unknown":
		return Encryption{}, errors.New("overrides cannot be read")
	}
	return Encryption{KeyID: "ignored without a type"}, nil
}

func TestObjectsAreEncryptedAsTheirOwnerSays(t *testing.T) {
	server := &puts{seen: map[string]http.Header{}}
	listener := httptest.NewServer(server)
	defer listener.Close()
	cfg := defaults()
	cfg.Backend, cfg.StoragePrefix = S3, "cell1"
	cfg.S3 = S3Config{Endpoint: listener.Listener.Addr().String(), Region: "us-east-1", BucketName: "blocks", AccessKeyID: "id", SecretAccessKey: "secret",
		Insecure: true, BucketLookup: "path", SSEType: SSEKMS, SSEKMSKeyID: "all", SSEKMSContext: `{"for":"all"}`}
	plain, err := New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := Encrypting(plain, encrypterOf)
	documents, err := OpenConditional(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := EncryptingConditional(documents, encrypterOf)
	for owner, want := range map[string]string{
		"keyed":         `aws:kms key-1 {"team":"a"}`,
		"plainly-keyed": `aws:kms key-2 `,
		"managed":       `AES256  `,
		"anybody":       `aws:kms all {"for":"all"}`,
	} {
		object := owner + "/object"
		seen := func(what string) {
			t.Helper()
			path := "/blocks/cell1/" + object
			if got := server.encryption(path); got != want {
				t.Errorf("%s of %s is encrypted as %q, want %q", what, owner, got, want)
			}
			server.mu.Lock()
			delete(server.seen, path)
			server.mu.Unlock()
		}
		if err := b.Upload(t.Context(), object, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		seen("an object")
		if err := b.WithExpectedErrs(func(error) bool { return true }).Upload(t.Context(), object, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		seen("an object whose failures are expected")
		if _, err := d.Swap(t.Context(), object, []byte("x"), ""); err != nil {
			t.Fatal(err)
		}
		seen("a document")
		if err := d.Remove(t.Context(), object, "1"); err != nil {
			t.Fatal(err)
		}
		seen("what stays of a document")
	}
	// Nothing is written in clear because nobody knows how it should be.
	if err := b.Upload(t.Context(), "unknown/object", strings.NewReader("x")); err == nil {
		t.Error("an object is written without knowing how")
	}
	if _, err := d.Swap(t.Context(), "unknown/object", []byte("x"), ""); err == nil {
		t.Error("a document is written without knowing how")
	}
	if got := server.encryption("/blocks/cell1/unknown/object"); got != "not written" {
		t.Errorf("the server has %q", got)
	}
}

func TestEncryptionContextsAreChecked(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "{}": true, `{"a":"b"}`: true, "null": false, `{"a":1}`: false, "a=b": false, `["a"]`: false} {
		if err := CheckEncryptionContext(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		cfg := defaults()
		cfg.Backend = S3
		cfg.S3 = S3Config{Endpoint: "127.0.0.1:1", BucketName: "b", SSEKMSContext: text}
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("a configuration with %q: %v", text, err)
		}
	}
	if _, err := (Encryption{Type: "SSE-C"}).server(); err == nil {
		t.Error("an unknown type is accepted")
	}
}
