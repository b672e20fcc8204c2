package buckettest

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Azure is an account of Azure Blob Storage with one container, in memory: what the drivers use of
// the protocol, with its signatures, conditions, error codes and pages of listings.
type Azure struct {
	Account, Key, Container string
	// Connection is the connection string that leads here.
	Connection string

	mu     sync.Mutex // guards what follows
	blobs  map[string]azureBlob
	blocks map[string][]byte // uploaded and not yet part of a blob, by blob and id
	tags   int
}

type azureBlob struct {
	data     []byte
	tag      string
	modified time.Time
}

// azurePage is how many entries one page of a listing has at most: few, so that tests see several.
const azurePage = 50

// maxAzureBody bounds a request.
const maxAzureBody = 64 << 20

// NewAzure starts an account that ends with the test.
func NewAzure(t *testing.T) *Azure {
	t.Helper()
	a := &Azure{Account: "account", Key: base64.StdEncoding.EncodeToString([]byte("a key of the test")), Container: "laws",
		blobs: map[string]azureBlob{}, blocks: map[string][]byte{}}
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.Connection = fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=%s/%s;", a.Account, a.Key, s.URL, a.Account)
	return a
}

// azureError is an answer that is not a success.
type azureError struct {
	status int
	code   string
}

func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-ms-request-id", "1")
	w.Header().Set("x-ms-version", cmp.Or(r.Header.Get("x-ms-version"), "2021-12-02"))
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := a.serve(w, r); err != nil {
		w.Header().Set("x-ms-error-code", err.code)
		w.WriteHeader(err.status)
		if r.Method != http.MethodHead {
			_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>refused</Message></Error>`, err.code)
		}
	}
}

func (a *Azure) serve(w http.ResponseWriter, r *http.Request) *azureError {
	if !a.signed(r) {
		return &azureError{http.StatusForbidden, "AuthenticationFailed"}
	}
	name, inside := strings.CutPrefix(r.URL.Path, "/"+a.Account+"/"+a.Container)
	if !inside {
		return &azureError{http.StatusNotFound, "ContainerNotFound"}
	}
	name = strings.TrimPrefix(name, "/")
	a.mu.Lock()
	defer a.mu.Unlock()
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && query.Get("comp") == "list":
		return a.list(w, query)
	case r.Method == http.MethodPut:
		return a.put(w, r, name, query)
	}
	b, ok := a.blobs[name]
	switch {
	case !ok:
		return &azureError{http.StatusNotFound, "BlobNotFound"}
	case !met(r, b.tag, true):
		return &azureError{http.StatusPreconditionFailed, "ConditionNotMet"}
	case r.Method == http.MethodDelete:
		delete(a.blobs, name)
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return b.send(w, r)
}

// met says whether the conditions of a request hold for a blob that is there or not.
func met(r *http.Request, tag string, there bool) bool {
	if want := r.Header.Get("If-Match"); want != "" && (!there || want != "*" && want != tag) {
		return false
	}
	none := r.Header.Get("If-None-Match")
	return none == "" || !there || none != "*" && none != tag
}

func (b azureBlob) send(w http.ResponseWriter, r *http.Request) *azureError {
	h := w.Header()
	h.Set("ETag", b.tag)
	h.Set("Last-Modified", b.modified.Format(http.TimeFormat))
	h.Set("x-ms-blob-type", "BlockBlob")
	h.Set("Content-Type", "application/octet-stream")
	data, status := b.data, http.StatusOK
	if text := cmp.Or(r.Header.Get("x-ms-range"), r.Header.Get("Range")); text != "" && r.Method == http.MethodGet {
		first, last, _ := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
		from, err := strconv.Atoi(first)
		to := len(data)
		if last != "" {
			var n int
			if n, err = strconv.Atoi(last); err == nil {
				to = min(to, n+1)
			}
		}
		if err != nil || from >= len(data) || from > to {
			return &azureError{http.StatusRequestedRangeNotSatisfiable, "InvalidRange"}
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
		data, status = data[from:to], http.StatusPartialContent
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
	return nil
}

// put takes a blob, a block of one, or the list of blocks that makes one.
func (a *Azure) put(w http.ResponseWriter, r *http.Request, name string, query url.Values) *azureError {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAzureBody))
	if err != nil || r.ContentLength >= 0 && int64(len(body)) != r.ContentLength {
		return &azureError{http.StatusBadRequest, "InvalidInput"}
	}
	switch query.Get("comp") {
	case "block":
		a.blocks[name+"\xff"+query.Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
		return nil
	case "blocklist":
		var list struct {
			Latest []string `xml:"Latest"`
		}
		if err := xml.Unmarshal(body, &list); err != nil {
			return &azureError{http.StatusBadRequest, "InvalidXmlDocument"}
		}
		var whole bytes.Buffer
		for _, id := range list.Latest {
			block, ok := a.blocks[name+"\xff"+id]
			if !ok {
				return &azureError{http.StatusBadRequest, "InvalidBlockList"}
			}
			whole.Write(block)
		}
		body = whole.Bytes()
	case "":
		if r.Header.Get("x-ms-blob-type") != "BlockBlob" {
			return &azureError{http.StatusBadRequest, "InvalidHeaderValue"}
		}
	default:
		return &azureError{http.StatusBadRequest, "InvalidQueryParameterValue"}
	}
	old, there := a.blobs[name]
	if !met(r, old.tag, there) {
		if r.Header.Get("If-None-Match") == "*" {
			return &azureError{http.StatusConflict, "BlobAlreadyExists"}
		}
		return &azureError{http.StatusPreconditionFailed, "ConditionNotMet"}
	}
	a.tags++
	b := azureBlob{data: body, tag: fmt.Sprintf("\"0x%X\"", a.tags), modified: time.Now().UTC()}
	a.blobs[name] = b
	w.Header().Set("ETag", b.tag)
	w.Header().Set("Last-Modified", b.modified.Format(http.TimeFormat))
	w.WriteHeader(http.StatusCreated)
	return nil
}

type azureListing struct {
	XMLName xml.Name `xml:"EnumerationResults"`
	Blobs   struct {
		Blob   []azureEntry  `xml:"Blob"`
		Prefix []azurePrefix `xml:"BlobPrefix"`
	} `xml:"Blobs"`
	Next string `xml:"NextMarker"`
}

type azurePrefix struct {
	Name string `xml:"Name"`
}

type azureEntry struct {
	Name       string `xml:"Name"`
	Properties struct {
		Modified string `xml:"Last-Modified"`
		Tag      string `xml:"Etag"`
		Length   int    `xml:"Content-Length"`
		Type     string `xml:"BlobType"`
	} `xml:"Properties"`
}

func (a *Azure) list(w http.ResponseWriter, query url.Values) *azureError {
	prefix, delimiter := query.Get("prefix"), query.Get("delimiter")
	marker, err := base64.URLEncoding.DecodeString(query.Get("marker"))
	if err != nil {
		return &azureError{http.StatusBadRequest, "InvalidQueryParameterValue"}
	}
	var out azureListing
	last := string(marker)
	for n := 0; ; n++ {
		name := a.after(last, prefix)
		if name == "" {
			break
		}
		if n == azurePage {
			out.Next = last
			break
		}
		rest := strings.TrimPrefix(name, prefix)
		if dir, _, found := strings.Cut(rest, delimiter); delimiter != "" && found {
			p := prefix + dir + delimiter
			out.Blobs.Prefix = append(out.Blobs.Prefix, azurePrefix{p})
			last = p + "\xff"
			continue
		}
		b := a.blobs[name]
		e := azureEntry{Name: name}
		e.Properties.Modified, e.Properties.Tag = b.modified.Format(http.TimeFormat), strings.Trim(b.tag, `"`)
		e.Properties.Length, e.Properties.Type = len(b.data), "BlockBlob"
		out.Blobs.Blob = append(out.Blobs.Blob, e)
		last = name
	}
	if out.Next != "" {
		out.Next = base64.URLEncoding.EncodeToString([]byte(out.Next))
	}
	w.Header().Set("Content-Type", "application/xml")
	if err := xml.NewEncoder(w).Encode(out); err != nil {
		return &azureError{http.StatusInternalServerError, "InternalError"}
	}
	return nil
}

// after returns the first blob with the prefix behind last, empty if there is none.
func (a *Azure) after(last, prefix string) string {
	for _, n := range slices.Sorted(maps.Keys(a.blobs)) {
		if n > last && strings.HasPrefix(n, prefix) {
			return n
		}
	}
	return ""
}

// signed checks the signature of a request by the shared key of the account.
func (a *Azure) signed(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "SharedKey "+a.Account+":")
	if !ok {
		return false
	}
	length := ""
	if r.ContentLength > 0 {
		length = strconv.FormatInt(r.ContentLength, 10)
	}
	h := r.Header
	lines := []string{r.Method, h.Get("Content-Encoding"), h.Get("Content-Language"), length, h.Get("Content-MD5"), h.Get("Content-Type"), "",
		h.Get("If-Modified-Since"), h.Get("If-Match"), h.Get("If-None-Match"), h.Get("If-Unmodified-Since"), h.Get("Range")}
	var ms []string
	for name, values := range h {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-ms-") {
			ms = append(ms, name+":"+strings.Join(values, ","))
		}
	}
	slices.Sort(ms)
	lines = append(append(lines, ms...), "/"+a.Account+r.URL.EscapedPath())
	query := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		slices.Sort(query[name])
		lines = append(lines, strings.ToLower(name)+":"+strings.Join(query[name], ","))
	}
	key, err := base64.StdEncoding.DecodeString(a.Key)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(strings.Join(lines, "\n")))
	return hmac.Equal([]byte(given), []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil))))
}
