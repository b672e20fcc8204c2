package transport

import (
	"strings"
	"testing"
)

func TestAPortThatCannotBeIsRefusedBeforeAnythingStarts(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{HTTPPort: 8080, GRPCPort: 0, OTLPPort: 65535}, ""},
		{Config{HTTPPort: -1}, "http_listen_port"},
		{Config{GRPCPort: 65536}, "grpc_listen_port"},
		{Config{OTLPPort: 99999999}, "otlp_grpc_listen_port"},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
