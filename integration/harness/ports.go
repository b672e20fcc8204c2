package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// loopback is the only address the harness listens on.
const loopback = "127.0.0.1"

// Ports hands out free TCP ports of the loopback address, none twice. A port is free when it is
// handed out; nothing keeps another program from taking it before it is used. The zero value
// hands out any ports, and none that another zero value of this process hands out.
type Ports struct {
	given *given
}

type given struct {
	mu    sync.Mutex // guards what follows
	ports map[int]bool
	next  int // 0: any
}

// anyPorts are those that zero values handed out: set-ups that run beside each other must not be given
// the same.
var anyPorts = &given{ports: map[int]bool{}}

// Any port is one of these. The kernel gives those above to connections that go out, of which there may be
// one by the time that a process wants to listen.
const firstAny, endAny = 10_000, 32_768

// candidate is a port to try.
func (g *given) candidate() int {
	if g.next > 0 {
		return g.next
	}
	return firstAny + rand.IntN(endAny-firstAny)
}

// PortsFrom hands out free ports in order, from first on, so that a set-up started again in the
// same way has the same ports.
func PortsFrom(first int) Ports { return Ports{&given{next: first, ports: map[int]bool{}}} }

// Free returns n ports.
func (p *Ports) Free(n int) ([]int, error) {
	if p.given == nil {
		p.given = anyPorts
	}
	g := p.given
	g.mu.Lock()
	defer g.mu.Unlock()
	var ports []int
	var open []net.Listener
	tries := 0
	defer func() {
		for _, l := range open {
			_ = l.Close()
		}
	}()
	for len(ports) < n {
		if g.next > maxPort {
			return nil, fmt.Errorf("find %d free ports: none left", n)
		}
		at := g.candidate()
		if l, err := net.Listen("tcp", address(at)); err == nil {
			open = append(open, l) // kept until the end, or it would be free once more
			if !g.ports[at] {
				g.ports[at] = true
				ports = append(ports, at)
			}
		} else if tries++; g.next == 0 && tries > mostTaken {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		if g.next > 0 {
			g.next++
		}
	}
	return ports, nil
}

const maxPort = 1<<16 - 1

// mostTaken bounds the ports that are tried and taken.
const mostTaken = 1000

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
