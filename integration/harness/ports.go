package harness

import (
	"fmt"
	"net"
	"strconv"
	"sync"
)

// loopback is the only address the harness listens on.
const loopback = "127.0.0.1"

// Ports hands out free TCP ports of the loopback address, none twice. A port is free when it is
// handed out; nothing keeps another program from taking it before it is used. The zero value
// hands out any ports.
type Ports struct {
	given *given
}

type given struct {
	mu    sync.Mutex // guards what follows
	ports map[int]bool
	next  int // 0: any
}

// PortsFrom hands out free ports in order, from first on, so that a set-up started again in the
// same way has the same ports.
func PortsFrom(first int) Ports { return Ports{&given{next: first, ports: map[int]bool{}}} }

// Free returns n ports.
func (p *Ports) Free(n int) ([]int, error) {
	if p.given == nil {
		p.given = &given{ports: map[int]bool{}}
	}
	g := p.given
	g.mu.Lock()
	defer g.mu.Unlock()
	var ports []int
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close()
		}
	}()
	for len(ports) < n {
		if g.next > maxPort {
			return nil, fmt.Errorf("find %d free ports: none left", n)
		}
		l, err := net.Listen("tcp", address(g.next))
		switch {
		case err != nil && g.next == 0:
			return nil, fmt.Errorf("find a free port: %w", err)
		case err == nil:
			open = append(open, l) // kept until the end, or the kernel would offer it again
			if port := l.Addr().(*net.TCPAddr).Port; !g.ports[port] {
				g.ports[port] = true
				ports = append(ports, port)
			}
		}
		if g.next > 0 {
			g.next++
		}
	}
	return ports, nil
}

const maxPort = 1<<16 - 1

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
