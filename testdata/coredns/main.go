// Command coredns is CoreDNS with the plugins that a cluster's DNS needs in the
// tests, and no others.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/rewrite"
)

func main() {
	// The order in which a query passes the plugins, as in CoreDNS's own list.
	dnsserver.Directives = []string{"ready", "errors", "log", "cache", "rewrite", "hosts", "kubernetes"}
	coremain.Run()
}
