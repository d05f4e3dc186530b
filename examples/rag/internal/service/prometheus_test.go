package service

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/failfast-go/breaker"
)

// What the library ships for those who watch it.
const (
	dashboardFile = "../../../../deploy/grafana/breaker.json"
	alertsFile    = "../../../../deploy/prometheus/alerts.yaml"
	readmeFile    = "../../../../README.md"
)

// An outage in a minute: it opens at once, probes each second, and forgets slow calls in five.
const hasty = `
circuit_breaker:
  default: {failure_threshold: 3, window_seconds: 5, timeout_seconds: 1, max_timeout_seconds: 1, timeout_jitter: 0, success_threshold: 1}
  services:
    llm: {slow_call_duration_threshold: 400ms, slow_call_rate_threshold: off}
`

// TestTheDashboardAndTheAlertsOnARealPrometheus scrapes the service through slow answers, an outage, a hold and a few relapses. Each
// alert must fire and resolve, and at the end each query of the dashboard must have had an answer. BreakerHeld, which takes a
// day, is seen pending here and tested to the end in deploy/prometheus/alerts_test.yaml, as BreakerUnregistered is.
func TestTheDashboardAndTheAlertsOnARealPrometheus(t *testing.T) {
	r := start(t, hasty, func(c *Config) { c.Limits.Model = 5 * time.Second })
	checkMetrics(t, r.url+"/metrics")
	p := startPrometheus(t, r.url)
	began := time.Now()
	stop := r.traffic()
	defer stop()

	p.wait(t, `count_over_time(breaker_slow_call_rate{name="llm"}[60s] offset 5s) > 10`)
	r.play(t, LLM, `{"fault": "slow", "delay": "500ms"}`)
	p.waitFiring(t, "BreakerSlowRateRising")

	r.play(t, LLM, `{"fault": "503"}`)
	r.breakers.Breaker(Database).ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
	p.wait(t, `ALERTS{alertname="BreakerHeld",alertstate="pending",name="database"}`)
	r.breakers.Breaker(Database).Release()
	p.waitFiring(t, "BreakerOpen", "BreakerRefusing", "BreakerFallbackAnswers")

	for relapses := 0; !p.firing(t)["BreakerFlapping"]; relapses++ {
		require.Less(t, relapses, 10, "BreakerFlapping does not fire")
		r.play(t, LLM, `{"fault": "none"}`)
		p.wait(t, `breaker_state{name="llm",state="closed"} == 1`)
		r.play(t, LLM, `{"fault": "503"}`)
		p.wait(t, `breaker_state{name="llm",state="open"} == 1`)
	}
	r.play(t, LLM, `{"fault": "none"}`)
	require.Eventually(t, func() bool { return len(p.firing(t)) == 0 }, patience, poll, "every alert resolves")

	for _, q := range append(dashboardQueries(t), readmeQueries(t)...) {
		assert.Positive(t, p.samples(t, q.expr, began), "%q has no data: %s", q.title, q.expr)
	}
	for alert, expr := range p.rules(t) {
		if alert != "BreakerUnregistered" {
			assert.Positive(t, p.samples(t, `ALERTS{alertname="`+alert+`"}`, began), "%s was never active: %s", alert, expr)
		}
	}
}

// patience is for a machine that does much else at once; everything usually takes a minute together.
const (
	patience = 5 * time.Minute
	poll     = 100 * time.Millisecond
)

// program returns the path of one of Debian's prometheus package, which CI installs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed, and CI=true: .ci/run installs Debian's package prometheus", name)
	}
	t.Skipf("%s is not installed: apt-get install prometheus", name)
	return ""
}

func TestTheAlertRules(t *testing.T) {
	promtool := program(t, "promtool")
	dir := filepath.Dir(alertsFile)
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		run := exec.Command(promtool, args...)
		run.Dir = dir
		out, err := run.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	tests, err := os.ReadFile(filepath.Join(dir, "alerts_test.yaml"))
	require.NoError(t, err)
	for alert := range readRules(t) {
		assert.Contains(t, string(tests), "alertname: "+alert+"\n", "no test fires it")
		assert.Contains(t, string(tests), "alertname: "+alert+"}", "no test has it silent")
	}
}

// checkMetrics has promtool look at what is served.
func checkMetrics(t *testing.T, url string) {
	t.Helper()
	reply, err := http.Get(url)
	require.NoError(t, err)
	defer reply.Body.Close()
	check := exec.Command(program(t, "promtool"), "check", "metrics")
	check.Stdin = reply.Body
	out, err := check.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
}

// readRules returns the alerts' expressions by name.
func readRules(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	rules := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules[r.Alert] = r.Expr
		}
	}
	require.Len(t, rules, 7)
	return rules
}

var duration = regexp.MustCompile(`(\[|:|offset |for: )(\d+)([mhd])\b`)

// hastened makes each duration in the rules a sixtieth: minutes become seconds, hours minutes, days 24 minutes. Nothing else
// changes, so what is tested is what is shipped, on a clock that runs faster.
func hastened(rules string) string {
	return duration.ReplaceAllStringFunc(rules, func(found string) string {
		m := duration.FindStringSubmatch(found)
		n, _ := strconv.Atoi(m[2])
		if m[3] == "d" {
			n *= 24
		}
		return m[1] + strconv.Itoa(n) + map[string]string{"m": "s", "h": "m", "d": "m"}[m[3]]
	})
}

type query struct{ title, expr string }

// dashboardQueries returns every query of every panel, with Grafana's variables replaced as it does for everything chosen.
func dashboardQueries(t *testing.T) (queries []query) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	variables := strings.NewReplacer("$job", ".*", "$name", ".*", "$__rate_interval", "2s", "$__range_s", "60", "$__range", "60s", "$__interval", "1s")
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			expr := variables.Replace(target.Expr)
			require.NotContains(t, expr, "$", panel.Title)
			queries = append(queries, query{panel.Title, expr})
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

// readmeQueries returns the queries that README.md has for an operator's questions.
func readmeQueries(t *testing.T) (queries []query) {
	t.Helper()
	text, err := os.ReadFile(readmeFile)
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "| question | query |\n|---|---|\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range regexp.MustCompile("(?m)^\\| (.+?) \\| `(.+)` \\|$").FindAllStringSubmatch(table, -1) {
		queries = append(queries, query{row[1], hastened(strings.ReplaceAll(row[2], `\|`, "|"))})
	}
	require.Len(t, queries, 7)
	return queries
}

// traffic asks questions until it is stopped: some that the cache knows, some new, some that a rule answers.
func (r *rig) traffic() (stop func()) {
	done := make(chan struct{})
	var users sync.WaitGroup
	for user := range 4 {
		users.Go(func() {
			for n := 0; ; n++ {
				question := []string{mutex, fmt.Sprintf("How do I sort a slice, user %d, question %d?", user, n), "hello"}[n%3]
				if reply, err := http.Post(r.url+"/chat", "application/json", strings.NewReader(`{"message": `+quote(question)+`}`)); err == nil {
					_, _ = io.Copy(io.Discard, reply.Body)
					reply.Body.Close()
				}
				select {
				case <-done:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(done); users.Wait() })
}

// prom is a real Prometheus that scrapes and evaluates five times a second.
type prom struct{ url string }

func startPrometheus(t *testing.T, target string) *prom {
	t.Helper()
	binary := program(t, "prometheus")
	dir := t.TempDir()
	rules, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("alerts.yaml", hastened(string(rules)))
	write("prometheus.yml", `
global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: rag
    static_configs: [{targets: ["`+strings.TrimPrefix(target, "http://")+`"]}]
`)
	address := freeAddress(t)
	server := exec.Command(binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	log := &strings.Builder{}
	server.Stdout, server.Stderr = log, log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(log)
		}
	})
	p := &prom{"http://" + address}
	require.Eventually(t, func() bool {
		reply, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		reply.Body.Close()
		return reply.StatusCode == 200
	}, patience, poll, "Prometheus does not start")
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// get asks Prometheus' API.
func (p *prom) get(t *testing.T, path string, params url.Values, into any) {
	t.Helper()
	reply, err := http.Get(p.url + "/api/v1/" + path + "?" + params.Encode())
	require.NoError(t, err)
	defer reply.Body.Close()
	var answer struct {
		Status string
		Error  string
		Data   json.RawMessage
	}
	require.NoError(t, json.NewDecoder(reply.Body).Decode(&answer))
	require.Equal(t, "success", answer.Status, "%s: %s", params, answer.Error)
	require.NoError(t, json.Unmarshal(answer.Data, into))
}

// wait returns once the query has a result.
func (p *prom) wait(t *testing.T, query string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var data struct{ Result []json.RawMessage }
		p.get(t, "query", url.Values{"query": {query}}, &data)
		return len(data.Result) > 0
	}, patience, poll, query)
}

func (p *prom) waitFiring(t *testing.T, alerts ...string) {
	t.Helper()
	for _, alert := range alerts {
		require.Eventually(t, func() bool { return p.firing(t)[alert] }, patience, poll, "%s does not fire", alert)
	}
}

func (p *prom) firing(t *testing.T) map[string]bool {
	t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	p.get(t, "alerts", nil, &data)
	names := map[string]bool{}
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names[a.Labels["alertname"]] = true
		}
	}
	return names
}

// samples returns how many values the query had since began, five a second.
func (p *prom) samples(t *testing.T, query string, began time.Time) (n int) {
	t.Helper()
	var data struct {
		Result []struct{ Values [][2]any } // time and text
	}
	at := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	p.get(t, "query_range", url.Values{"query": {query}, "start": {at(began)}, "end": {at(time.Now())}, "step": {"0.2"}}, &data)
	for _, series := range data.Result {
		for _, v := range series.Values {
			if v[1] != "NaN" {
				n++
			}
		}
	}
	return n
}

// rules returns the expressions of the alerts as Prometheus has them, all of which it must be able to evaluate.
func (p *prom) rules(t *testing.T) map[string]string {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError string }
		}
	}
	p.get(t, "rules", nil, &data)
	exprs := map[string]string{}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
			exprs[r.Name] = r.Query
		}
	}
	require.Len(t, exprs, len(readRules(t)))
	return exprs
}
