package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
	"time"
)

// result is a line of the table.
type result struct {
	What, Goal, Measured string
	Met                  bool
}

func (r result) Mark() string {
	if r.Met {
		return "yes"
	}
	return "**no**"
}

func (b *bench) result(what, goal, measured string, met bool) {
	r := result{what, goal, measured, met}
	b.results = append(b.results, r)
	b.say("  %s: %s (goal: %s; met: %s)", r.What, r.Measured, r.Goal, r.Mark())
}

// compare notes how two medians relate.
func (b *bench) compare(what string, goal float64, with string, ours, bare []time.Duration) {
	a, c := median(ours), median(bare)
	ratio := a.Seconds() / c.Seconds()
	b.result(what, fmt.Sprintf("≤ %.2f × %s", goal, with), fmt.Sprintf("%.2f s: %.2f × %.2f s", a.Seconds(), ratio, c.Seconds()), ratio <= goal)
}

// measured is what one row gave.
type measured struct {
	Results                []result
	Plots                  []plot `json:",omitempty"`
	Machine, Version, Date string
	Runs                   int
}

// kept is what each row gave when it was last measured, on this machine.
func (b *bench) kept() (map[string]measured, error) {
	rows := map[string]measured{}
	text, err := os.ReadFile(filepath.Join(b.out, "results.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return rows, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &rows)
	}
	maps.DeleteFunc(rows, func(_ string, m measured) bool { return m.Machine != machine() })
	return rows, err
}

// keep replaces what is kept of the rows that were measured, and makes table and plots of all.
func (b *bench) keep() error {
	rows, err := b.kept()
	if err != nil {
		return err
	}
	maps.Copy(rows, b.measured)
	text, err := json.MarshalIndent(rows, "", "\t")
	if err != nil {
		return err
	}
	page, err := table(rows)
	if err != nil {
		return err
	}
	files := map[string][]byte{"results.json": append(text, '\n'), "README.md": page}
	for _, row := range rows {
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

// table is the page about these rows.
func table(rows map[string]measured) ([]byte, error) {
	var page struct {
		Rows    []measured
		Machine string
	}
	for _, name := range rowNames() {
		if row, ok := rows[name]; ok {
			page.Rows, page.Machine = append(page.Rows, row), row.Machine
		}
	}
	var text bytes.Buffer
	err := pageTemplate.Execute(&text, page)
	return text.Bytes(), err
}

var pageTemplate = template.Must(template.New("").Parse(`# Performance

What ` + "`make bench`" + ` measured: {{.Machine}}. The API servers, etcd and the daemon share that
machine, so the daemon's own work is taken from theirs.

The *bare loop* is a client-go program that makes the same requests from 32 goroutines and
does nothing else; the *floor* an informer whose handler writes. They and the daemon use the
shipped ServiceAccounts, under the shipped admission policy, and run in turn; of repeated runs
the median counts. A cold start counts from the start of the process to the API server's
answer to the last write, in a new and empty cluster; the bare loop from its first request.

| what | goal | measured | met | runs | with |
|---|---|---|---|---|---|
{{range $row := .Rows}}{{range .Results}}| {{.What}} | {{.Goal}} | {{.Measured}} | {{.Mark}} | {{$row.Runs}} | {{$row.Version}}, {{$row.Date}} |
{{end}}{{end}}
{{range .Rows}}{{range .Plots}}![{{.Title}}]({{.File}})
{{end}}{{end}}`))

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
	if server, err := b.paris.Discovery().ServerVersion(); err == nil {
		version += ", Kubernetes " + server.GitVersion
	}
	return version + ", " + runtime.Version()
}

// plot shows times over numbers of mirrors.
type plot struct {
	Title, File string
	Groups      []group
}

// group is what was measured of one number of mirrors, in seconds.
type group struct {
	N          int
	Ours, Bare float64
}

func (p *plot) add(n int, ours, bare []time.Duration) {
	p.Groups = append(p.Groups, group{n, median(ours).Seconds(), median(bare).Seconds()})
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
