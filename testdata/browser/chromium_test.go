package browser

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"service-mirror.io/service-mirror/mirror/status"
)

// patience is how long one test may take on a machine that does much else.
const patience = 2 * time.Minute

var (
	browser context.Context // of the one browser that all tests have tabs in
	shots   string          // directory of the screenshots
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	shots = os.Getenv("SCREENSHOTS")
	if shots == "" {
		dir, err := os.MkdirTemp("", "screenshots")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		shots = dir
	} else if err := os.MkdirAll(shots, 0o755); err != nil {
		panic(err)
	}
	program := os.Getenv("CHROMIUM")
	if program == "" {
		program = "chromium"
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // its sandbox does not work for root
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		// The browser itself must not connect to anything.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, stop := chromedp.NewContext(allocator)
	defer stop()
	if err := chromedp.Do(ctx); err != nil {
		panic("start " + program + " (setup.sh installs it): " + err.Error())
	}
	browser = ctx
	return m.Run()
}

// tab is a tab of the browser with a daemon's page to open in it, and what went wrong
// in it.
type tab struct {
	*testing.T
	ctx context.Context
	url string // of the page, with a slash at its end
	of  served

	mu       sync.Mutex
	requests []string // for documents and all else
	wrong    []string
}

// window is the width of the browser's window and its colour scheme.
type window struct {
	name   string
	width  int64
	scheme string
}

// narrow reports whether it is a phone's.
func (w window) narrow() bool { return w.width < 600 }

var (
	desktop = window{"desktop-light", 1280, "light"}
	phone   = window{"phone-light", 390, "light"}
	windows = []window{desktop, {"desktop-dark", 1280, "dark"}, phone, {"phone-dark", 390, "dark"}}
)

// served is a page of a program: of which cluster, with which headings.
type served struct {
	handler  http.Handler
	cluster  string
	headings string
}

func daemon(p status.Page) served {
	return served{status.Handler(func() status.Page { return p }), p.Local, "H2 Remotes, H2 Mirrors"}
}

// troubled is a page that shows problems.
func troubled(s served) served {
	s.headings = "H2 Problems, " + s.headings
	return s
}

func publisher(p status.Publisher) served {
	return served{status.PublisherHandler(func() status.Publisher { return p }), p.Cluster, "H2 Targets, H2 Exported Services"}
}

// open serves the daemon's page and makes a tab for it, where scripts do not run.
func open(t *testing.T, p status.Page, w window) *tab { return openAt(t, daemon(p), w, "/") }

// openAt serves a page below a path.
func openAt(t *testing.T, p served, w window, path string) *tab {
	server := httptest.NewServer(http.StripPrefix(strings.TrimSuffix(path, "/"), p.handler))
	t.Cleanup(server.Close)
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	b := &tab{T: t, ctx: ctx, url: server.URL + path, of: p}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, page.Enable, page.EnableParams{})
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	call(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: w.narrow()})
	b.resize(w.width)
	b.media("", w.scheme)
	t.Cleanup(b.check)
	return b
}

// resize makes the window so wide.
func (b *tab) resize(width int64) {
	b.Helper()
	w := window{width: width}
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 850, DeviceScaleFactor: 1, Mobile: w.narrow()})
}

// media sets what the page is shown on: "" is the screen.
func (b *tab) media(kind, scheme string) {
	b.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: kind, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, event.Request.URL)
		if url := event.Request.URL; !strings.HasPrefix(url, b.url) && !strings.HasPrefix(url, "data:image/svg+xml,") {
			b.wrong = append(b.wrong, "a request to "+url)
		}
	case *network.EventLoadingFailed:
		b.wrong = append(b.wrong, "a request failed: "+event.ErrorText)
	case *log.EventEntryAdded:
		b.wrong = append(b.wrong, "the browser says: "+event.Entry.Text)
	case *runtime.EventConsoleAPICalled:
		b.wrong = append(b.wrong, "something was written to the console")
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, "exception: "+event.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		b.wrong = append(b.wrong, "a dialog: "+event.Message)
	}
}

// check runs at the end, when everything has been recorded.
func (b *tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, wrong := range b.wrong {
		b.Error(wrong)
	}
	if len(b.requests) == 0 {
		b.Error("no request was seen: nothing was tested")
	}
}

// call sends one command to the browser.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// goes opens a page of the daemon, and waits until it is loaded.
func (b *tab) goes(query string) {
	b.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(b.url+query)); err != nil {
		b.Fatalf("open %s: %v", query, err)
	}
}

// follows does something that opens another page, and waits until that is loaded.
func (b *tab) follows(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	response, err := chromedp.RunResponse(b.ctx, steps...)
	if err != nil {
		b.Fatal(err)
	}
	if response.Status != 200 {
		b.Fatalf("%s: status %d", response.URL, response.Status)
	}
}

// evaluate is the value of an expression in the page, whose own scripts stay off.
func evaluate[V any](b *tab, expression string) V {
	b.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[V](expression))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return value
}

// shoot takes a screenshot of the page from its top, of a limited height.
func (b *tab) shoot(name string) {
	b.Helper()
	const tallest = 2600
	size := call(b, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	beyond := true
	png := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond,
		Clip:                  &page.Viewport{Width: size.Width, Height: min(size.Height, tallest), Scale: 1},
	}).Data
	b.keep(name+".png", png)
}

// keep writes a file for people to look at.
func (b *tab) keep(name string, content []byte) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(shots, name), content, 0o644); err != nil {
		b.Fatal(err)
	}
}
