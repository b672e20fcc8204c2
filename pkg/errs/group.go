package errs

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
)

// Group is goroutines that do parts of one piece of work, as an errgroup.Group. A panic of one of them is a panic
// of who waits for them, below whom somebody makes an error of it: elsewhere it would end the process.
type Group struct{ parts *errgroup.Group }

// Together returns a group, and a context that ends with the first of them that fails.
func Together(ctx context.Context) (*Group, context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	return &Group{g}, ctx
}

// SetLimit bounds how many of them run at a time.
func (g *Group) SetLimit(n int) { g.parts.SetLimit(n) }

// Go begins one more.
func (g *Group) Go(f func() error) {
	g.parts.Go(func() (err error) {
		defer Caught(&err)
		return f()
	})
}

// Wait returns when all have ended, with the error of the first that failed. It panics if that panicked.
func (g *Group) Wait() error {
	err := g.parts.Wait()
	Raise(err)
	return err
}

// panicked is what a goroutine panicked with, and where.
type panicked string

// Error implements error.
func (p panicked) Error() string { return string(p) }

// Caught is deferred by goroutines that somebody waits for: it makes a panic their error.
func Caught(err *error) {
	if p := recover(); p != nil {
		*err = panicked(fmt.Sprintf("%v\n%s", p, debug.Stack()))
	}
}

// Panicked says whether err is a panic that was caught.
func Panicked(err error) bool {
	_, ok := errors.AsType[panicked](err)
	return ok
}

// Raise panics again where a panic that was caught is waited for.
func Raise(err error) {
	if p, ok := errors.AsType[panicked](err); ok {
		panic("BUG: " + string(p))
	}
}
