package ingest

import (
	"net/http"
	"testing"

	"github.com/klauspost/compress/s2"
)

func FuzzAnyBodyIsAnsweredAndLeavesNothing(f *testing.F) {
	f.Add(s2.EncodeSnappy(nil, []byte("payload")), typeV2, "snappy")
	f.Add([]byte("\xff\xff\xff\x7f\x00"), typeV1, "")
	f.Add([]byte("(\xb5/\xfd\x04\x00\x01\x00\x00"), "", "zstd")
	f.Add([]byte("\x1f\x8b\x08\x00"), "a/b;proto=x", "gzip")
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding string) {
		a := newAPI(&sink{})
		r := request(body)
		r.Header = http.Header{"Content-Type": {contentType}, "Content-Encoding": {encoding}}
		if rec := do(a, r); rec.Code != 200 && (rec.Code < 400 || rec.Code >= 500) {
			t.Errorf("status %d %s", rec.Code, rec.Body)
		}
		if left := a.bodies.now.Load(); left != 0 {
			t.Errorf("%d bytes stay reserved", left)
		}
	})
}
