package command

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// dialect are words and phrases that Kubernetes' own messages do not use, with what they do.
var dialect = []struct{ pattern, instead string }{
	{`\b(stand|stands|stood)\b`, "exist"},
	{`\bmend(s|ed)?\b`, "fix"},
	{`\banew\b`, "recreate, again"},
	{`\bstrangers?\b`, "foreign"},
	{`\bleads? (to|any)\b|\bleads;`, "route to; is the leader"},
	{`\b(is|are) (not |un)well\b`, "healthy, failing"},
	{`\b(in|no) doubt\b`, "unknown"},
	{`\bnobody\b`, "no one, not used"},
	{`\bof which (there|nothing|no)\b`, "whose, unknown"},
	{`\bworked out\b|\bwork it out\b`, "computed"},
	{`\bas (it|they) (is|are|was|were) to be\b|\bas it was\b`, "up to date, unchanged"},
	{`\bhalf of it\b`, "partly"},
	{`\bmay not be read\b`, "no permission to read, cannot be read"},
	{`\bis given twice\b|\bnone is given\b`, "is set twice, is required"},
	{`\b(what|which) it (is|exports|was) (called|to be)\b`, "its name"},
	{`\bhave it (allow|match|admit|ignore)\b`, "change it to allow"},
}

// TestPlainEnglish: no text of the program, as a log, an Event, an error or a help has it, is of the dialect.
func TestPlainEnglish(t *testing.T) {
	var patterns []*regexp.Regexp
	for _, one := range dialect {
		patterns = append(patterns, regexp.MustCompile(`(?i)`+one.pattern))
	}
	texts := 0
	for where, text := range literals(t, "../..") {
		if !strings.Contains(text, " ") {
			continue // a name, not a text
		}
		texts++
		for i, pattern := range patterns {
			if found := pattern.FindString(text); found != "" {
				t.Errorf("%s: %q in %q: write %s", where, found, text, dialect[i].instead)
			}
		}
	}
	if texts < 1000 {
		t.Errorf("%d texts were read, want all of the program's", texts)
	}
}

func TestDialectIsFound(t *testing.T) {
	for _, text := range []string{
		"a Service of that name stands there that is not ours", "Remote is not well", "something must be mended", "a stranger has the name",
		"Updated where the mirror leads to", "it is made anew", "this replica leads; the other one is a standby", "the port is nobody's",
	} {
		found := false
		for _, one := range dialect {
			found = found || regexp.MustCompile(`(?i)`+one.pattern).MatchString(text)
		}
		if !found {
			t.Errorf("%q passes", text)
		}
	}
}

// literals are the program's strings, by where they are: not those of tests, of imports and of tags.
func literals(t *testing.T, root string) map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "testdata" || entry.Name() != ".." && strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.ImportSpec:
				return false
			case *ast.Field:
				n.Tag = nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
					all[set.Position(n.Pos()).String()] = text
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
