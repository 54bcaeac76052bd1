package main

import (
	"fmt"
	"os"
	"strings"
)

// demo shows one request on its way from London to Paris.
func demo(dir string) int {
	if err := show(dir); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		return 1
	}
	return 0
}

func show(dir string) error {
	fmt.Println("    (London and Paris with a node each, in network namespaces: about half a minute)")
	w, err := newWorld(dir, "paris")
	if err != nil {
		return err
	}
	gateway, err := w.paris.installGateway("nginx", []string{parisAddress})
	if err != nil {
		return err
	}
	if err := w.startDaemon(); err != nil {
		return err
	}
	const name = "bar-paris.default.svc.cluster.local"
	if err := eventually("an answer from bar", func() error {
		_, err := w.call("http://" + name + "/")
		return err
	}); err != nil {
		return err
	}

	fmt.Println("\nfoo, a pod in London, calls bar, a Service in Paris:")
	command := []string{"curl", "-4sS", "http://" + name + "/"}
	fmt.Println("foo$ " + strings.Join(command, " "))
	out, err := w.foo.command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	fmt.Printf("    %s\n", strings.TrimSpace(string(out)))

	fmt.Println("\nThe hops that it took:")
	kubectl := func(c *cluster, args ...string) string {
		out, _ := c.Kubectl(background, args...)
		return strings.TrimSpace(out)
	}
	clusterIP := kubectl(w.london, "get", "service", "bar-paris", "-o", "jsonpath={.spec.clusterIP}")
	endpoints := kubectl(w.london, "get", "endpointslices", "-l", "kubernetes.io/service-name=bar-paris",
		"-o", "jsonpath={.items[0].endpoints[*].addresses[0]}:{.items[0].ports[?(@.name==\"http\")].port}")
	barIP := kubectl(w.paris, "get", "service", "bar", "-o", "jsonpath={.spec.clusterIP}")
	barPod := kubectl(w.paris, "get", "pod", "bar", "-o", "jsonpath={.status.podIP}")
	fooPod := kubectl(w.london, "get", "pod", "foo", "-o", "jsonpath={.status.podIP}")
	hops := [][2]string{
		{"London, foo " + fooPod, "asks its resolver for " + name},
		{"London, CoreDNS", "answers " + clusterIP + ", the ClusterIP of the Service that service-mirror keeps"},
		{"London, kube-proxy", "routes that to " + endpoints + ", the Endpoints that service-mirror keeps: Paris's gateway"},
		{"London, node", "sends it from " + londonPlace.node + ": pods' addresses mean nothing outside"},
		{"Paris, kube-proxy", "routes the load balancer's " + parisAddress + ":80 to the gateway's pod " + gateway.address + ":8080"},
		{"Paris, nginx", "reads \"Host: " + name + "\" and asks for the alias default--bar." + aliases + ".svc.cluster.local, which exported Services have"},
		{"Paris, CoreDNS", "answers that it is bar.default.svc.cluster.local, and " + barIP + ", bar's ClusterIP in Paris"},
		{"Paris, kube-proxy", "routes that to bar's pod " + barPod + ", which answers: the client it saw is the gateway"},
	}
	for i, hop := range hops {
		fmt.Printf("    %d. %-20s %s\n", i+1, hop[0], hop[1])
	}
	if fooPod == barPod {
		fmt.Printf("\nfoo and bar have the same address, %s: the clusters' networks overlap.\n", fooPod)
	}
	return nil
}
