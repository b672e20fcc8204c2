package remotewrite

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// snappyRatio is more than the format can reach: its densest element makes 64 bytes of 3. A body
// that announces more is corrupt, and nothing is allocated for it.
const snappyRatio = 22

// maxSnappyBlockBytes is the largest block that the frames of snappy have.
const maxSnappyBlockBytes = 64 << 10

// maxZstdWindowBytes is the window decoders must support by RFC 8878.
const maxZstdWindowBytes = 8 << 20

// Decompress undoes the encoding of src, as named by a Content-Encoding header: snappy (the block
// format), x-snappy-framed (its frames), zstd, gzip or lz4 (frames). It uses the memory of dst if it suffices. The result has at most
// maxBytes. Errors: Unsupported, BodyTooLarge, Invalid.
func Decompress(dst, src []byte, encoding string, maxBytes int) ([]byte, error) {
	switch encoding {
	case "snappy":
		return unsnappy(dst, src, maxBytes)
	case "zstd":
		r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxZstdWindowBytes), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, errs.New(errs.Invalid, "decompress zstd: %w", err)
		}
		defer r.Close()
		return readAll(dst, r, maxBytes, encoding)
	case "gzip":
		r, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, errs.New(errs.Invalid, "decompress gzip: %w", err)
		}
		return readAll(dst, r, maxBytes, encoding)
	case "x-snappy-framed":
		return readAll(dst, s2.NewReader(bytes.NewReader(src), s2.ReaderMaxBlockSize(maxSnappyBlockBytes)), maxBytes, encoding)
	case "lz4":
		return readAll(dst, lz4.NewReader(bytes.NewReader(src)), maxBytes, encoding)
	}
	return nil, errs.New(errs.Unsupported, "content encoding %q is not supported; use snappy, zstd, gzip or lz4", encoding)
}

func unsnappy(dst, src []byte, maxBytes int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	switch {
	case err != nil:
		return nil, errs.New(errs.Invalid, "decompress snappy: %w", err)
	case n > maxBytes:
		return nil, tooLarge(maxBytes)
	case n > snappyRatio*len(src):
		return nil, errs.New(errs.Invalid, "decompress snappy: %d bytes cannot hold the %d announced", len(src), n)
	}
	out, err := s2.Decode(dst[:0:cap(dst)], src)
	if err != nil {
		return nil, errs.New(errs.Invalid, "decompress snappy: %w", err)
	}
	return out, nil
}

// readAll reads r into the memory of dst, at most maxBytes.
func readAll(dst []byte, r io.Reader, maxBytes int, encoding string) ([]byte, error) {
	buf := bytes.NewBuffer(dst[:0])
	n, err := buf.ReadFrom(io.LimitReader(r, int64(maxBytes)+1))
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), n > int64(maxBytes):
		return nil, tooLarge(maxBytes)
	case err != nil:
		return nil, errs.New(errs.Invalid, "decompress %s: %w", encoding, err)
	}
	return buf.Bytes(), nil
}

func tooLarge(maxBytes int) error {
	return errs.New(errs.BodyTooLarge, "decompressed request is larger than the %d bytes allowed", maxBytes)
}
