package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// nameserver is a real DNS server, on UDP and TCP, whose answers a test changes
// while the daemon queries it.
type nameserver struct {
	t       *testing.T
	address string

	mu      sync.Mutex
	answers map[string]answer
	queries []question
}

// answer is a nameserver's answer for a name, the same to A and AAAA queries except for
// the family of the addresses.
type answer struct {
	addresses []string
	shuffled  bool // another order each time
	truncated bool // over UDP only the first record; the rest over TCP
	silent    bool // no answer at all
	code      int  // dns.RcodeServerFailure and the like, instead of the addresses
	code6     int  // the same for AAAA alone
}

type question struct {
	name    string
	kind    uint16
	network string
}

func newNameserver(t *testing.T) *nameserver {
	t.Helper()
	n := &nameserver{t: t, answers: map[string]answer{}}
	var listener net.Listener
	var conn net.PacketConn
	for range 20 { // the port that TCP gets may be taken on UDP
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if conn, err = net.ListenPacket("udp", listener.Addr().String()); err == nil {
			break
		}
		listener.Close()
	}
	if conn == nil {
		t.Fatal("no port is free for a DNS server")
	}
	n.address = conn.LocalAddr().String()
	for _, server := range []*dns.Server{{Listener: listener}, {PacketConn: conn}} {
		server.Handler = dns.HandlerFunc(n.serve)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			server.ActivateAndServe()
		}()
		t.Cleanup(func() {
			server.Shutdown()
			<-ended
		})
	}
	return n
}

// say changes what a name resolves to: its addresses, of both families in any order.
func (n *nameserver) say(name string, addresses ...string) { n.set(name, answer{addresses: addresses}) }

func (n *nameserver) set(name string, a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[dns.CanonicalName(name)] = a
}

// count is the number of queries of a type for a name, only over the networks that are
// given, if any.
func (n *nameserver) count(name string, kind uint16, networks ...string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, q := range n.queries {
		if q.name == dns.CanonicalName(name) && q.kind == kind && (len(networks) == 0 || slices.Contains(networks, q.network)) {
			count++
		}
	}
	return count
}

// names are all the names that were queried.
func (n *nameserver) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, q := range n.queries {
		names = append(names, q.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (n *nameserver) serve(w dns.ResponseWriter, request *dns.Msg) {
	query := request.Question[0]
	network := w.LocalAddr().Network()
	name := dns.CanonicalName(query.Name)
	n.mu.Lock()
	n.queries = append(n.queries, question{name, query.Qtype, network})
	a, known := n.answers[name]
	n.mu.Unlock()
	if a.silent {
		return
	}
	response := new(dns.Msg)
	response.SetReply(request)
	response.RecursionAvailable = true // or an answer without records would look like a lame referral
	switch {
	case !known:
		response.Rcode = dns.RcodeNameError
	case query.Qtype == dns.TypeAAAA && a.code6 != 0:
		response.Rcode = a.code6
	case a.code != 0:
		response.Rcode = a.code
	default:
		response.Answer = records(query, a)
	}
	if a.truncated && network == "udp" {
		response.Truncated = true
		response.Answer = response.Answer[:min(1, len(response.Answer))]
	}
	w.WriteMsg(response)
}

func records(query dns.Question, a answer) []dns.RR {
	var out []dns.RR
	header := dns.RR_Header{Name: query.Name, Rrtype: query.Qtype, Class: dns.ClassINET, Ttl: 60}
	for _, text := range a.addresses {
		switch addr := netip.MustParseAddr(text); {
		case query.Qtype == dns.TypeA && addr.Is4():
			out = append(out, &dns.A{Hdr: header, A: addr.AsSlice()})
		case query.Qtype == dns.TypeAAAA && addr.Is6():
			out = append(out, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	}
	if a.shuffled {
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}

// flags make the daemon query this server, every second.
func (n *nameserver) flags() []string {
	return []string{"--dns-server", n.address, "--dns-refresh", "1s"}
}

// refreshed waits until the daemon has resolved a name as it is now: the next query comes
// after the answer.
func (e *env) refreshed(n *nameserver, name string) {
	e.Helper()
	since := [2]int{n.count(name, dns.TypeA), n.count(name, dns.TypeAAAA)}
	e.soon("another two lookups of "+name, func() error {
		if a, aaaa := n.count(name, dns.TypeA)-since[0], n.count(name, dns.TypeAAAA)-since[1]; a < 2 || aaaa < 2 {
			return fmt.Errorf("%d A and %d AAAA queries", a, aaaa)
		}
		return nil
	})
}

// The server itself is tested too.
func TestNameserver(t *testing.T) {
	t.Parallel()
	n := newNameserver(t)
	query := func(network, name string, kind uint16) (*dns.Msg, error) {
		request := new(dns.Msg)
		request.SetQuestion(name, kind)
		client := &dns.Client{Net: network, Timeout: 500e6}
		response, _, err := client.Exchange(request, n.address)
		return response, err
	}
	var many []string
	for i := range 30 {
		many = append(many, "192.0.2."+strconv.Itoa(i+1))
	}
	n.set("many.example.com", answer{addresses: many, truncated: true})
	n.say("two.example.com", "192.0.2.1", "2001:db8::1")
	n.set("half.example.com", answer{addresses: []string{"192.0.2.1"}, code6: dns.RcodeServerFailure})
	n.set("silent.example.com", answer{silent: true})
	for _, test := range []struct {
		network, name string
		kind          uint16
		records, code int
		truncated     bool
	}{
		{"udp", "many.example.com.", dns.TypeA, 1, dns.RcodeSuccess, true},
		{"tcp", "many.example.com.", dns.TypeA, 30, dns.RcodeSuccess, false},
		{"udp", "many.example.com.", dns.TypeAAAA, 0, dns.RcodeSuccess, true},
		{"udp", "two.example.com.", dns.TypeA, 1, dns.RcodeSuccess, false},
		{"udp", "two.example.com.", dns.TypeAAAA, 1, dns.RcodeSuccess, false},
		{"udp", "half.example.com.", dns.TypeA, 1, dns.RcodeSuccess, false},
		{"udp", "half.example.com.", dns.TypeAAAA, 0, dns.RcodeServerFailure, false},
		{"udp", "none.example.com.", dns.TypeA, 0, dns.RcodeNameError, false},
	} {
		response, err := query(test.network, test.name, test.kind)
		if err != nil {
			t.Fatal(err)
		}
		if len(response.Answer) != test.records || response.Rcode != test.code || response.Truncated != test.truncated {
			t.Errorf("%s %s over %s: got %v", test.name, dns.TypeToString[test.kind], test.network, response)
		}
	}
	if response, err := query("udp", "silent.example.com.", dns.TypeA); err == nil {
		t.Errorf("silent.example.com: got %v", response)
	}
	if udp, both := n.count("many.example.com", dns.TypeA, "udp"), n.count("many.example.com", dns.TypeA); udp != 1 || both != 2 {
		t.Errorf("counted %d over UDP and %d in all, want 1 and 2", udp, both)
	}
	if got := strings.Join(n.names(), " "); got != "half.example.com. many.example.com. none.example.com. silent.example.com. two.example.com." {
		t.Errorf("queries for %s", got)
	}
}
