package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // for the parts
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// partVariable names the part that this process plays in a test whose parts are processes apart.
const partVariable = "GATEWAY_TEST_PART"

// parts are run with the process's arguments, and end with its standard input.
var parts = map[string]func(args []string){
	"gateway": playGateway, "proxy": playProxy, "upstream": playUpstream, "load": playLoad, "endless": playEndless, "streams": playStreams,
}

// TestMain plays a part, or runs the tests and fails when they leave a goroutine behind.
func TestMain(m *testing.M) {
	if play := parts[os.Getenv(partVariable)]; play != nil {
		allowFiles()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
		play(os.Args[1:])
		os.Exit(0)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil { // they wait more than they work
		fmt.Fprintln(os.Stderr, err)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind by the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// allowFiles raises the limit on open files as far as it goes, and returns it.
func allowFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	limit.Cur = limit.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	return limit.Cur
}

// process is a part that runs.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

// start runs this test binary as a part.
func start(t testing.TB, part string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(self, args...)}
	p.cmd.Env = append(os.Environ(), partVariable+"="+part, "TEAM_KEY="+teamKey, "ONE_KEY="+oneKey, "TWO_KEY="+twoKey)
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.lines = bufio.NewScanner(stdout)
	p.cmd.Stderr = os.Stderr
	if part == "gateway" {
		p.cmd.Stderr = nil // a line for each answer that broke
	}
	require.NoError(t, p.cmd.Start())
	t.Cleanup(p.kill)
	return p
}

// kill ends the process as a crash does. The kernel ends its connections.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// line returns what the part says next.
func (p *process) line() string {
	p.t.Helper()
	require.True(p.t, p.lines.Scan(), "the part ended: %v", p.lines.Err())
	return p.lines.Text()
}

// say writes a line for the test.
func say(v any) {
	if text, ok := v.(string); ok {
		fmt.Println(text)
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(v)
}

// fail ends a part that cannot play on.
func fail(err error) {
	fmt.Fprintln(os.Stderr, os.Getenv(partVariable)+":", err)
	os.Exit(1)
}

// listen returns a listener on loopback, and says its address.
func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	say(l.Addr().String())
	return l
}

// vitals are what a process must not lose.
type vitals struct{ Goroutines, Files int }

// playGateway runs the gateway as it is, with the configuration of a file. Beside its own address it says one for its vitals and
// profiles.
func playGateway(args []string) {
	http.HandleFunc("/vitals", func(w http.ResponseWriter, _ *http.Request) {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		runtime.GC()
		_ = json.NewEncoder(w).Encode(vitals{runtime.NumGoroutine(), len(files)})
	})
	inside := listen()
	go func() { fail(http.Serve(inside, nil)) }() //nolint:gosec // for one caller, on loopback
	place := freeAddress()
	go func() {
		for {
			if conn, err := net.Dial("tcp", place); err == nil {
				conn.Close()
				say(place)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if err := run(context.Background(), args[0], place); err != nil {
		fail(err)
	}
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// gatewayProcess is a gateway in a process apart.
type gatewayProcess struct {
	*process
	url, inside string
}

func startGateway(t testing.TB, config string) *gatewayProcess {
	t.Helper()
	file := t.TempDir() + "/gateway.yaml"
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	p := start(t, "gateway", file)
	g := &gatewayProcess{process: p, inside: "http://" + p.line()}
	g.url = "http://" + p.line()
	return g
}

func (g *gatewayProcess) vitals() (v vitals) {
	g.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(g.inside + "/vitals")
	require.NoError(g.t, err, "the gateway is gone")
	defer resp.Body.Close()
	require.NoError(g.t, json.NewDecoder(resp.Body).Decode(&v))
	return v
}

func trimURL(url string) string { return strings.TrimPrefix(url, "http://") }
