package report

import (
	"fmt"
	"strings"

	"service-mirror.io/service-mirror/remote/failure"
)

// Diff is what a write changes, as a unified diff of YAML; before is nil of what is created. What a remote wrote is
// printable, and makes no line of its own.
func Diff(before, after any) string {
	return failure.Lines(unified(yamlLines(before), yamlLines(after)))
}

// around is how many lines that stay are shown around those that change.
const around = 3

// edit is a line of one text or of both.
type edit struct {
	mark byte // ' ', '-' or '+'
	line string
}

// unified is the unified diff of two texts.
func unified(before, after []string) string {
	edits := compare(before, after)
	shown := make([]bool, len(edits))
	for i, e := range edits {
		if e.mark != ' ' {
			for j := max(0, i-around); j < min(len(edits), i+around+1); j++ {
				shown[j] = true
			}
		}
	}
	var out strings.Builder
	at := [2]int{} // lines before this one, of either text
	for i := 0; i < len(edits); {
		if !shown[i] {
			at[0], at[1], i = at[0]+1, at[1]+1, i+1
			continue
		}
		var hunk strings.Builder
		lines := [2]int{}
		for ; i < len(edits) && shown[i]; i++ {
			hunk.WriteByte(edits[i].mark)
			hunk.WriteString(edits[i].line + "\n")
			if edits[i].mark != '+' {
				lines[0]++
			}
			if edits[i].mark != '-' {
				lines[1]++
			}
		}
		fmt.Fprintf(&out, "@@ -%s +%s @@\n%s", span(at[0], lines[0]), span(at[1], lines[1]), hunk.String())
		at[0], at[1] = at[0]+lines[0], at[1]+lines[1]
	}
	return out.String()
}

// span is where a hunk is in a text: its first line, and how many.
func span(before, lines int) string {
	if lines > 0 {
		before++
	}
	return fmt.Sprintf("%d,%d", before, lines)
}

// compare finds the fewest lines that must go and come. Objects have some hundred lines at most.
func compare(before, after []string) (edits []edit) {
	longest := make([][]int, len(before)+1) // common lines from here to the ends
	for i := range longest {
		longest[i] = make([]int, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				longest[i][j] = longest[i+1][j+1] + 1
			} else {
				longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			edits = append(edits, edit{' ', before[i]})
			i, j = i+1, j+1
		case j == len(after) || i < len(before) && longest[i+1][j] >= longest[i][j+1]:
			edits = append(edits, edit{'-', before[i]})
			i++
		default:
			edits = append(edits, edit{'+', after[j]})
			j++
		}
	}
	return edits
}
