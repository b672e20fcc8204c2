package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

// unset is an environment without variables.
func unset(string) string { return "" }

func TestSignedRequestsAreJudgedLineByLine(t *testing.T) {
	const request = "GET /workspaces/ws-b226cc2a-a446-46a9-933a-ac50479a5568 HTTP/1.1\nHost:127.0.0.1:8080\nX-Amz-Date:20210929T123456Z\n" +
		"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20210929/us-east-1/aps/aws4_request, SignedHeaders=host;x-amz-date, Signature=ca6cb0edf949b773719e39d5aaf47ec9af45c26519fe18fee37a7773e9202b9f\n\n"
	line := func(change map[string]any) string {
		x := map[string]any{"name": "n", "request": request, "access_key": "AKIDEXAMPLE", "secret_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
			"region": "us-east-1", "service": "aps", "now": "2021-09-29T12:34:56Z"}
		for k, v := range change {
			x[k] = v
		}
		data, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return string(data) + "\n"
	}
	in := line(nil) + line(map[string]any{"request": strings.ReplaceAll(request, "\n", "\r\n"), "now": 1632918896, "normalize": true}) + "\n" +
		line(map[string]any{"secret_key": "x"}) + line(map[string]any{"access_key": "x"}) + line(map[string]any{"session_token": "x"}) +
		line(map[string]any{"now": "2021-09-29T13:34:56Z"}) + line(map[string]any{"service": "s3"}) + line(map[string]any{"request": "x"}) + "rubbish\n"
	var out bytes.Buffer
	if err := run(t.Context(), &cli.Env{In: strings.NewReader(in), Out: &out, Err: &out, Getenv: unset}, []string{"sigv4", "verify"}); err != nil {
		t.Fatal(err)
	}
	var got []bool
	for l := range strings.Lines(out.String()) {
		var v verdict
		if err := json.Unmarshal([]byte(l), &v); err != nil || v.Valid != (v.Reason == "") {
			t.Errorf("%s: %v", l, err)
		}
		got = append(got, v.Valid)
	}
	if len(got) != 9 || !got[0] || !got[1] {
		t.Fatalf("%v\n%s", got, out.String())
	}
	for i, valid := range got[2:] {
		if valid {
			t.Errorf("line %d is valid", i+3)
		}
	}
}

func TestUnknownCommandsAreSaid(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &cli.Env{In: strings.NewReader(""), Out: &out, Err: &out, Getenv: unset}, []string{"nothing"}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("%v, %s", err, out.String())
	}
}
