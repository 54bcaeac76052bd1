package status

import "strings"

// standby is what the page of a replica that does not lead says about that.
type standby struct {
	Leader  string // the pod that leads; empty: not known
	Command string // that opens the leader's page; empty: there is none
	Port    string
}

// standby says who leads.
func (v *view) standby() *standby {
	s := &standby{Leader: text(v.LeaderPod)}
	if namespace, name, ok := strings.Cut(s.Leader, "/"); ok {
		s.Leader = name
		s.Command = "kubectl -n " + namespace + " port-forward pod/" + name + " 8080"
	}
	return s
}
