package prom

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// served is a over HTTP, as remote read alone.
func (a *API) served(t *testing.T) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.RemoteRead(w, r.WithContext(tenant.Inject(r.Context(), "t1"))); err != nil {
			http.Error(w, err.Error(), errs.HTTPStatus(err))
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

// readFrom reads over HTTP as Prometheus does, and says of how many series something came.
func readFrom(t *testing.T, address string, req *prompb.ReadRequest) (int, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/read", bytes.NewReader(readBody(t, req)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return 0, fmt.Errorf("answered %s: %s", res.Status, text)
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/x-streamed-protobuf") {
		return framesOf(res.Body)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	plain, err := s2.Decode(nil, text)
	if err != nil {
		return 0, err
	}
	var all prompb.ReadResponse
	if err := all.Unmarshal(plain); err != nil {
		return 0, err
	}
	n := 0
	for _, x := range all.Results {
		n += len(x.Timeseries)
	}
	return n, nil
}

// framesOf reads a stream to its end, which is one only between two frames.
func framesOf(r io.Reader) (int, error) {
	br := bufio.NewReader(r)
	for n := 0; ; n++ {
		size, err := binary.ReadUvarint(br)
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		b := make([]byte, 4+size)
		if _, err := io.ReadFull(br, b); err != nil {
			return n, err
		}
		if err := new(prompb.ChunkedReadResponse).Unmarshal(b[4:]); err != nil {
			return n, err
		}
	}
}

// chunksOf asks for chunks, or else samples, as Prometheus does.
func chunksOf(q ...*prompb.Query) *prompb.ReadRequest {
	return &prompb.ReadRequest{Queries: q, AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES}}
}

// tornStore is a storage whose chunks end with an error after some series.
type tornStore struct {
	storage.SampleAndChunkQueryable
	after int
	err   error
}

func (b tornStore) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := b.SampleAndChunkQueryable.ChunkQuerier(mint, maxt)
	return tornQuerier{q, b}, err
}

type tornQuerier struct {
	storage.ChunkQuerier
	b tornStore
}

func (q tornQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return &tornSet{ChunkSeriesSet: q.ChunkQuerier.Select(ctx, sorted, hints, ms...), left: q.b.after, err: q.b.err}
}

type tornSet struct {
	storage.ChunkSeriesSet
	left int
	err  error
}

func (s *tornSet) Next() bool { s.left--; return s.left >= 0 && s.ChunkSeriesSet.Next() }
func (s *tornSet) Err() error { return s.err }

func tornAfter(series int, err error) setup {
	return setup{store: func(s storage.SampleAndChunkQueryable) storage.SampleAndChunkQueryable {
		return tornStore{s, series, err}
	}}
}

// TestAStreamThatBreaksIsAnErrorToItsReader has the storage fail before the first series, and after it, when the status is gone.
func TestAStreamThatBreaksIsAnErrorToItsReader(t *testing.T) {
	gone := errs.New(errs.Unprocessable, "the query exceeded the limit of 1 series (max-fetched-series-per-query)")
	all := matchJob(prompb.LabelMatcher_RE, "a|b") // four series
	for after := range 4 {
		srv := newAPI(t, tornAfter(after, gone)).served(t)
		n, err := readFrom(t, srv.URL, chunksOf(all))
		if err == nil || n != after {
			t.Errorf("broken after %d series: the client has %d and the error %v", after, n, err)
		}
		if after == 0 && (err == nil || !strings.Contains(err.Error(), "422") || !strings.Contains(err.Error(), gone.Error())) {
			t.Errorf("broken before the first frame: %v", err)
		}
		if after > 0 {
			if err := readOverHTTP10(t, srv.Listener.Addr().String(), all); err == nil {
				t.Errorf("broken after %d series over HTTP/1.0: the client has no error", after)
			}
		}
	}
	srv := newAPI(t, setup{}).served(t)
	if n, err := readFrom(t, srv.URL, chunksOf(all)); n != 4 || err != nil {
		t.Errorf("whole: %d series, %v", n, err)
	}
	if err := readOverHTTP10(t, srv.Listener.Addr().String(), all); err != nil {
		t.Errorf("whole over HTTP/1.0: %v", err)
	}
}

// readOverHTTP10 reads a stream that ends where the connection does.
func readOverHTTP10(t *testing.T, address string, q *prompb.Query) error {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := readBody(t, chunksOf(q))
	if _, err := fmt.Fprintf(conn, "POST /read HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil //nolint:nilerr // The end of a connection must not be needed to notice.
	}
	_, err = framesOf(bytes.NewReader(text))
	return err
}

func TestRemoteReadOfTooManySamplesIsRefused(t *testing.T) {
	a := newAPI(t, setup{})
	q := matchJob(prompb.LabelMatcher_EQ, "a") // two series of eleven samples
	for most, refused := range map[int]bool{0: false, 22: false, 21: true, 1: true} {
		a.readSamplesMost = most
		srv := a.served(t)
		n, err := readFrom(t, srv.URL, &prompb.ReadRequest{Queries: []*prompb.Query{q}})
		if refused && (err == nil || !strings.Contains(err.Error(), "400") || !strings.Contains(err.Error(), fmt.Sprintf("exceeded sample limit (%d)", most))) || !refused && (err != nil || n != 2) {
			t.Errorf("at most %d: %d series, %v", most, n, err)
		}
		if n, err := readFrom(t, srv.URL, chunksOf(q)); n != 2 || err != nil { // as Prometheus, whose limit is ignored for streams
			t.Errorf("at most %d, streamed: %d series, %v", most, n, err)
		}
		both := readBody(t, &prompb.ReadRequest{Queries: []*prompb.Query{q, q}}) // what is one answer counts together
		if rec := a.do(httptest.NewRequest("POST", "/read", bytes.NewReader(both))); (rec.Code == 400) != (most > 0) {
			t.Errorf("at most %d, twice: %d %.200s", most, rec.Code, rec.Body)
		}
	}
}

// TestARemoteReadThatWaitedTooLongIsAskedAgain has all places taken until the time of the request is over.
func TestARemoteReadThatWaitedTooLongIsAskedAgain(t *testing.T) {
	a := newAPI(t, setup{})
	a.b.Timeout = 20 * time.Millisecond
	for range cap(a.reads) {
		a.reads <- struct{}{}
	}
	srv := a.served(t)
	if _, err := readFrom(t, srv.URL, chunksOf(matchJob(prompb.LabelMatcher_EQ, "a"))); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "remote read") {
		t.Errorf("without a free place: %v", err)
	}
	<-a.reads
	a.b.Timeout = time.Minute
	if n, err := readFrom(t, srv.URL, chunksOf(matchJob(prompb.LabelMatcher_EQ, "a"))); n != 2 || err != nil {
		t.Errorf("with a place: %d series, %v", n, err)
	}
}
