package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/template"
	"time"
)

// result is a line of the table.
type result struct {
	What, Goal, Measured string
	Mirrors              int // what the lines of a row are ordered by
	Met                  bool
	Runs                 int // of which the median counts
	Machine              string
	Version, Date        string
}

func (r result) Mark() string {
	switch {
	case r.Goal == "":
		return ""
	case r.Met:
		return "yes"
	}
	return "**no**"
}

// compare tells how two medians relate.
func compare(what string, mirrors int, goal float64, with string, ours, bare []time.Duration) result {
	a, c := median(ours), median(bare)
	ratio := a.Seconds() / c.Seconds()
	return result{What: what, Mirrors: mirrors, Runs: len(ours), Goal: fmt.Sprintf("≤ %.2f × %s", goal, with),
		Measured: fmt.Sprintf("%.2f s: %.2f × %.2f s", a.Seconds(), ratio, c.Seconds()), Met: ratio <= goal}
}

// report is all that was measured, in this run or before, each line on a machine of its own.
type report struct {
	Rows map[string]*measured
}

// measured is what one row gave.
type measured struct {
	Results []result
	Plots   []plot `json:",omitempty"`
}

// row is that of the name, new if need be.
func (r *report) row(name string) *measured {
	if r.Rows[name] == nil {
		r.Rows[name] = &measured{}
	}
	return r.Rows[name]
}

// load takes up what is kept.
func (b *bench) load() error {
	b.report = report{Rows: map[string]*measured{}}
	if !b.keep {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(b.out, "results.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &b.report)
}

// note takes results into the table, in the place of what was measured of the same before,
// and keeps it at once: a row may take half an hour.
func (b *bench) note(results ...result) error {
	row := b.report.row(b.row)
	for _, r := range results {
		r.Runs, r.Machine, r.Version, r.Date = max(1, r.Runs), machine(), b.versions(), time.Now().UTC().Format("2006-01-02")
		row.Results = slices.DeleteFunc(row.Results, func(old result) bool { return old.What == r.What })
		row.Results = append(row.Results, r)
		if r.Goal == "" {
			b.say("  %s: %s", r.What, r.Measured)
			continue
		}
		b.say("  %s: %s (goal: %s; met: %s)", r.What, r.Measured, r.Goal, r.Mark())
	}
	slices.SortStableFunc(row.Results, func(x, y result) int { return cmp.Compare(x.Mirrors, y.Mirrors) })
	return b.save()
}

// draw takes times into the row's plot, which shows those of one machine.
func (b *bench) draw(title, file string, g group) {
	row := b.report.row(b.row)
	i := slices.IndexFunc(row.Plots, func(p plot) bool { return p.File == file })
	if i < 0 {
		i, row.Plots = len(row.Plots), append(row.Plots, plot{Title: title, File: file})
	}
	p := &row.Plots[i]
	g.Machine = machine()
	p.Groups = append(slices.DeleteFunc(p.Groups, func(old group) bool { return old.N == g.N || old.Machine != g.Machine }), g)
	slices.SortFunc(p.Groups, func(x, y group) int { return cmp.Compare(x.N, y.N) })
}

// save writes the report, its table and its plots.
func (b *bench) save() error {
	if !b.keep {
		return nil
	}
	text, err := json.MarshalIndent(b.report, "", "\t")
	if err != nil {
		return err
	}
	page, err := b.report.page()
	if err != nil {
		return err
	}
	files := map[string][]byte{"results.json": append(text, '\n'), "README.md": page}
	for _, row := range b.report.Rows {
		for _, p := range row.Plots {
			var svg bytes.Buffer
			if err := plotTemplate.Execute(&svg, p); err != nil {
				return err
			}
			files[p.File] = svg.Bytes()
		}
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(b.out, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// page is the report to be read.
func (r *report) page() ([]byte, error) {
	var lines []line
	var plots []plot
	var machines []string
	for _, name := range rowNames() {
		row, ok := r.Rows[name]
		if !ok {
			continue
		}
		for _, one := range row.Results {
			i := slices.Index(machines, one.Machine)
			if i < 0 {
				i, machines = len(machines), append(machines, one.Machine)
			}
			lines = append(lines, line{one, i + 1})
		}
		plots = append(plots, row.Plots...)
	}
	var text bytes.Buffer
	err := pageTemplate.Execute(&text, map[string]any{"Machines": machines, "Lines": lines, "Plots": plots})
	return text.Bytes(), err
}

// line is a result with the place of its machine in the list of them.
type line struct {
	result
	On int
}

var pageTemplate = template.Must(template.New("").Parse(`# Performance

What ` + "`make bench`" + ` measured. The API servers, etcd and the daemon share a machine, so the daemon's
own work is taken from theirs. Compare times only within a line: the last column names the machine.

{{range .Machines}}1. {{.}}
{{end}}
The *bare loop* is a client-go program that makes the same requests from 32 goroutines and
does nothing else; the *floor* an informer whose handler writes. They and the daemon use the
shipped ServiceAccounts, under the shipped admission policy, and run in turn; of repeated runs
the median counts. A cold start counts from the start of the process to the API server's
answer to the last write, in a new and empty cluster; the bare loop from its first request.
A gateway's move counts from when its Service is changed in the remote cluster. Single runs of
few mirrors differ by a third, on both sides.

The publisher writes a route and a record of each export, and so does its bare loop. Requests over a gateway are made
by a pod in London, through the mirror, in turn with requests for the backend's own address at Paris's load balancer,
by turns of 0.1 and 0.25 s, on connections that are kept; two clusters, the gateway and the client share the machine.

| what | goal | measured | met | runs | with | on |
|---|---|---|---|---|---|---|
{{range .Lines}}| {{.What}} | {{.Goal}} | {{.Measured}} | {{.Mark}} | {{.Runs}} | {{.Version}}, {{.Date}} | {{.On}} |
{{end}}
{{range .Plots}}![{{.Title}}]({{.File}})
{{end}}`))

// machine is what this runs on.
func machine() string {
	model := "processors"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(text); found != nil {
			model = "× " + string(found[1])
		}
	}
	memory := ""
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var n int64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &n); err == nil {
			memory = fmt.Sprintf(", %d GB", (n+1<<19)>>20)
		}
	}
	return fmt.Sprintf("%d %s%s", runtime.NumCPU(), model, memory)
}

func (b *bench) versions() string {
	program, _ := exec.Command(b.program, "--version").Output()
	version := strings.TrimPrefix(strings.TrimSpace(string(program)), "service-mirror ")
	return fmt.Sprintf("%s, Kubernetes %v, %s", version, b.kubernetes.Load(), runtime.Version())
}

// plot shows times over numbers of mirrors.
type plot struct {
	Title, File string
	Groups      []group
}

// group is what was measured of one number of mirrors, in seconds.
type group struct {
	N          int
	Machine    string
	Ours, Bare float64
}

// The chart's measures, in its own units.
const (
	chartLeft, chartTop, chartHeight = 60, 50, 200
	groupWidth, barWidth             = 150, 44
)

// Bar is one bar of the chart.
type Bar struct {
	X, Y, Width, Height, Middle float64
	Class, Label                string
}

func (p plot) Bars() (bars []Bar) {
	most := 0.0
	for _, g := range p.Groups {
		most = max(most, g.Ours, g.Bare)
	}
	for i, g := range p.Groups {
		for j, value := range []float64{g.Bare, g.Ours} {
			height := chartHeight * value / most
			x := chartLeft + float64(i*groupWidth) + 20 + float64(j)*(barWidth+6)
			bars = append(bars, Bar{x, chartTop + chartHeight - height, barWidth, height, x + barWidth/2, []string{"bare", "ours"}[j], fmt.Sprintf("%.1f s", value)})
		}
	}
	return bars
}

// Label is a text under a group.
type Label struct {
	X    float64
	Text string
}

func (p plot) Labels() (labels []Label) {
	for i, g := range p.Groups {
		labels = append(labels, Label{chartLeft + float64(i*groupWidth) + 20 + barWidth + 3, fmt.Sprintf("%d mirrors: %.2f ×", g.N, g.Ours/g.Bare)})
	}
	return labels
}

func (p plot) Width() int  { return 2*chartLeft + len(p.Groups)*groupWidth }
func (p plot) Height() int { return chartTop + chartHeight + 40 }
func (p plot) Floor() int  { return chartTop + chartHeight }

var plotTemplate = template.Must(template.New("").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" role="img" aria-label="{{.Title}}" font-family="sans-serif" font-size="12">
<style>
text { fill: #333 } .bare { fill: #9aa7b5 } .ours { fill: #2c6fbb } .background { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .background { fill: #16191d } .bare { fill: #5d6975 } .ours { fill: #6aa9ee } }
</style>
<rect class="background" width="100%" height="100%"/>
<text x="60" y="24" font-size="14">{{.Title}}</text>
<rect class="bare" x="60" y="34" width="10" height="10"/><text x="75" y="43">bare loop of creates</text>
<rect class="ours" x="210" y="34" width="10" height="10"/><text x="225" y="43">service-mirror</text>
{{range .Bars}}<rect class="{{.Class}}" x="{{printf "%.1f" .X}}" y="{{printf "%.1f" .Y}}" width="{{.Width}}" height="{{printf "%.1f" .Height}}"/><text x="{{printf "%.1f" .Middle}}" y="{{printf "%.1f" .Y}}" dy="-4" text-anchor="middle">{{.Label}}</text>
{{end}}<line x1="50" x2="{{.Width}}" y1="{{.Floor}}" y2="{{.Floor}}" stroke="#888"/>
{{$y := .Floor}}{{range .Labels}}<text x="{{.X}}" y="{{$y}}" dy="18" text-anchor="middle">{{.Text}}</text>
{{end}}</svg>
`))
