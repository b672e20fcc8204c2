package app

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/members"
)

// answerWait is how long the address of a process with the same name may take to answer.
const answerWait = 2 * time.Second

// ingesterKV is another client of the store of the ingesters' ring.
func (a *App) ingesterKV(name string) (kv.Client, error) {
	store, err := a.ringKV()
	if err != nil {
		return nil, err
	}
	client, err := kv.NewClient(store, ring.GetCodec(), kv.RegistererWithKVName(a.prefixed(), name), a.kitLog(name))
	if err != nil {
		return nil, fmt.Errorf("ingester ring: %w", err)
	}
	return client, nil
}

// claimName keeps a process from taking the name, and so the place, of a living ingester.
func (a *App) claimName(lc ring.LifecyclerConfig) error {
	if a.cfg.alone() {
		return nil
	}
	store, err := a.ingesterKV("ingester-claim")
	if err != nil {
		return err
	}
	beats := a.cfg.Ring.Heartbeats
	claim := members.Claim{
		KV: store, Key: ingester.RingKey, ID: lc.ID, Addr: net.JoinHostPort(lc.Addr, strconv.Itoa(lc.Port)),
		Timeout: beats.Timeout, Wait: beats.Period + answerWait, Answers: answers,
		Tokens: lc.TokensFilePath, Log: a.log,
	}
	return a.serve("ingester-name", services.NewIdleService(claim.Check, nil))
}

// answers says whether something listens at addr.
func answers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// caretaker looks after the ring of ingesters.
func (a *App) caretaker(ing *ingester.Ingester, lc ring.LifecyclerConfig, memory *members.Memory) error {
	if a.cfg.alone() {
		return nil
	}
	store, err := a.ingesterKV("ingester-caretaker")
	if err != nil {
		return err
	}
	return a.serve("ingester-caretaker", members.NewCaretaker(members.CaretakerDeps{
		Log: a.log, Reg: a.reg, KV: store, Key: ingester.RingKey, ID: lc.ID, Addr: net.JoinHostPort(lc.Addr, strconv.Itoa(lc.Port)),
		Every: a.cfg.Ring.Heartbeats.Period, Rules: a.forgetRules(), CutOff: ing.SetCutOff, Memory: memory,
		Share: members.Share{Number: lc.NumTokens, File: lc.TokensFilePath, Generator: lc.RingTokenGenerator},
	}))
}

// ringMemory is where an ingester remembers the ring; nil when it is alone.
func (a *App) ringMemory() *members.Memory {
	if a.cfg.alone() {
		return nil
	}
	return &members.Memory{Path: filepath.Join(a.cfg.Ingester.DataDir, "ring.json")}
}

// forgetRules say what becomes of silent ingesters.
func (a *App) forgetRules() members.Rules {
	keep := a.cfg.Querier.QueryIngestersWithin
	if keep == 0 {
		keep = a.cfg.Ingester.BlockRetention
	}
	return members.Rules{
		HeartbeatTimeout: a.cfg.Ring.Heartbeats.Timeout, Forget: a.cfg.Ring.Heartbeats.ForgetAfter(), Keep: keep,
		Replicas: a.cfg.replicationFactor(), Zones: a.cfg.Ring.ZoneAwareness,
	}
}
