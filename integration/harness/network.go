package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
)

// ErrNoNetwork is in the chain of errors of machines on which networks cannot be made.
var ErrNoNetwork = errors.New("networks need Linux, root and the program ip")

// Network is a set of machines, played by network namespaces, that reach each other over one wire,
// which can be parted into two. This process reaches all of them by another wire, always.
type Network struct {
	prefix   string // of the names of interfaces, so that two networks do not meet
	machines []*Machine
}

// Machine is one machine of a Network.
type Machine struct {
	Addr    string // among the machines
	Outside string // from this process

	namespace string
	wire      string // this end of its cable to the others
	view      string // and of the one to this process
}

// The two halves that a network can be parted into, and the wire of this process.
const (
	halfA, halfB, outside = "a", "b", "o"
)

// NewNetwork makes a network of n machines. Close it, also when an error is returned with it.
// Errors: ErrNoNetwork.
func NewNetwork(n int) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNoNetwork
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, ErrNoNetwork
	}
	w := &Network{prefix: fmt.Sprintf("am%05d", rand.IntN(100_000))}
	k := strconv.Itoa(rand.IntN(250) + 1)
	if err := w.ip("link", "add", w.prefix+outside, "type", "bridge"); err != nil {
		return w, fmt.Errorf("%w: %w", ErrNoNetwork, err) // a container may not
	}
	for _, half := range []string{halfA, halfB} {
		if err := errors.Join(w.ip("link", "add", w.prefix+half, "type", "bridge"), w.ip("link", "set", w.prefix+half, "up")); err != nil {
			return w, err
		}
	}
	if err := errors.Join(w.ip("addr", "add", "10.214."+k+".1/24", "dev", w.prefix+outside), w.ip("link", "set", w.prefix+outside, "up")); err != nil {
		return w, err
	}
	for i := range n {
		last := strconv.Itoa(i + 2)
		m := &Machine{Addr: "10.213." + k + "." + last, Outside: "10.214." + k + "." + last,
			namespace: w.prefix + "-" + last, wire: w.prefix + "w" + last, view: w.prefix + "v" + last}
		w.machines = append(w.machines, m)
		if err := w.build(m); err != nil {
			return w, err
		}
	}
	return w, nil
}

// build makes the namespace of m with its two cables.
func (w *Network) build(m *Machine) error {
	if err := w.ip("netns", "add", m.namespace); err != nil {
		return err
	}
	cable := func(end, name, addr, bridge string) error {
		return errors.Join(
			w.ip("link", "add", end, "type", "veth", "peer", "name", name, "netns", m.namespace),
			w.ip("link", "set", end, "master", bridge, "up"),
			w.ip("-n", m.namespace, "addr", "add", addr+"/24", "dev", name),
			w.ip("-n", m.namespace, "link", "set", name, "up"))
	}
	return errors.Join(cable(m.wire, "eth0", m.Addr, w.prefix+halfA), cable(m.view, "eth1", m.Outside, w.prefix+outside),
		w.ip("-n", m.namespace, "link", "set", "lo", "up"))
}

// Machine returns machine i.
func (w *Network) Machine(i int) *Machine { return w.machines[i] }

// Part cuts machines off from the others; among themselves they still reach each other.
func (w *Network) Part(machines ...*Machine) error { return w.move(halfB, machines) }

// Heal joins the halves.
func (w *Network) Heal() error { return w.move(halfA, w.machines) }

func (w *Network) move(half string, machines []*Machine) error {
	var problems []error
	for _, m := range machines {
		problems = append(problems, w.ip("link", "set", m.wire, "master", w.prefix+half))
	}
	return errors.Join(problems...)
}

// Close takes the network away; nothing may run on it any more.
func (w *Network) Close() error {
	if w == nil {
		return nil
	}
	var problems []error
	for _, m := range w.machines {
		// The namespace goes when the last process in it has ended, and its cables with it; they are in
		// nobody's way only if they are gone now.
		problems = append(problems, w.ip("link", "del", m.wire), w.ip("link", "del", m.view), w.ip("netns", "del", m.namespace))
	}
	for _, bridge := range []string{halfA, halfB, outside} {
		problems = append(problems, w.ip("link", "del", w.prefix+bridge))
	}
	return errors.Join(problems...)
}

func (w *Network) ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// on returns the program and its first arguments that run path on m, which may be nil: here.
func (m *Machine) on(path string) (string, []string) {
	if m == nil {
		return path, nil
	}
	program, err := exec.LookPath("ip")
	if err != nil {
		program = "ip" // starting it fails and says why
	}
	return program, []string{"netns", "exec", m.namespace, path}
}

// join returns host:port among the machines of a network, or on the loopback address.
func (m *Machine) join(port int) string {
	if m == nil {
		return address(port)
	}
	return net.JoinHostPort(m.Addr, strconv.Itoa(port))
}

// Seen returns host:port as this process reaches it.
func (m *Machine) Seen(port int) string {
	if m == nil {
		return address(port)
	}
	return net.JoinHostPort(m.Outside, strconv.Itoa(port))
}
