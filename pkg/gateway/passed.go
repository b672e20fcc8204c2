package gateway

import (
	"io"
	"sync/atomic"
)

// passedBody is the body of a request that is passed on. When an answer to an HTTP/1 request begins, the server
// takes what is left of its body away, and closes it. What sends the body on may look at it once more at any time
// later, if only to see that it has ended, and would take the error for a reason to give up the answer in its
// midst. So the end is remembered, and what goes wrong after the answer began waits until the answer has ended.
type passedBody struct {
	body   io.Reader
	length int64           // as told; below 0: not
	gone   <-chan struct{} // closed when the request has been served

	read     int64 // by one reader at a time, as ended
	ended    bool
	answered atomic.Bool // set before anything of an answer is passed back
}

// Read implements io.Reader.
func (b *passedBody) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	b.read += int64(n)
	if b.ended = err == io.EOF && b.read >= b.length || err == nil && b.read == b.length; b.ended {
		return n, io.EOF
	}
	if err != nil && b.answered.Load() && b.gone != nil {
		<-b.gone
	}
	return n, err
}

// Close leaves the body open: who has the request closes it, and another instance may have to get it.
func (b *passedBody) Close() error { return nil }
