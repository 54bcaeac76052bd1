package main

// refused has foo call bar over a family in which there is no address to lead it
// to: it is refused, not left to wait.
//
// Over IPv6 that takes a second: kube-proxy's answer comes back so fast, within the
// call that sends the first packet, that the kernel heeds only the next one.
func (s *scene) refused(network string) {
	s.Helper()
	limit := map[string]string{"tcp4": "900ms", "tcp6": "1900ms"}[network]
	s.answers([]string{"--network", network, "--timeout", limit, bar}, seen{}, "", "connection refused")
}

// families takes the gateway's addresses of one family away and gives them back:
// requests of the other family do not notice.
func (s *scene) families() {
	for _, test := range []struct{ kept, keptAddress, gone string }{
		{"tcp6", parisAddress6, "tcp4"},
		{"tcp4", parisAddress, "tcp6"},
	} {
		result := s.under(func() {
			s.serves("--network", test.kept, bar)
			s.serves("--network", test.gone, bar)
			s.must(s.world.paris.loadBalancer("gateway", "gateway", test.keptAddress))
			s.refused(test.gone)
			s.serves("--network", test.kept, bar)
			s.must(s.world.paris.loadBalancer("gateway", "gateway", parisAddresses...))
			s.serves("--network", test.gone, bar)
		}, test.kept)
		s.none("the gateway had addresses of "+test.kept+" alone, then both again", result)
	}
}
