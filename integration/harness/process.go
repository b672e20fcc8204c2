package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take between SIGTERM and its end. An ingester that
// uploads its blocks needs seconds; one that needs longer than this is stuck.
const stopTimeout = 60 * time.Second

// startTimeout is how long the servers beside the product may take until they answer.
const startTimeout = 30 * time.Second

// tailBytes is how much of a log an error quotes.
const tailBytes = 4 << 10

// Process is one program that can be started, stopped, killed and started again with the same
// arguments. Its output goes to one file, which grows over restarts. Its methods may be called
// from several goroutines.
type Process struct {
	Name    string
	LogFile string

	log *slog.Logger
	env []string

	mu     sync.Mutex // guards what follows
	path   string
	args   []string
	cmd    *exec.Cmd
	done   chan struct{} // closed when cmd has ended and exit is set
	exit   error
	ending bool // the end of cmd was asked for
	starts int
}

// Command says what to run.
type Command struct {
	Name    string
	Path    string   // absolute
	Args    []string // not the program itself
	Env     []string // added to the environment of this process
	LogFile string   // absolute; its directory is the working directory
}

// NewProcess returns a process that has not been started.
func NewProcess(log *slog.Logger, c Command) *Process {
	return &Process{Name: c.Name, LogFile: c.LogFile, log: log, path: c.Path, args: c.Args, env: c.Env}
}

// Become changes what the next Start runs, as an upgrade does.
func (p *Process) Become(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path = path
}

// setArgs changes what the next Start passes.
func (p *Process) setArgs(args []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.args = args
}

// Start runs the process. It does not wait until the process serves. A running process is left
// alone.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p.LogFile), 0o700); err != nil {
		return fmt.Errorf("make the directory of the log of %s: %w", p.Name, err)
	}
	out, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = filepath.Dir(p.LogFile)
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.done, p.exit, p.ending = cmd, make(chan struct{}), nil, false
	p.starts++
	p.log.Info("process started", "name", p.Name, "pid", cmd.Process.Pid)
	go p.reap(cmd, p.done)
	return nil
}

func (p *Process) reap(cmd *exec.Cmd, done chan struct{}) {
	err := cmd.Wait()
	p.mu.Lock()
	p.exit = err
	ending := p.ending
	p.mu.Unlock()
	close(done)
	if ending {
		p.log.Info("process ended", "name", p.Name, "state", cmd.ProcessState.String())
	} else {
		p.log.Warn("process ended by itself, see its log", "name", p.Name, "state", cmd.ProcessState.String(), "log", p.LogFile, "ends", p.lastWords())
	}
}

// running needs p.mu.
func (p *Process) running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// PID returns the process's ID, or 0 if it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Starts returns how often the process was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Done returns a channel that is closed when the process ends; of a process that does not run
// it is closed already.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return p.done
}

// Signal sends sig, for example syscall.SIGSTOP and SIGCONT to play a machine that hangs.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.signal(sig, sig == syscall.SIGTERM || sig == syscall.SIGKILL)
}

func (p *Process) signal(sig syscall.Signal, ending bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	p.ending = p.ending || ending
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s: %w", sig, p.Name, err)
	}
	return nil
}

// Stop asks the process to end and waits for it. An error says that it had to be killed, or that
// it ended with a status other than 0.
func (p *Process) Stop() error {
	if p.PID() == 0 {
		return nil
	}
	if err := p.signal(syscall.SIGTERM, true); err != nil {
		return err
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.Done():
	case <-timer.C:
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM\n%s", p.Name, stopTimeout, p.Tail()), p.Kill())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit != nil {
		return fmt.Errorf("%s, asked to stop, ended badly: %w", p.Name, p.exit)
	}
	return nil
}

// Kill ends the process at once, as a crash of the machine would, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL, true); err != nil {
		return err
	}
	<-p.Done()
	return nil
}

// Restart stops the process and starts it again.
func (p *Process) Restart() error {
	return errors.Join(p.Stop(), p.Start())
}

// Tail returns the end of the log.
func (p *Process) Tail() string {
	f, err := os.Open(p.LogFile)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(data), "?")
}

// raceReport is how the race detector begins what it has to say.
const raceReport = "WARNING: DATA RACE"

// Races returns an error with the first report of the race detector in the log, nil if there is none:
// a process that was killed could not end with the status that says so.
func (p *Process) Races() error {
	report, err := p.passage(raceReport)
	if report == "" {
		return err
	}
	return errors.New(p.Name + ": " + report)
}

// passage returns the lines of the log from the first that begins with one of these, but not all that
// follow; "" if there is none, or no log.
func (p *Process) passage(begins ...string) (string, error) {
	f, err := os.Open(p.LogFile)
	if err != nil {
		return "", nil // it was never started
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if !slices.ContainsFunc(begins, func(s string) bool { return strings.HasPrefix(lines.Text(), s) }) {
			continue
		}
		report := []string{lines.Text()}
		for len(report) < 60 && lines.Scan() {
			report = append(report, lines.Text())
		}
		return strings.Join(report, "\n"), nil
	}
	return "", lines.Err()
}

// lastWords is why the process ended by itself, as far as its log says.
func (p *Process) lastWords() string {
	if words, err := p.passage("panic:", "fatal error:"); err == nil && words != "" {
		return words
	}
	return p.Tail()
}

// until polls ok until it returns nil. It gives up when ctx is done or the process ends, and then
// says why and how the log ends.
func (p *Process) until(ctx context.Context, what string, ok func(context.Context) error) error {
	done := p.Done()
	err := Poll(ctx, func(ctx context.Context) error {
		select {
		case <-done:
			return Giveup(errors.New("the process has ended"))
		default:
			return ok(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("wait for %s to %s: %w\n%s", p.Name, what, err, p.Tail())
	}
	return nil
}
