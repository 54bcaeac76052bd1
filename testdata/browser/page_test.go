package browser

import (
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"service-mirror.io/service-mirror/mirror/status"
)

// What a phone of some years ago shows without delay.
const (
	mostBytes = 400_000
	mostNodes = 12_000
	mostTime  = 30_000 // ms from the request to the end of the layout: whatever else the machine does
)

// TestPages opens each page in each window and checks what applies to every one.
func TestPages(t *testing.T) {
	standby := three()
	standby.Leader, standby.LeaderPod = false, "service-mirror/service-mirror-7d9c6b5f4-x2x8q"
	for _, test := range []struct {
		name, query string
		page        served
		rows        int
	}{
		{"none", "", daemon(nothing()), 0},
		{"three", "", troubled(daemon(three())), 3},
		{"hundreds", "", troubled(daemon(hundreds())), 100},
		{"hundreds-reason", "?reason=NamespaceMissing&page=2", troubled(daemon(hundreds())), 20},
		{"standby", "", troubled(daemon(standby)), 3},
		{"thousands", "", troubled(daemon(thousands())), 100},
		{"thousands-mirrored", "?state=mirrored&page=50", troubled(daemon(thousands())), 100},
		{"thousands-filtered", "?state=unhealthy&q=namespacemissing+VIENNA", troubled(daemon(thousands())), 3},
		{"thousands-no-match", "?remote=paris&q=no+such+thing", troubled(daemon(thousands())), 0},
		{"publisher-none", "", publisher(status.Publisher{Cluster: "paris", Now: now(), Synced: true}), 0},
		{"publisher", "", troubled(publisher(exporting())), 3},
		{"publisher-thousands", "?page=50", troubled(publisher(exportingThousands())), 100},
	} {
		for _, w := range windows {
			t.Run(test.name+"/"+w.name, func(t *testing.T) {
				b := openAt(t, test.page, w, "/")
				b.goes(test.query)
				b.shoot(test.name + "-" + w.name)
				if rows := evaluate[int](b, `document.querySelectorAll("tbody tr").length`); rows != test.rows {
					t.Errorf("%d rows, want %d", rows, test.rows)
				}
				b.isUnharmed()
				b.isStyled(w)
				b.isQuick()
				b.isLegible()
				b.isNamed()
				b.fitsEverywhere(w.width)
				if w.scheme == "light" {
					b.unfold()
					b.shoot(test.name + "-open-" + w.name)
					b.isLegible()
					b.fitsEverywhere(w.width)
				}
			})
		}
	}
}

// isUnharmed looks for effects of a text of a remote.
func (b *tab) isUnharmed() {
	b.Helper()
	if title := evaluate[string](b, `document.title`); !strings.HasPrefix(title, b.of.cluster+": ") || !strings.HasSuffix(title, ", service-mirror") {
		b.Errorf("the title is %q", title)
	}
	if n := evaluate[int](b, `document.querySelectorAll("script, img, iframe, object, embed, [onerror], [onload], [style]").length`); n != 0 {
		b.Errorf("%d elements that the page does not have", n)
	}
}

// isStyled checks that the browser accepted the style, and that the page follows the
// colour scheme.
func (b *tab) isStyled(w window) {
	b.Helper()
	light := evaluate[bool](b, `getComputedStyle(document.body).backgroundColor === "rgb(245, 246, 248)"`)
	if want := w.scheme == "light"; light != want {
		b.Errorf("the background is light: %t, want %t", light, want)
	}
}

// isQuick checks the limits of size and time.
func (b *tab) isQuick() {
	b.Helper()
	if size := evaluate[int](b, `performance.getEntriesByType("navigation")[0].encodedBodySize`); size > mostBytes || size == 0 {
		b.Errorf("the page has %d bytes, want at most %d", size, mostBytes)
	}
	if ms := evaluate[float64](b, `performance.getEntriesByType("navigation")[0].loadEventEnd`); ms > mostTime || ms <= 0 {
		b.Errorf("it was loaded after %v ms, want at most %d", ms, mostTime)
	}
	if nodes := evaluate[int](b, `document.querySelectorAll("*").length`); nodes > mostNodes {
		b.Errorf("it has %d elements, want at most %d", nodes, mostNodes)
	}
}

// unfold opens all that is folded.
func (b *tab) unfold() {
	b.Helper()
	if n := evaluate[int](b, `[...document.querySelectorAll("details")].map(d => d.open = true).length`); n == 0 && strings.Contains(b.of.headings, "Problems") {
		b.Error("nothing is folded")
	}
}

// fitsEverywhere looks for what is wider than a window of this and other widths.
func (b *tab) fitsEverywhere(width int64) {
	b.Helper()
	for _, width := range []int64{width, 320, 390, 600, 833, 1000, 1920} {
		b.resize(width)
		b.fits(width)
	}
	b.resize(width)
}

// fits looks for what is wider than the window.
func (b *tab) fits(width int64) {
	b.Helper()
	if scrolled := evaluate[int](b, `document.documentElement.scrollWidth`); scrolled > int(width) {
		b.Errorf("at %d px, the page is %d px wide", width, scrolled)
	}
	for _, wide := range evaluate[[]string](b, `[...document.querySelectorAll("body *:not(.skip):not(thead *):not(thead)")]
		.filter(e => e.checkVisibility() && (e.getBoundingClientRect().right > innerWidth + .5 || e.getBoundingClientRect().left < -.5
			|| e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && !["INPUT", "SELECT"].includes(e.tagName)))
		.slice(0, 3).map(e => e.outerHTML.slice(0, 200))`) {
		b.Errorf("at %d px, this does not fit: %s", width, wide)
	}
	// In too narrow a column each letter has a line of its own.
	for _, thin := range evaluate[[]string](b, `[...document.querySelectorAll("tbody td *, tbody th *, dd, p")]
		.filter(e => e.checkVisibility() && e.textContent.length > 12 && e.getBoundingClientRect().width < 60
			&& e.getBoundingClientRect().height > 60).slice(0, 3).map(e => e.outerHTML.slice(0, 200))`) {
		b.Errorf("at %d px, this is too narrow: %s", width, thin)
	}
}

// isLegible computes the contrast of each text with what is behind it: at least
// 4.5 (WCAG 2.2, 1.4.3).
func (b *tab) isLegible() {
	b.Helper()
	for _, pale := range evaluate[[]string](b, `(() => {
		const channels = colour => colour.match(/[\d.]+/g).map(Number);
		const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
			.reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
		const behind = e => {
			for (; e; e = e.parentElement) {
				const colour = channels(getComputedStyle(e).backgroundColor);
				if (colour.length === 3) return colour;
			}
			return [255, 255, 255];
		};
		const seen = {};
		const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		let texts = 0;
		while (walker.nextNode()) {
			const e = walker.currentNode.parentElement;
			if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
			texts++;
			const a = light(channels(getComputedStyle(e).color)), b = light(behind(e));
			const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
			if (contrast < 4.5) seen[e.tagName + "." + e.className] = contrast.toFixed(2) + " " + e.textContent.slice(0, 40);
		}
		if (texts < 10) seen.nothing = texts;
		return Object.entries(seen).map(([where, what]) => where + ": " + what);
	})()`) {
		b.Errorf("contrast below 4.5: %s", pale)
	}
}

// isNamed checks what a screen reader needs.
func (b *tab) isNamed() {
	b.Helper()
	if headings := evaluate[string](b, `[...document.querySelectorAll("h1, h2")].map(h => h.tagName + " " + h.textContent).join(", ")`); headings != "H1 "+b.of.cluster+", "+b.of.headings {
		b.Errorf("headings: %s", headings)
	}
	for what, expression := range map[string]string{
		"fields without a label":       `document.querySelectorAll("input:not([type=hidden]), select").length - document.querySelectorAll("label input, label select").length`,
		"navigation without a name":    `document.querySelectorAll("nav:not([aria-label])").length`,
		"dots that are read aloud":     `document.querySelectorAll(".dot:not([aria-hidden])").length`,
		"two elements of one id":       `[...document.querySelectorAll("[id]")].length - new Set([...document.querySelectorAll("[id]")].map(e => e.id)).size`,
		"links to nowhere in the page": `[...document.querySelectorAll("a[href*='#']")].filter(a => !document.getElementById(a.hash.slice(1))).length`,
		"lost main or header":          `document.querySelectorAll("main, body > header").length - 2`,
	} {
		if n := evaluate[int](b, expression); n != 0 {
			b.Errorf("%s: %d", what, n)
		}
	}
}

// rows is the number that the caption gives, and how many of the rows are in a
// state.
func (b *tab) rows(state string) (caption string, inState, all int) {
	b.Helper()
	caption = evaluate[string](b, `document.querySelector("caption").textContent`)
	inState = evaluate[int](b, `[...document.querySelectorAll("tbody .state .pill")].filter(e => e.textContent === `+strconv.Quote(state)+`).length`)
	return caption, inState, evaluate[int](b, `document.querySelectorAll("tbody tr").length`)
}

// TestLinks follows links through ten thousand mirrors, without script.
func TestLinks(t *testing.T) {
	for _, w := range []window{desktop, phone} {
		t.Run(w.name, func(t *testing.T) {
			b := open(t, thousands(), w)
			b.goes("")
			expect := func(what, state, caption string, inState, all int) {
				t.Helper()
				if gotCaption, gotState, gotAll := b.rows(state); !strings.HasPrefix(gotCaption, caption) || gotState != inState || gotAll != all {
					t.Fatalf("%s: %q, %d %s of %d rows; want %q, %d of %d", what, gotCaption, gotState, state, gotAll, caption, inState, all)
				}
				b.isUnharmed()
			}
			expect("at first", status.Conflict, "1–100 of 10,000, the worst first", 12, 100)

			click := func(selector string) { t.Helper(); b.follows(chromedp.Click(chromedp.CSS(selector))) }
			click(`.totals a:last-child`)
			expect("the unhealthy ones", status.Mirrored, "1–56 of 56 that match, of 10,000", 0, 56)
			click(`.chips .info`)
			expect("waiting", status.Waiting, "1–25 of 25 that match, of 10,000", 25, 25)
			if top := evaluate[float64](b, `document.getElementById("mirrors").getBoundingClientRect().top`); top < 0 || top > 100 {
				t.Errorf("after a filter the mirrors are at %v px, not at the top of the window", top)
			}

			// The form keeps the state, and a text narrows further.
			b.follows(chromedp.SendKeys(chromedp.CSS("input[name=q]"), "vienna"+kb.Enter))
			expect("a text", status.Waiting, "1–3 of 3 that match", 3, 3)
			if got := evaluate[string](b, `location.search`); got != "?q=vienna&remote=&state=waiting" {
				t.Errorf("the form made %s", got)
			}
			click(`.clear`)
			expect("all again", status.Conflict, "1–100 of 10,000, the worst first", 12, 100)

			b.press(`.problem:nth-of-type(3) summary`)
			click(`.problem[open] p a`)
			expect("a reason", status.Conflict, "1–12 of 12 that match", 12, 12)
			click(`.clear`)
			click(`.pager [rel=next]`)
			expect("the second page", status.Mirrored, "101–200 of 10,000", 100, 100)
			click(`.pager li:nth-last-child(2) a`)
			expect("the last page", status.Mirrored, "9,901–10,000 of 10,000", 100, 100)
			if n := evaluate[int](b, `document.querySelectorAll(".pager [rel=next]").length`); n != 0 {
				t.Error("there is a page after the last one")
			}
			if w.narrow() {
				b.press(`section > .unfold > summary`)
			}
			b.press(`.remote > summary`)
			click(`.remote[open] dd a`)
			expect("one remote", status.Mirrored, "1–100 of 910 that match", 97, 100)
		})
	}
}

// TestPhone: the first mirror is on the first screen of a phone, however many problems there are, and all of it can be
// reached.
func TestPhone(t *testing.T) {
	const screen = 844 // px, of 390 x 844
	for name, p := range map[string]status.Page{"three": three(), "hundreds": hundreds(), "thousands": thousands()} {
		t.Run(name, func(t *testing.T) {
			b := open(t, p, phone)
			b.goes("")
			if bottom := evaluate[float64](b, `document.querySelector("#mirrors").closest("section").querySelector("tbody .title").getBoundingClientRect().bottom`); bottom > screen || bottom <= 0 {
				t.Errorf("the name of the first mirror ends at %v px of %d", bottom, screen)
			}
			if bottom := evaluate[float64](b, `document.querySelector(".problem .fix").getBoundingClientRect().bottom`); bottom > screen/2 || bottom <= 0 {
				t.Errorf("the remedy of the first problem ends at %v px", bottom)
			}
			b.sees("form", false)
			b.press(".filter > summary")
			b.sees("form", true)
			b.sees(".remote > summary", false)
			b.press("section > .unfold > summary")
			b.sees(".remote > summary", true)
			b.sees(".problems > .unfold .problem > summary", false)
			b.press(".problems > .unfold > summary")
			b.sees(".problems > .unfold .problem > summary", true)
			b.fits(phone.width)
		})
	}
}

// TestWideScreenShowsAll of what a phone folds.
func TestWideScreenShowsAll(t *testing.T) {
	b := open(t, hundreds(), desktop)
	b.goes("")
	for _, selector := range []string{"form", ".remote > summary", ".problems > .unfold .problem > summary"} {
		b.sees(selector, true)
	}
	b.sees(".problem > ul", false)
	b.press(".problem > summary")
	b.sees(".problem > ul", true)
}

// press clicks on what opens no other page.
func (b *tab) press(selector string) {
	b.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.Fatalf("%s: %v", selector, err)
	}
}

// sees checks whether the first one of a selector is shown.
func (b *tab) sees(selector string, want bool) {
	b.Helper()
	if got := evaluate[bool](b, `document.querySelector(`+strconv.Quote(selector)+`).checkVisibility({contentVisibilityAuto: true})`); got != want {
		b.Errorf("%s is shown: %t, want %t", selector, got, want)
	}
}

// TestFolded unfolds what is folded, with the keyboard alone.
func TestFolded(t *testing.T) {
	b := open(t, thousands(), desktop)
	b.goes("")
	press := func(key string) {
		t.Helper()
		if err := chromedp.Do(b.ctx, chromedp.KeyEvent(key)); err != nil {
			t.Fatal(err)
		}
	}
	press(kb.Tab)
	if got := evaluate[string](b, `document.activeElement.className`); got != "skip" {
		t.Errorf("the first stop is %q, want the link past the remotes", got)
	}
	if left := evaluate[float64](b, `document.activeElement.getBoundingClientRect().left`); left < 0 {
		t.Error("it is not seen even when it is stopped at")
	}
	const closed = `document.querySelectorAll(".remote:not([open])").length`
	if n := evaluate[int](b, closed); n != 11 {
		t.Fatalf("%d remotes are folded, want all 11", n)
	}
	evaluate[any](b, `document.querySelector(".remote:not([open]) summary").focus()`)
	press(kb.Enter)
	if n := evaluate[int](b, closed); n != 10 {
		t.Errorf("%d remotes are folded after one is opened, want 10", n)
	}
}

// TestPaper checks the page on paper: all of it, and nothing to click on.
func TestPaper(t *testing.T) {
	b := open(t, thousands(), window{"paper", 1000, "dark"})
	b.goes("")
	b.media("print", "light")
	b.shoot("paper") // what is hidden until then appears with a frame
	for selector, visible := range map[string]bool{"form": false, ".pager ul": false, "caption": true, ".remote:not([open]) dl": true} {
		if got := evaluate[bool](b, `document.querySelector(`+strconv.Quote(selector)+`).checkVisibility({contentVisibilityAuto: true})`); got != visible {
			t.Errorf("on paper %s is seen: %t", selector, got)
		}
	}
	b.media("", "dark")
	pdf, err := chromedp.Run(b.ctx, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4)))
	if err != nil {
		t.Fatal(err)
	}
	b.keep("paper.pdf", pdf)
	if pages := strings.Count(string(pdf), "/Type /Page\n"); pages < 2 || pages > 15 {
		t.Errorf("it takes %d pages", pages)
	}
}

// TestRefresh waits for a page that refreshes itself.
func TestRefresh(t *testing.T) {
	b := open(t, three(), desktop)
	b.goes("?refresh=1") // that is too often: every 5 s
	b.follows()
	if got := evaluate[string](b, `location.search`); got != "?refresh=1" {
		t.Errorf("it was refreshed as %s", got)
	}
	b.follows(chromedp.Click(chromedp.CSS(".facts a")))
	if got := evaluate[string](b, `location.search`); got != "" {
		t.Errorf("the link to stop it goes to %s", got)
	}
}

// TestProxied opens the page below a path, as through the API server's proxy: its
// links stay there.
func TestProxied(t *testing.T) {
	b := openAt(t, daemon(thousands()), desktop, "/api/v1/namespaces/service-mirror/pods/x:8080/proxy/")
	b.goes("")
	for _, selector := range []string{".chips .warn", ".clear", ".pager [rel=next]", ".facts li:last-child a"} {
		b.follows(chromedp.Click(chromedp.CSS(selector)))
	}
	if got := evaluate[string](b, `JSON.parse(document.body.textContent).local`); got != "london" {
		t.Errorf("the JSON is of %q", got)
	}
}
