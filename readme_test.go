package breaker

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func readREADME(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// blocks returns the fenced blocks of README.md in that language.
func blocks(t *testing.T, language string) (found []string) {
	t.Helper()
	for _, m := range fence.FindAllStringSubmatch(readREADME(t), -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// TestREADMECodeIsCompiled wants every Go block to stand, line by line, in a file that the tests compile: the examples of this
// package or of alert, whose output is checked too, or a program of examples/.
func TestREADMECodeIsCompiled(t *testing.T) {
	files := []string{"example_test.go", "alert/example_test.go"}
	_ = filepath.WalkDir("examples", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return nil
	})
	var code []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		code = append(code, unindent(string(text)))
	}
	all := blocks(t, "go")
	require.NotEmpty(t, all)
	for _, block := range all {
		if want := unindent(block); !strings.Contains(strings.Join(code, "\n"), "\n"+want) {
			t.Errorf("this block is in none of %q:\n%s", files, block)
		}
	}
}

// TestREADMEOutputIsReal wants every block of plain text or JSON to be in what an example prints.
func TestREADMEOutputIsReal(t *testing.T) {
	text, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	printed := unindent(strings.ReplaceAll(unindent(string(text)), "\n// ", "\n"))
	for _, block := range append(blocks(t, "text"), blocks(t, "json")...) {
		require.Contains(t, printed, "\n"+unindent(block))
	}
}

// TestREADMEYAMLIsValid reads every YAML block as a file.
func TestREADMEYAMLIsValid(t *testing.T) {
	all := blocks(t, "yaml")
	require.NotEmpty(t, all)
	for _, block := range all {
		_, err := ParseFile([]byte(block))
		require.NoError(t, err)
	}
}

// unindent drops the indentation of each line: a block begins at the margin, its code in a function.
func unindent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, "\t"))
	}
	return b.String()
}

var testName = regexp.MustCompile(`\b(?:Test|Fuzz|Example)[A-Z]\w+`)

// TestGuaranteesNameRealTests: a guarantee is as good as the tests named beside it.
func TestGuaranteesNameRealTests(t *testing.T) {
	defined := map[string]bool{}
	names, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	nested, err := filepath.Glob("proof/*_test.go")
	require.NoError(t, err)
	for _, name := range append(names, nested...) {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				defined[fn.Name.Name] = true
			}
		}
	}
	text, err := os.ReadFile("docs/guarantees.md")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| (\d) \|.*$`).FindAllString(string(text), -1)
	require.Len(t, rows, 9, "each guarantee has a row")
	for _, row := range rows {
		require.Regexp(t, testName, row)
	}
	for _, name := range testName.FindAllString(string(text), -1) {
		require.True(t, defined[name], "docs/guarantees.md names %s, which is no test", name)
	}
}

var zeroMeans = regexp.MustCompile(`(?i)\bzero means (.+?)[.:]( |$)`)

// TestREADMEConfigTable holds the table to the code: names, keys and ranges are those of the settings, defaults what the
// fields' comments say, which in turn must begin with the real ones. With -update it is written again.
func TestREADMEConfigTable(t *testing.T) {
	comments := fieldComments(t)
	var table strings.Builder
	table.WriteString("| field | YAML key | default | allowed |\n|---|---|---|---|\n")
	require.Len(t, settings, reflect.TypeFor[Config]().NumField())
	for i := range settings {
		s := &settings[i]
		name := fieldName(s)
		comment := strings.Join(strings.Fields(comments[name]), " ")
		require.Regexp(t, `YAML: `+s.key+`\b`, comment, "the comment of %s", name)
		means := zeroMeans.FindStringSubmatch(comment)
		require.NotNil(t, means, "the comment of %s does not say what zero means", name)
		require.True(t, strings.HasPrefix(means[1], defaultText(t, s)), "zero %s means %s, its comment says %s", name, defaultText(t, s), means[1])
		fmt.Fprintf(&table, "| `%s` | `%s` | %s | %s |\n", name, s.key, strings.TrimPrefix(means[1], "that "), s.want)
	}
	replaceTable(t, "config", table.String())
}

// defaultText is how the comments write the default of s. It is empty for none.
func defaultText(t *testing.T, s *setting) string {
	t.Helper()
	cfg := Config{SlowCallDuration: time.Second} // without one the slow-call rate is off too
	if s.key == "slow_call_duration_threshold" {
		cfg = Config{}
	}
	cfg, err := cfg.resolve()
	require.NoError(t, err)
	switch v := reflect.ValueOf(s.field(&cfg)).Elem(); d := v.Interface().(type) {
	case time.Duration:
		switch {
		case d == Off:
			return "Off"
		case d >= time.Minute:
			return fmt.Sprintf("%g min", d.Minutes())
		case d > 0:
			return fmt.Sprintf("%g s", d.Seconds())
		}
		return ""
	default:
		return fmt.Sprint(d)
	}
}

// fieldName finds the field of Config that s points to.
func fieldName(s *setting) string {
	var c Config
	of := reflect.ValueOf(&c).Elem()
	for i := range of.NumField() {
		if of.Field(i).Addr().Pointer() == reflect.ValueOf(s.field(&c)).Pointer() {
			return of.Type().Field(i).Name
		}
	}
	return ""
}

func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	_, pkg := parsePackage(t)
	comments := map[string]string{}
	for _, typ := range pkg.Types {
		if typ.Name != "Config" {
			continue
		}
		for _, f := range typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType).Fields.List {
			comments[f.Names[0].Name] = f.Doc.Text()
		}
	}
	return comments
}

// replaceTable compares what stands between two markers of README.md with what should, or writes it with -update.
func replaceTable(t *testing.T, marker, table string) {
	t.Helper()
	begin, end := "<!-- "+marker+":begin -->\n", "<!-- "+marker+":end -->"
	before, rest, found := strings.Cut(readREADME(t), begin)
	require.True(t, found, "README.md has no %s", begin)
	old, after, found := strings.Cut(rest, end)
	require.True(t, found, "README.md has no %s", end)
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(before+begin+table+end+after), 0o644))
		return
	}
	require.Equal(t, table, old, "README.md: go test -run %s -update", t.Name())
}

// TestREADMERiskTable holds the table of weights to the code. With -update it is written again.
func TestREADMERiskTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| part | points | because |\n|---|---|---|\n")
	var sum float64
	for _, p := range riskParts {
		sum += p.weight
		fmt.Fprintf(&table, "| %s | up to %g | %s. |\n", p.name, p.weight, p.why)
	}
	require.InDelta(t, 100, sum, 0)
	table.WriteString("\n| state | points |\n|---|---|\n")
	for s, r := range stateRisks {
		fmt.Fprintf(&table, "| `%s` | %g |\n", State(s), r.fraction*riskParts[0].weight)
	}
	fmt.Fprintf(&table, "| `closed`, in a ramp | %g |\n", rampRisk*riskParts[0].weight)
	defaults := RiskThresholds{}.resolve(&Config{})
	fmt.Fprintf(&table, "\n| level | from | because |\n|---|---|---|\n")
	fmt.Fprintf(&table, "| `%s` | 0 | nothing to do |\n", RiskLow)
	fmt.Fprintf(&table, "| `%s` | %d | four failures in a row of five, a recovery in a ramp, a hold |\n", RiskMedium, defaults.Medium)
	fmt.Fprintf(&table, "| `%s` | %d | any opening: callers are refused |\n", RiskHigh, defaults.High)
	fmt.Fprintf(&table, "| `%s` | %d | an opening by failures that a second trial could not end, or that refused a tenth of all calls |\n", RiskCritical, defaults.Critical)
	replaceTable(t, "risk", table.String())
}

var (
	tableRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:a )?([a-z]+)")
	zapTypes = map[string]string{
		"String": "text", "Stringer": "text", "Error": "text", "Int": "number", "Uint64": "number", "Float64": "number",
		"Duration": "duration", "Any": "list",
	}
	logLevels = []string{"Debug", "Info", "Warn", "Error"}
)

// TestEveryLogLineAndFieldIsDocumented compares the tables of docs/logs.md with the calls of zap in the code.
func TestEveryLogLineAndFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/logs.md")
	require.NoError(t, err)
	documented := map[string]string{} // the level of a message, the type of a field
	for _, row := range tableRow.FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	written := map[string]string{}
	for _, s := range []State{StateHalfOpen, StateClosed, StateDisabled} { // these messages are put together
		written["circuit breaker "+strings.ReplaceAll(s.String(), "_", "-")] = "info"
	}
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				noteLogged(call, written)
			}
			return true
		})
	}
	require.Equal(t, written, documented)
}

// noteLogged enters a call of zap: a field with its type, or a line with its level.
func noteLogged(call *ast.CallExpr, written map[string]string) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return
	}
	pkg, _ := method.X.(*ast.Ident)
	first, literal := call.Args[0].(*ast.BasicLit)
	switch isZap := pkg != nil && pkg.Name == "zap"; {
	case isZap && method.Sel.Name == "Error":
		written["error"] = "text"
	case isZap && literal:
		written[strings.Trim(first.Value, `"`)] = zapTypes[method.Sel.Name]
	case literal && slices.Contains(logLevels, method.Sel.Name) && strings.HasPrefix(first.Value, `"circuit breaker`):
		written[strings.Trim(first.Value, `"`)] = strings.ToLower(method.Sel.Name)
	}
}

// TestREADMEMetricsTable wants each metric of the collector in the table, and none that it does not have.
func TestREADMEMetricsTable(t *testing.T) {
	described := make(chan *prometheus.Desc, 100)
	(collector{}).Describe(described)
	close(described)
	var want []string
	for d := range described {
		want = append(want, regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1])
	}
	_, section, _ := strings.Cut(readREADME(t), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for _, m := range regexp.MustCompile("`(breaker_\\w+)`").FindAllStringSubmatch(cells[1], -1) {
				got = append(got, m[1])
			}
		}
	}
	require.ElementsMatch(t, want, got)
}
