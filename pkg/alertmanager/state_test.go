package alertmanager

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

func addr(t *testing.T, s string) netip.Addr {
	t.Helper()
	ip, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return ip
}

func TestStoredStateIsReadBack(t *testing.T) {
	in := &pb.State{Silences: []byte("s"), Notifications: []byte("n"), Alerts: []*pb.Alert{{Labels: map[string]string{"a": "b"}, EndsAt: 7}}}
	data, err := encodeState("t", in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decodeState(data)
	if err != nil || !proto.Equal(in, out) {
		t.Errorf("%v, %v", out, err)
	}
}

func FuzzDecodeState(f *testing.F) {
	data, err := encodeState("t", &pb.State{Silences: []byte("s"), Alerts: []*pb.Alert{{Labels: map[string]string{"a": "b"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Add([]byte{10, 255, 255, 255, 255, 15})
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = decodeState(data) })
}

func TestOneHolderAtATimeHasAClaim(t *testing.T) {
	var c claims
	now := time.Now()
	if h, _ := c.take("k", "a", "", time.Minute, now); h != "a" {
		t.Fatalf("first: %s", h)
	}
	if h, _ := c.take("k", "b", "", time.Minute, now.Add(time.Second)); h != "a" {
		t.Errorf("second gets it from %s", h)
	}
	if h, _ := c.take("k", "a", "", time.Minute, now.Add(50*time.Second)); h != "a" {
		t.Errorf("renewal: %s", h)
	}
	c.release("k", "b")
	if h, _ := c.take("k", "b", "", time.Minute, now.Add(70*time.Second)); h != "a" {
		t.Errorf("after a stranger's release: %s", h)
	}
	c.release("k", "a")
	if h, _ := c.take("k", "b", "", time.Minute, now.Add(71*time.Second)); h != "b" {
		t.Errorf("after the release: %s", h)
	}
	if h, _ := c.take("k", "c", "", time.Minute, now.Add(200*time.Second)); h != "c" {
		t.Errorf("after the holder's death: %s", h)
	}
	c.sweep(now.Add(time.Hour))
	if len(c.held) != 0 {
		t.Errorf("%d claims are kept", len(c.held))
	}
}
