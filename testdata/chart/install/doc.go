// Package install installs the chart of deploy/chart with Helm in real clusters, and has the daemon do its work with what
// is then there: its ServiceAccounts, arguments and environment.
package install
