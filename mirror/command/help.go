package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// group is flags that the help shows together.
type group struct {
	title  string
	flags  *pflag.FlagSet
	listed bool // by name alone: the daemon's help explains them
}

// group adds a group of flags, which parse reads.
func (cfg *config) group(title string) *pflag.FlagSet {
	f := pflag.NewFlagSet(title, pflag.ContinueOnError)
	f.SortFlags = false
	cfg.groups = append(cfg.groups, group{title: title, flags: f})
	return f
}

// own is the group of a command's own flags, before those that it shares with the daemon.
func (cfg *config) own() *pflag.FlagSet {
	const title = "Flags"
	if len(cfg.groups) > 0 && cfg.groups[0].title == title {
		return cfg.groups[0].flags
	}
	for i := range cfg.groups {
		cfg.groups[i].listed = cfg.groups[i].title != "Local cluster"
	}
	f := cfg.group(title)
	last := len(cfg.groups) - 1
	cfg.groups = append(cfg.groups[last:], cfg.groups[:last]...)
	return f
}

const helpWidth = 100

// flagHelp is the part of the help that explains the flags.
func (cfg *config) flagHelp() string {
	var out strings.Builder
	var listed []string
	for _, g := range cfg.groups {
		if g.listed {
			g.flags.VisitAll(func(f *pflag.Flag) {
				if !f.Hidden {
					listed = append(listed, "--"+f.Name)
				}
			})
			continue
		}
		if text := usages(g.flags); text != "" {
			fmt.Fprintf(&out, "\n%s:\n%s", g.title, text)
		}
	}
	if len(listed) > 0 {
		fmt.Fprintf(&out, "\nFlags of the daemon, see service-mirror --help:\n  %s\n", wrapped(strings.Join(listed, ", "), 2))
	}
	return out.String()
}

// usages explains flags: each beside its name or, where that is long, below it.
func usages(flags *pflag.FlagSet) string {
	const column = 28
	var out strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "      --" + f.Name
		if f.Shorthand != "" {
			name = "  -" + f.Shorthand + ", --" + f.Name
		}
		if f.NoOptDefVal == "" { // it is no switch
			name += " " + value
			usage += defaultOf(f)
		}
		if len(name) > column-2 {
			out.WriteString(name + "\n")
			name = ""
		}
		fmt.Fprintf(&out, "%-*s%s\n", column, name, wrapped(usage, column))
	})
	return out.String()
}

// defaultOf is the default of a flag, where it has one.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "0", "0s", "[]":
		return ""
	}
	return " (default " + f.DefValue + ")"
}

// wrapped is a text in lines, of which all but the first are indented.
func wrapped(text string, indent int) string {
	var out strings.Builder
	at := indent
	for i, word := range strings.Fields(text) {
		width := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+width > helpWidth:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(word)
		at += width
	}
	return out.String()
}

// addOutput adds the flag for the format of what is printed.
func (cfg *config) addOutput(output *string) {
	cfg.own().StringVarP(output, "output", "o", "text", "output `FORMAT`: text or json")
}

func validateOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("--output: unknown format %.40q: set text or json", output)
	}
	return nil
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// quiet keeps the daemon's log out of what a command prints, unless -v is given: what is wrong is printed once.
func (cfg *config) quiet(ctx context.Context) context.Context {
	if cfg.flags.Changed("v") {
		return ctx
	}
	return klog.NewContext(ctx, klog.Logger{})
}
