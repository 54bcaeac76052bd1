#!/bin/sh
# Runs go build in the working directory and says, at the beginning and every ten seconds, how far it is. Prints nothing
# where all is compiled already.
set -eu

if [ $# -lt 3 ]; then
	echo "usage: $0 NAME PROGRAM-TO-WRITE PACKAGE [BUILD-FLAG...]" >&2
	exit 2
fi
name=$1 out=$2 package=$3
shift 3
interval=${PROGRESS_INTERVAL:-10}
start=$(date +%s)
work=$(mktemp -d)
pid=
trap 'rm -rf "$work"' EXIT
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; exit 130' INT TERM

say() {
	seconds=$(($(date +%s) - start))
	echo "$name: $*, $((seconds / 60))m$((seconds % 60))s" >&2
}

# watch runs a command, and another one after each interval.
watch() { # how to say how far it is, command...
	progress=$1
	shift
	"$@" >"$work/out" 2>"$work/log" &
	pid=$!
	waited=0
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		waited=$((waited + 1))
		[ $((waited % (interval * 5))) -ne 0 ] || "$progress"
	done
	if ! wait "$pid"; then
		# Without the names of the packages that are compiled.
		grep -Ev '^[^ :#]+$' "$work/log" >&2 || true
		say "failed"
		exit 1
	fi
	pid=
}

# lines counts those that match.
lines() {
	grep -Ec "$1" "$2" || true
}

downloading() {
	modules=$(lines '^go: downloading ' "$work/log")
	if [ "$modules" -gt 0 ]; then
		say "downloaded $modules modules"
	else
		say "reading packages"
	fi
}

compiling() {
	compiled=$(lines '^[^ :#]+$' "$work/log")
	if [ "$total" -lt 2 ]; then
		say "linking"
	elif [ "$compiled" -lt "$total" ]; then
		say "compiled $compiled of $total packages, $((100 * compiled / total)) %"
	else
		say "compiled $total packages, linking"
	fi
}

watch downloading go list "$@" -deps -f '{{if .Stale}}{{.ImportPath}}{{end}}' "$package"
total=$(lines . "$work/out")
# One package is the program itself, which is linked.
[ "$total" -lt 2 ] || say "compiling $total packages"
watch compiling go build -v "$@" -o "$out" "$package"
[ "$total" -lt 2 ] || say "built"
