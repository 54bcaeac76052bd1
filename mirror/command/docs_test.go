package command

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const guides = "deploy/guides"

// A README that is longer is not read.
func TestREADMEIsShort(t *testing.T) {
	if length := len(page(t, "README.md")); length > 8<<10 {
		t.Errorf("README.md has %d bytes, of at most %d: move text to a page in %s", length, 8<<10, guides)
	}
}

// Links that are relative work in a clone, on a forge and in a release's archive.
func TestLinksOfPages(t *testing.T) {
	linked := map[string][]string{}
	for _, from := range pages(t) {
		for _, link := range links(page(t, from)) {
			to, err := follow(t, from, link)
			if err != nil {
				t.Errorf("%s has the link %s: %v", from, link, err)
			}
			linked[from] = append(linked[from], to)
		}
	}
	reachable := map[string]bool{}
	var visit func(string)
	visit = func(from string) {
		if !reachable[from] {
			reachable[from] = true
			for _, to := range linked[from] {
				visit(to)
			}
		}
	}
	visit("README.md")
	for _, guide := range pages(t) {
		if strings.HasPrefix(guide, guides) && !reachable[guide] {
			t.Errorf("no links go from README.md to %s: link it there, or in a page that is linked", guide)
		}
	}
}

// Manifests, scripts, messages and comments name pages, too.
func TestPagesThatAreNamedExist(t *testing.T) {
	named := regexp.MustCompile(`(?:\.\./|deploy/)guides/[-a-z]+\.md(?:#[-a-z0-9]+)?`)
	found := 0
	for _, name := range files(t, ".", ".go", ".yaml", ".json", ".sh", ".conf", ".cfg") {
		for _, reference := range named.FindAllString(page(t, name), -1) {
			found++
			_, guide, _ := strings.Cut(reference, "guides/")
			if _, err := follow(t, "README.md", guides+"/"+guide); err != nil {
				t.Errorf("%s names %s: %v", name, reference, err)
			}
		}
	}
	if found == 0 {
		t.Error("no file names a guide: is the expression right?")
	}
}

// TestAlertsHaveARunbook: each has a section, which its runbook_url names.
func TestAlertsHaveARunbook(t *testing.T) {
	sections := anchors(page(t, guides+"/operations.md"))
	text := page(t, "deploy/monitoring/alerts.yaml")
	alerts := regexp.MustCompile(`(?m)^  - alert: (\w+)$`).FindAllStringSubmatch(text, -1)
	urls := regexp.MustCompile(`(?m)^      runbook_url: https://\S+/deploy/guides/operations\.md#(\w+)$`).FindAllStringSubmatch(text, -1)
	if len(alerts) == 0 || len(alerts) != len(urls) {
		t.Fatalf("%d alerts are found, and %d runbook_urls", len(alerts), len(urls))
	}
	for i, alert := range alerts {
		if section := strings.ToLower(alert[1]); urls[i][1] != section {
			t.Errorf("the runbook_url of the alert %s names the section %s", alert[1], urls[i][1])
		} else if !sections[section] {
			t.Errorf("the runbook in operations.md has no section on the alert %s", alert[1])
		}
	}
}

func TestAnchors(t *testing.T) {
	text := "# A page\n## Who must reach what?\n### `--to names`, and more\n## A page\n```\n# no heading\n```\n"
	got := slices.Sorted(maps.Keys(anchors(text)))
	if want := []string{"--to-names-and-more", "a-page", "a-page-1", "who-must-reach-what"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLinks(t *testing.T) {
	text := "[a](b.md) and ![c](d.svg)\n    [no](code)\n- [e](f#g), `[no](code)`, <https://example.com>, [h](https://example.com/)\n```\n[no](code)\n```\n"
	if got, want := links(text), []string{"b.md", "d.svg", "f#g"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// page reads a file, by its path from the top of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are the README and those that are shipped with the manifests.
func pages(t *testing.T) []string {
	t.Helper()
	return append([]string{"README.md"}, files(t, "deploy", ".md")...)
}

// files are those below a directory with one of the suffixes, without what is built or hidden.
func files(t *testing.T, below string, suffixes ...string) (found []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("../.."), below, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.Type().IsRegular() && slices.Contains(suffixes, path.Ext(name)):
			found = append(found, name)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("%s has no files that end with %q: %v", below, suffixes, err)
	}
	return found
}

// follow returns what a relative link in a page goes to, without the anchor. That of a directory is its README, as a
// forge shows it.
func follow(t *testing.T, from, link string) (string, error) {
	t.Helper()
	name, anchor, hasAnchor := strings.Cut(link, "#")
	to := from
	if name != "" {
		to = path.Join(path.Dir(from), name)
	}
	info, err := os.Stat(filepath.Join("../..", filepath.FromSlash(to)))
	if err != nil {
		return to, fmt.Errorf("%s does not exist", to)
	}
	if info.IsDir() {
		to = path.Join(to, "README.md")
		if _, err := os.Stat(filepath.Join("../..", filepath.FromSlash(to))); err != nil && hasAnchor {
			return to, fmt.Errorf("%s does not exist", to)
		}
	}
	if hasAnchor && !anchors(page(t, to))[anchor] {
		return to, fmt.Errorf("%s has no heading with that anchor", to)
	}
	return to, nil
}

var (
	linkOf      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeOf      = regexp.MustCompile("`[^`]*`")
	headingOf   = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	indentation = regexp.MustCompile(`^( {4}|\t)`)
)

// links are the relative ones of a page.
func links(text string) (found []string) {
	for _, line := range prose(text) {
		if indentation.MatchString(line) {
			continue // code
		}
		for _, link := range linkOf.FindAllStringSubmatch(codeOf.ReplaceAllString(line, ""), -1) {
			if !strings.Contains(link[1], "://") {
				found = append(found, link[1])
			}
		}
	}
	return found
}

// anchors are those that forges give a page's headings.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, line := range prose(text) {
		heading := headingOf.FindStringSubmatch(line)
		if heading == nil {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, heading[1])
		unique := anchor
		for n := 1; found[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", anchor, n)
		}
		found[unique] = true
	}
	return found
}

// prose is the lines of a page outside fenced code.
func prose(text string) (lines []string) {
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			lines = append(lines, line)
		}
	}
	return lines
}

// The page of the commands has each of them, with the flags that only it has.
func TestCommandsPageHasEveryCommand(t *testing.T) {
	text := page(t, guides+"/commands.md")
	daemon := daemonFlags()
	for _, c := range commands {
		if !strings.Contains(text, "\n| `"+c.name) {
			t.Errorf("commands.md does not have %s in its table", c.name)
		}
		if c.name == "publish" || c.name == "verify" {
			continue // flags.md has theirs
		}
		for _, f := range completed(c.flags()) {
			if daemon.Lookup(f.Name) == nil && !strings.Contains(text, "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(text, "`-"+f.Shorthand+" ")) {
				t.Errorf("commands.md does not have --%s of %s", f.Name, c.name)
			}
		}
	}
}
