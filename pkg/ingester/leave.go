package ingester

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/members"
)

const (
	// quietFor is how long no push may come until distributors count as having turned to others.
	// They look at the ring every second.
	quietFor = 3 * time.Second
	// quietMost bounds the wait for that: a distributor that is cut off may never hear.
	quietMost = 30 * time.Second
	// quietPoll is how often it is looked.
	quietPoll = 50 * time.Millisecond
	// lingerFor is how long queries are answered after the ring entry is gone, so that whoever has
	// not heard of that yet misses nothing.
	lingerFor = 5 * time.Second
	// flushPatience bounds the tries to ship everything before leaving for good.
	flushPatience = 5 * time.Minute
	// flushPause is between two tries.
	flushPause = 5 * time.Second
	// listPause is longer than reading and writing back a bucket index takes, and listTries is how
	// often it is made sure that the last blocks are in it.
	listPause = 2 * time.Second
	listTries = 20
)

// standing is why this ingester takes no writes, and how it goes.
type standing struct {
	memory  *members.Memory // of the ring; nil: none
	leaving *departure      // set when stopping begins

	mu       sync.Mutex // guards what follows; held while the ring is changed
	operator bool       // asked for while cut off
	cutOff   bool
}

// SetReadOnly tells the ring that this ingester is to be written to no more, or again. Errors:
// Unavailable.
func (i *Ingester) SetReadOnly(ctx context.Context, on bool) error {
	if i.State() != services.Running {
		return errs.New(errs.Unavailable, "ingester is %s", i.State())
	}
	i.standing.mu.Lock()
	defer i.standing.mu.Unlock()
	i.standing.operator = on
	if i.standing.cutOff {
		return nil // the ring says so already, and goes on until the others are seen again
	}
	return i.changeReadOnly(ctx, on)
}

// SetCutOff tells the ring that this ingester may not be seen by the others, which may have given
// its work away, or that it is seen again. It does not end what an operator asked for. Errors:
// Unavailable.
func (i *Ingester) SetCutOff(ctx context.Context, cutOff bool) error {
	i.standing.mu.Lock()
	defer i.standing.mu.Unlock()
	s := &i.standing
	switch on, _ := i.lifecycler.GetReadOnlyState(); {
	case cutOff == s.cutOff || cutOff && on:
		return nil
	case cutOff:
		s.operator = false
	case s.operator:
		s.cutOff = false
		return nil
	}
	if err := i.changeReadOnly(ctx, cutOff); err != nil {
		return err
	}
	s.cutOff = cutOff
	return nil
}

func (i *Ingester) changeReadOnly(ctx context.Context, on bool) error {
	if err := i.lifecycler.ChangeReadOnlyState(ctx, on); err != nil {
		return errs.New(errs.Unavailable, "change the ring entry: %w", err)
	}
	return nil
}

// join enters the ring. An ingester that was away for so long that others took its work asks for
// it again; that the ring then shows when it came back tells reads to look to both.
func (i *Ingester) join(ctx context.Context) error {
	switch n, err := i.recallRing(ctx); {
	case errs.KindOf(err) == errs.Invalid && err != nil:
		i.log.Warn("the ring of before is not remembered; if all ingesters were down at once, wait for all before reading", "err", err)
	case err != nil:
		return err
	case n > 0:
		i.log.Info("the ring was forgotten while all were down; its members are recalled from disk and waited for", "members", n)
	}
	relieved, err := members.WasRelieved(ctx, i.lifecycler.KVStore, i.lifecycler.RingKey, i.lifecycler.ID)
	if err != nil {
		return err
	}
	if err := i.lifecycler.StartAsync(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("join the ring: %w", err)
	}
	if err = i.lifecycler.AwaitRunning(ctx); err == nil && relieved {
		i.log.Info("others took over the series of this ingester while it was away, it takes them back")
		err = i.changeReadOnly(ctx, false)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("join the ring: %w", err)
	i.lifecycler.SetUnregisterOnShutdown(false)
	i.lifecycler.SetFlushOnShutdown(false)
	return errors.Join(err, services.StopAndAwaitTerminated(context.WithoutCancel(ctx), i.lifecycler))
}

// recallRing returns how many members it put into a ring that everybody had forgotten.
func (i *Ingester) recallRing(ctx context.Context) (int, error) {
	if i.standing.memory == nil {
		return 0, nil
	}
	return i.standing.memory.Recall(ctx, i.lifecycler.KVStore, i.lifecycler.RingKey, time.Now())
}

// departure is how an ingester stops.
type departure struct {
	unregister bool // the ring entry goes, or at least its work
	flush      bool // everything is shipped before
	others     bool // somebody else is there
	failed     error
}

// prepareLeave has distributors turn to others before an ingester that leaves for good refuses
// pushes, and returns how it leaves.
func (i *Ingester) prepareLeave(ctx context.Context) *departure {
	d := &departure{unregister: i.lifecycler.ShouldUnregisterOnShutdown(), flush: i.lifecycler.FlushOnShutdown(),
		others: i.lifecycler.HealthyInstancesCount() > 1}
	i.standing.leaving = d
	// An entry must not go before what it stands for is in object storage.
	i.lifecycler.SetUnregisterOnShutdown(false)
	if !d.unregister || !d.flush || !d.others {
		return d
	}
	if on, _ := i.lifecycler.GetReadOnlyState(); !on {
		if err := i.changeReadOnly(ctx, true); err != nil {
			i.log.Warn("distributors not told to turn to other ingesters, some pushes will fail there and be sent again", "err", err)
			return d
		}
	}
	begin := time.Now()
	for time.Since(begin) < quietFor || i.sinceLastPush() < quietFor {
		if time.Since(begin) > quietMost {
			i.log.Warn("some distributor goes on pushing to this ingester, which stops now", "waited", quietMost)
			break
		}
		time.Sleep(quietPoll)
	}
	return d
}

// sinceLastPush is the time since the last push of any tenant.
func (i *Ingester) sinceLastPush() time.Duration {
	var last int64
	for _, t := range i.all() {
		last = max(last, t.lastPush.Load())
	}
	return i.now().Sub(time.UnixMilli(last))
}

// flushAll ships everything on the way out, if need be in several tries. Only then the ring entry
// may go.
func (i *Ingester) flushAll() {
	d := i.standing.leaving
	begin := i.now()
	deadline := time.Now().Add(flushPatience)
	for {
		_, err := i.flush(context.Background(), nil)
		if err == nil {
			err = i.listAll(context.Background(), begin)
		}
		if err == nil {
			i.lifecycler.SetUnregisterOnShutdown(d.unregister)
			return
		}
		if !d.unregister || time.Now().After(deadline) {
			i.log.Error("flush at shutdown incomplete, the rest stays on local disk, which must not be deleted", "err", err)
			d.failed = errs.New(errs.Unavailable, "not everything is shipped, keep the data directory and start again: %w", err)
			return
		}
		i.log.Warn("flush at shutdown incomplete, tried again", "err", err)
		time.Sleep(flushPause)
	}
}

// listAll returns when the bucket indexes name the blocks shipped since begin, and go on to do so for a
// while: another ingester that leaves at the same time may write back an index that it read before.
func (i *Ingester) listAll(ctx context.Context, begin time.Time) error {
	tenants := i.all()
	for range listTries {
		waiting := slices.ContainsFunc(tenants, (*tenantHead).hasUnlisted)
		if !waiting && !i.standing.leaving.others {
			return nil
		}
		if !waiting {
			time.Sleep(listPause)
			again := false
			for _, t := range tenants {
				again = t.listAgain(begin) || again
			}
			if !again {
				return nil
			}
		}
		if err := i.shipNow(ctx, tenants); err != nil {
			return err
		}
		if !waiting && !slices.ContainsFunc(tenants, (*tenantHead).hasUnlisted) {
			return nil
		}
	}
	return errs.New(errs.Unavailable, "others keep overwriting the bucket index")
}

// listAgain has the blocks shipped since begin looked for in the bucket index once more, and says
// whether there are any.
func (t *tenantHead) listAgain(begin time.Time) bool {
	t.compacting.Lock()
	defer t.compacting.Unlock()
	for id, at := range t.shipped {
		if at >= begin.UnixMilli() {
			t.unlisted = append(t.unlisted, id)
		}
	}
	return len(t.unlisted) > 0
}

func (t *tenantHead) hasUnlisted() bool {
	t.compacting.Lock()
	defer t.compacting.Unlock()
	return len(t.unlisted) > 0
}

// left does what remains when the lifecycler has stopped.
func (i *Ingester) left(ctx context.Context, d *departure) error {
	gone := d.unregister && d.flush && d.failed == nil
	if d.unregister && !gone && d.others {
		// Its series go to others, but reads must know that its samples are missing.
		if err := members.Relieve(ctx, i.lifecycler.KVStore, i.lifecycler.RingKey, i.lifecycler.ID); err != nil {
			i.log.Warn("series not given to other ingesters, they do so when this one stays away", "err", err)
		}
	}
	if gone {
		if m := i.standing.memory; m != nil {
			if err := m.Forget(); err != nil {
				i.log.Warn("a later start may recall members that have left", "err", err)
			}
		}
		if d.others {
			time.Sleep(lingerFor)
		}
	}
	if !d.unregister {
		return nil // what could not be shipped is read back at the next start
	}
	return d.failed
}
