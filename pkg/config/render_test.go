package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func loaded(t *testing.T) (*server, *Set) {
	t.Helper()
	c, s := newServer()
	s.Derive("memory_bytes", "the limit of the cgroup", func() string { return "1024" })
	name := file(t, `server:
  join_members: ["a,b", "c: d"]
  push_timeout: 90s
  limits: {rate: 1e6}
  target: "123"
  auth: {secret_key: hunter2, token: hunter3}
  ring: ~
`)
	if _, err := Load(s, []string{"-config.file", name}, noEnv); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func print(t *testing.T, s *Set, mode string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Print(&b, mode); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPrintedModes(t *testing.T) {
	_, s := loaded(t)
	for _, mode := range modeNames() {
		got := print(t, s, mode)
		if bytes.Contains(got, []byte("hunter")) {
			t.Errorf("mode %s shows a secret", mode)
		}
		golden(t, mode+".txt", got)
	}
	for _, all := range []bool{false, true} {
		var b bytes.Buffer
		if err := s.Help(&b, "amphora", all); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("help_all_%v.txt", all), b.Bytes())
	}
	if err := s.Print(new(bytes.Buffer), "moon"); err == nil {
		t.Error("unknown mode accepted")
	}
}

func TestWhatIsPrintedLoadsAgain(t *testing.T) {
	was, s := loaded(t)
	text := strings.ReplaceAll(string(print(t, s, ModeEffective)), mask, "hunter4")
	is, again := newServer()
	if err := again.LoadYAML("printed.yaml", []byte(text)); err != nil {
		t.Fatal(err)
	}
	is.Key, is.Token = was.Key, was.Token
	if fmt.Sprint(*was) != fmt.Sprint(*is) {
		t.Errorf("was %+v\n is %+v", was, is)
	}
	if s.Hash() != again.Hash() {
		t.Error("equal settings have different hashes")
	}
	is.Timeout = time.Second
	if s.Hash() == again.Hash() {
		t.Error("different settings have one hash")
	}
}

func TestSchemaIsJSON(t *testing.T) {
	_, s := newServer()
	var v map[string]any
	if err := json.Unmarshal(print(t, s, ModeSchema), &v); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	c := struct {
		Key  Secret
		Keys []Secret
	}{"hunter2", []Secret{"hunter2"}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", c.Key, "c", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", c.Key, "c", c)
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(js)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		all += fmt.Sprintf(verb+verb, c, c.Key)
	}
	if strings.Contains(all, "hunter") || strings.Contains(all, "68756e746572") {
		t.Errorf("a secret shows in %s", all)
	}
	if got := fmt.Sprint(Secret("")); got != "" {
		t.Errorf("an empty secret prints %q", got)
	}
}

func TestDurationsRoundTrip(t *testing.T) {
	for _, d := range []time.Duration{0, time.Millisecond, 90 * time.Second, 36 * time.Hour, 250 * time.Microsecond, -time.Minute, 400 * 24 * time.Hour} {
		got, err := ParseDuration(FormatDuration(d))
		if err != nil || got != d {
			t.Errorf("%v prints %s, which reads %v, %v", d, FormatDuration(d), got, err)
		}
	}
}
