package status

import (
	"net"
	"net/http"
	"strings"
)

// standby is what the page of a replica that does not lead says of the one that does. It does not fetch the leader's
// page: through the API server that would need permission to proxy to pods; past it, over HTTP without authentication, an
// address that another pod may have by now. A user who may open this page through the API server may open that one, too.
type standby struct {
	Leader  string // the pod that leads; empty: not known
	Command string // that opens the leader's page; empty: it is not known which
}

func (v *view) standby() *standby {
	s := &standby{Leader: text(v.LeaderPod)}
	if namespace, name, ok := strings.Cut(s.Leader, "/"); ok {
		s.Leader, s.Command = name, "kubectl -n "+namespace+" port-forward pod/"+name+" "
	}
	return s
}

// defaultPort is that of the manifests.
const defaultPort = "8080"

// servedAt completes the command with the port at which this replica serves: replicas have the same flags.
func (v *view) servedAt(r *http.Request) {
	if v.Standby == nil || v.Standby.Command == "" {
		return
	}
	port := defaultPort
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, at, err := net.SplitHostPort(addr.String()); err == nil {
			port = at
		}
	}
	v.Standby.Command += port
}
