package app

import "sync"

// part is one thing of a process, built when the first other part asks for it. A builder calls
// the builders of what it needs, so Go's call graph is the dependency graph.
type part[T any] struct {
	once sync.Once
	v    T
	err  error
}

func (p *part[T]) get(build func() (T, error)) (T, error) {
	p.once.Do(func() { p.v, p.err = build() })
	return p.v, p.err
}
