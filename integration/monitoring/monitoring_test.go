package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/eventually"
)

const (
	alertsFile    = "../../internal/packaging/monitoring/alerts.yml"
	dashboardFile = "../../internal/packaging/monitoring/dashboard.json"
	writeMetrics  = "../../internal/packaging/write-metrics"
	metricsUnit   = "../../systemd/knockwall-metrics.service"
)

// metricsFile returns the path of the file to which the package's unit writes the metrics.
func metricsFile(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(metricsUnit)
	lab.Must(t, err)
	folder := regexp.MustCompile(`(?m)^Environment=FOLDER=(/\S+)$`).FindSubmatch(text)
	file := regexp.MustCompile(`(?m)^ExecStart=\S+/write-metrics \$\{FOLDER\}(/\S+)$`).FindSubmatch(text)
	if folder == nil || file == nil {
		t.Fatalf("%s does not say where write-metrics writes:\n%s", metricsUnit, text)
	}
	return string(folder[1]) + string(file[1])
}

// Whatever names the file of the metrics names the one that is written.
func TestTheFileOfTheMetricsHasOneName(t *testing.T) {
	t.Parallel()
	file := metricsFile(t)
	for _, path := range []string{
		"testdata/alerts.test.yml", "../../docs/knockwall.8.md", "../../internal/packaging/test-install.sh",
		"../../internal/packaging/deb/prerm", "../../internal/packaging/rpm/preun", "../../internal/packaging/arch/pre_remove",
	} {
		text, err := os.ReadFile(path)
		lab.Must(t, err)
		if !bytes.Contains(text, []byte(file)) {
			t.Errorf("%s does not name %s", path, file)
		}
	}
}

// Each alert fires when it should, and not otherwise.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	promtool := lab.NeedsProgram(t, "promtool")
	folder := t.TempDir()
	var rules []byte
	for from, to := range map[string]string{alertsFile: "alerts.yml", "testdata/alerts.test.yml": "alerts.test.yml"} {
		b, err := os.ReadFile(from)
		lab.Must(t, err)
		lab.WriteFile(t, filepath.Join(folder, to), string(b), 0o644)
		if from == alertsFile {
			rules = b
		}
	}
	tests, err := os.ReadFile("testdata/alerts.test.yml")
	lab.Must(t, err)
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(rules, -1) {
		if !bytes.Contains(tests, append([]byte("alertname: "), append(m[1], '\n')...)) {
			t.Errorf("no test has %s fire", m[1])
		}
	}
	for _, arguments := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts.test.yml"}} {
		cmd := exec.Command(promtool, arguments...)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", arguments, err, out)
		}
	}
}

// prometheus is a Prometheus on the server, which reads the metrics of a daemon.
type prometheus struct {
	l    *lab.Lab
	http http.Client
}

const (
	exporterAddress   = "127.0.0.1:9100"
	prometheusAddress = "127.0.0.1:9090"
)

// watch starts a node exporter and a Prometheus on the server. write-metrics runs every
// second.
func watch(d *lab.Daemon) *prometheus {
	l := d.Lab
	l.T.Helper()
	exporter, server := lab.NeedsProgram(l.T, "prometheus-node-exporter"), lab.NeedsProgram(l.T, "prometheus")
	folder := filepath.Join(l.Folder, "textfile")
	lab.Must(l.T, os.Mkdir(folder, 0o755))
	alerts, err := filepath.Abs(alertsFile)
	lab.Must(l.T, err)
	metrics := filepath.Join(folder, filepath.Base(metricsFile(l.T)))
	config := filepath.Join(l.Folder, "prometheus.yml")
	lab.WriteFile(l.T, config, `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [`+alerts+`]
scrape_configs:
  - job_name: node
    static_configs: [{targets: ["`+exporterAddress+`"]}]
`, 0o644)
	run(l, exporter, "--web.listen-address="+exporterAddress, "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory="+folder)
	run(l, server, "--web.listen-address="+prometheusAddress, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(l.Folder, "tsdb"))
	ctx, stop := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() {
		for ctx.Err() == nil {
			// While the daemon reloads or is away, it fails and removes the file.
			_ = exec.CommandContext(ctx, "sh", writeMetrics, metrics, d.Control).Run()
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	l.T.Cleanup(func() { stop(); writing.Wait() })
	return &prometheus{l, http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = l.Server.Do(func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}}
}

// run runs a program on the server until the test ends.
func run(l *lab.Lab, name string, arguments ...string) {
	l.T.Helper()
	log := &lab.Output{}
	cmd := exec.Command(name, arguments...)
	cmd.Stdout, cmd.Stderr = log, log
	lab.Must(l.T, lab.StartOn(l.Server, cmd))
	l.T.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if l.T.Failed() {
			l.T.Logf("%s said:\n%s", name, lab.Tail(log.String(), 4000))
		}
	})
}

// sample is a series with its value.
type sample struct {
	Metric map[string]string
	Value  [2]any // the time, and the value as text
}

func (s sample) value() string { return fmt.Sprint(s.Value[1]) }

// ask returns the series that an expression has now.
func (p *prometheus) ask(expression string) ([]sample, error) {
	response, err := p.http.Get("http://" + prometheusAddress + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", expression, answer.Error)
	}
	return answer.Data.Result, nil
}

// becomes waits until an expression has one series, with this value.
func (p *prometheus) becomes(value, expression string) {
	p.l.T.Helper()
	var last any
	defer func() {
		if p.l.T.Failed() {
			p.l.T.Logf("%s was last %v", expression, last)
		}
	}()
	eventually.True(p.l.T, expression+" is "+value, func() bool {
		got, err := p.ask(expression)
		last = fmt.Sprint(got, err)
		return err == nil && len(got) == 1 && got[0].value() == value
	})
}

// queries returns the expressions of the dashboard as Grafana sends them.
func queries(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(dashboardFile)
	lab.Must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	lab.Must(t, json.Unmarshal(b, &dashboard))
	var all []string
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expression := strings.NewReplacer("$instance", ".+", "$__rate_interval", "30s").Replace(target.Expr)
			if strings.Contains(expression, "$") {
				t.Errorf("%q has a variable that this test does not know", expression)
			}
			all = append(all, expression)
		}
	}
	return all
}

// A Prometheus that reads a daemon's metrics by way of the node exporter knows every metric
// that the dashboard and the alerts name, and sees reloads, trials and errors.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	promtool, curl := lab.NeedsProgram(t, "promtool"), lab.NeedsProgram(t, "curl")
	l := lab.New(t)
	l.ServeTCP(22)
	list := filepath.Join(l.Folder, "list")
	lab.Must(t, os.WriteFile(list, []byte("5227,911,30411\n5228,912,30412\n"), 0o600))
	rules := lab.SSHRules + `
door "list" {
  ports              = [24]
  one_time_sequences = "` + list + `"
}
door "bare" {
  ports      = [25]
  sequence   = [7001, 7002, 7003]
  interfaces = ["nosuch0"]
}
`
	d := l.Run(rules)
	p := watch(d)
	checkNames(t, promtool, curl, d)

	p.becomes("1", "knockwall_build_info")
	p.becomes("1", "count("+ageOfMetrics(t)+")")
	p.becomes("2", `knockwall_one_time_sequences_left{door="list"}`)
	p.becomes("1", `ALERTS{alertname="KnockwallSequencesLow", alertstate="firing"}`)
	p.becomes("1", `knockwall_door_bare == 1`)
	p.becomes("1", `ALERTS{alertname="KnockwallDoorBare", door="bare"}`) // pending, as it has to last
	p.becomes("1", `ALERTS{alertname="KnockwallDegraded"}`)

	l.Enter(lab.Client4, lab.Server4)
	l.AdmitsAtOnce(lab.Source(1, lab.Server4), lab.Server4, 22)
	for _, q := range queries(t) {
		var last any
		eventually.True(t, q+" shows something", func() bool {
			got, err := p.ask(q)
			last = err
			return err == nil && len(got) > 0
		})
		if last != nil {
			t.Error(last)
		}
	}

	reload := func(arguments ...string) error {
		return l.Server.Do(lab.Knockwall(append([]string{"reload", "--control", d.Control}, arguments...)...).Run)
	}
	p.becomes("1", "knockwall_last_reload_successful")
	p.becomes("1", "knockwall_last_reload_success_timestamp_seconds > bool 1e9")
	l.WriteRules(rules + `door "web" {`)
	if reload() == nil {
		t.Error("broken rule files are put in force")
	}
	p.becomes("0", "knockwall_last_reload_successful")
	p.becomes("1", "knockwall_rule_files_differ")
	l.WriteRules(strings.ReplaceAll(rules, `["nosuch0"]`, `["`+l.ServerLink+`"]`))
	lab.Must(t, reload("--confirm", "10m"))
	p.becomes("1", "knockwall_last_reload_successful")
	p.becomes("1", "knockwall_on_trial")
	p.becomes("0", "knockwall_degraded")
	l.RunOnServer("confirm", "--control", d.Control)
	p.becomes("0", "knockwall_on_trial")

	d.Stop(syscall.SIGTERM)
	p.becomes("1", `count(ALERTS{alertname="KnockwallGone"})`)
	if got, err := p.ask("knockwall_build_info"); err != nil || len(got) > 0 {
		t.Errorf("a daemon that has ended gives %v, %v", got, err)
	}
}

// ageOfMetrics returns the expression by which an alert finds the file of the metrics.
func ageOfMetrics(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	lab.Must(t, err)
	expression := regexp.MustCompile(`node_textfile_mtime_seconds\{.*\}`).Find(text)
	if expression == nil {
		t.Fatalf("no alert in %s looks at the file of the metrics", alertsFile)
	}
	return string(expression)
}

// checkNames checks the names of the metrics: promtool knows Prometheus' conventions, and
// the alerts and the dashboard must not name others.
func checkNames(t *testing.T, promtool, curl string, d *lab.Daemon) {
	t.Helper()
	metrics, err := exec.Command(curl, "-sS", "--unix-socket", d.Control, "http://knockwall/metrics").Output()
	lab.Must(t, err)
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(metrics)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	for _, path := range []string{alertsFile, dashboardFile} {
		text, err := os.ReadFile(path)
		lab.Must(t, err)
		for _, name := range regexp.MustCompile(`knockwall_[a-z_]+`).FindAllString(string(text), -1) {
			if !bytes.Contains(metrics, []byte("# TYPE "+strings.TrimSuffix(name, "_bucket")+" ")) {
				t.Errorf("%s names %s, and the daemon has no such metric", path, name)
			}
		}
	}
}
