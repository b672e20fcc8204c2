package exporting

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLineBytes bounds a line. The server writes no more than ten thousand samples into one.
const maxLineBytes = 16 << 20

// copyLines appends lines to w. As soon as the line of another series begins, the one before is whole, and
// s says so, if all of it could be written.
func copyLines(w io.Writer, r io.Reader, s *state) error {
	in, out := bufio.NewReaderSize(r, 64<<10), bufio.NewWriterSize(w, 64<<10)
	before := *s
	err := eachLine(in, out, s)
	if failed := out.Flush(); failed != nil {
		*s = before
		return errors.Join(failed, err)
	}
	return err
}

func eachLine(in *bufio.Reader, out io.Writer, s *state) error {
	current, pending := "", int64(0) // of one series
	for {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			s.Bytes += pending
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		metric, err := metricOf(line)
		if err != nil {
			return err
		}
		if metric != current && pending > 0 {
			s.Bytes, s.After, pending = s.Bytes+pending, current, 0
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		current, pending = metric, pending+int64(len(line))
	}
}

// readLine returns a line with its end; io.EOF behind the last.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxLineBytes:
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("a line is longer than %d bytes", maxLineBytes)
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return line, err
		}
	}
}

// metricOf returns the labels of a line as they stand there.
func metricOf(line []byte) (string, error) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"metric":`))
	if !ok {
		var l struct{ Error string }
		if json.Unmarshal(line, &l) == nil && l.Error != "" {
			return "", fmt.Errorf("%w: %s", errTold, l.Error)
		}
		return "", fmt.Errorf("a line is no series: %.100q", line)
	}
	var metric json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(rest)).Decode(&metric); err != nil {
		return "", fmt.Errorf("a line is no series: %w", err)
	}
	return string(metric), nil
}
