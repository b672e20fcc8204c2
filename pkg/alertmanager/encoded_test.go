package alertmanager

import (
	"encoding/base64"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

func TestADefinitionMayBeEncodedTwice(t *testing.T) {
	const text = "alertmanager_config: |\n  route: {receiver: a}\n  receivers: [{name: a}]\n"
	for _, data := range []string{text, base64.StdEncoding.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n"} {
		if err := Validate(Config{}, "t", []byte(data), limits.View{}); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	}
	if err := Validate(Config{}, "t", []byte("bm90aGluZw=="), limits.View{}); err == nil {
		t.Error("what is no mapping in base64 is taken for a definition")
	}
}
