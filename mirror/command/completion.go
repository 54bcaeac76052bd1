package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

const completionUsage = `service-mirror completion prints a completion script for a shell.

Usage:
  service-mirror completion bash|zsh|fish

  bash:  source <(service-mirror completion bash)
  zsh:   source <(service-mirror completion zsh)
  fish:  service-mirror completion fish | source

Exit codes:
  0  printed
  2  unknown shell
`

var shells = []string{"bash", "zsh", "fish"}

// completionCommand has no flags of its own.
type completionCommand struct{ *config }

func runCompletion(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseCompletion(args)
	return c.execute(ctx, c.run, err, completionUsage, stdout, stderr)
}

func parseCompletion(args []string) (*completionCommand, error) {
	c := &completionCommand{emptyConfig("completion")}
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	if words := c.flags.Args(); len(words) != 1 || !slices.Contains(shells, words[0]) {
		return c, errors.New("completion: unknown or missing shell: use bash, zsh or fish")
	}
	return c, nil
}

func (c *completionCommand) run(_ context.Context, stdout io.Writer) error {
	print := map[string]func() string{"bash": bash, "zsh": zsh, "fish": fish}[c.flags.Arg(0)]
	_, err := io.WriteString(stdout, print())
	return err
}

// completed are the flags of a command, or of the daemon, that completion offers.
func completed(flags *pflag.FlagSet) (all []*pflag.Flag) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && !strings.HasPrefix(f.Usage, "deprecated") {
			all = append(all, f)
		}
	})
	return all
}

func daemonFlags() *pflag.FlagSet {
	cfg, _ := parse(nil)
	return cfg.flags
}

func commandNames() (names []string) {
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}

// about is the beginning of a flag's help, for shells that show it.
func about(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	text, _, _ = strings.Cut(text, ";")
	if words := []rune(text); len(words) > 80 {
		text = strings.TrimSpace(string(words[:79])) + "…"
	}
	return text
}

// takesValue tells a flag that needs one.
func takesValue(f *pflag.Flag) bool { return f.NoOptDefVal == "" }

// Values that completion knows, by flag.
var (
	fileFlags  = []string{"kubeconfig", "ca-file", "remote-kubeconfig", "ca"}
	valueFlags = map[string]string{
		"output": "text json", "endpoints-api": "endpoints endpointslices", "probe": "tcp http none", "to": "gateway-api ingress names", "print": "remote local",
	}
)

func bash() string {
	var out strings.Builder
	names := func(flags *pflag.FlagSet) string {
		var words []string
		for _, f := range completed(flags) {
			words = append(words, "--"+f.Name)
		}
		return strings.Join(words, " ")
	}
	out.WriteString("# Completion of service-mirror for bash: source <(service-mirror completion bash)\n" +
		"_service_mirror() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words\n" +
		"\tif [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n" + // bash splits words at =
		"\tcase $prev in\n")
	for _, name := range slices.Sorted(maps.Keys(valueFlags)) {
		pattern := "--" + name
		if name == "output" {
			pattern += "|-o"
		}
		fmt.Fprintf(&out, "\t%s) COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return ;;\n", pattern, valueFlags[name])
	}
	fmt.Fprintf(&out, "\t%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n\tesac\n\tcase ${COMP_WORDS[1]} in\n", "--"+strings.Join(fileFlags, "|--"))
	for _, c := range commands {
		fmt.Fprintf(&out, "\t%s) words=\"%s\" ;;\n", c.name, strings.Join(append(slices.Clone(c.words), names(c.flags())), " "))
	}
	fmt.Fprintf(&out, "\t*) words=\"%s\" ;;\n\tesac\n", names(daemonFlags()))
	fmt.Fprintf(&out, "\tif [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then words=\"%s\"; fi\n", strings.Join(commandNames(), " "))
	out.WriteString("\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _service_mirror service-mirror\n")
	return out.String()
}

func zsh() string {
	var out strings.Builder
	quote := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	flags := func(flags *pflag.FlagSet) string {
		var specs []string
		for _, f := range completed(flags) {
			spec := "[" + strings.NewReplacer("[", "(", "]", ")", "\\", "", ":", " ").Replace(about(f)) + "]"
			switch {
			case slices.Contains(fileFlags, f.Name):
				spec += ":file:_files"
			case valueFlags[f.Name] != "":
				spec += ":value:(" + valueFlags[f.Name] + ")"
			case takesValue(f):
				spec += ":value: "
			}
			long, short := "*--"+f.Name, "*-"+f.Shorthand
			if takesValue(f) {
				long, short = long+"=", short+"+"
			}
			specs = append(specs, quote(long+spec))
			if f.Shorthand != "" {
				specs = append(specs, quote(short+spec))
			}
		}
		return strings.Join(specs, " ")
	}
	out.WriteString("#compdef service-mirror\n# Completion of service-mirror for zsh: source <(service-mirror completion zsh)\n_service_mirror() {\n\tlocal -a commands\n\tcommands=(")
	for _, c := range commands {
		out.WriteString(quote(c.name+":"+c.summary) + " ")
	}
	out.WriteString(")\n\tif (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then _describe command commands; return; fi\n\tcase $words[2] in\n")
	for _, c := range commands {
		words := ""
		if len(c.words) > 0 {
			words = quote(":word:("+strings.Join(c.words, " ")+")") + " "
		}
		fmt.Fprintf(&out, "\t%s) shift words; (( CURRENT-- )); _arguments %s%s ;;\n", c.name, words, flags(c.flags()))
	}
	fmt.Fprintf(&out, "\t*) _arguments %s ;;\n\tesac\n}\ncompdef _service_mirror service-mirror\n", flags(daemonFlags()))
	return out.String()
}

func fish() string {
	var out strings.Builder
	quote := func(text string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
	}
	flags := func(condition string, flags *pflag.FlagSet) {
		for _, f := range completed(flags) {
			line := "complete -c service-mirror -n " + quote(condition) + " -l " + f.Name
			if f.Shorthand != "" {
				line += " -s " + f.Shorthand
			}
			switch {
			case slices.Contains(fileFlags, f.Name):
				line += " -r -F"
			case valueFlags[f.Name] != "":
				line += " -x -a " + quote(valueFlags[f.Name])
			case takesValue(f):
				line += " -r"
			}
			out.WriteString(line + " -d " + quote(about(f)) + "\n")
		}
	}
	out.WriteString("# Completion of service-mirror for fish: service-mirror completion fish | source\ncomplete -c service-mirror -f\n")
	none := "not __fish_seen_subcommand_from " + strings.Join(commandNames(), " ")
	for _, c := range commands {
		fmt.Fprintf(&out, "complete -c service-mirror -n %s -a %s -d %s\n", quote("__fish_is_first_token"), c.name, quote(c.summary))
	}
	flags(none, daemonFlags())
	for _, c := range commands {
		seen := "__fish_seen_subcommand_from " + c.name
		if len(c.words) > 0 {
			fmt.Fprintf(&out, "complete -c service-mirror -n %s -a %s\n", quote(seen), quote(strings.Join(c.words, " ")))
		}
		flags(seen, c.flags())
	}
	return out.String()
}
