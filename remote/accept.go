package remote

import (
	"errors"
	"fmt"
	"iter"

	"k8s.io/apimachinery/pkg/types"
)

// Accept returns an error unless the cluster of a UID (empty: it may not be read) is the one that the remote's mirrors
// are of, which record its UID, or that the configuration names. uid= means exactly that one, so it must have been read.
// Without uid=, a cluster whose UID may not be read counts as the right one unless mirrors say that it was readable
// before: such a change is most often another cluster, whose list of exports would delete them. uid=unverified says that
// it is the right one. local is the UID of the local cluster; empty: it has none. An empty UID of a mirror is none.
func (s Spec) Accept(uid, local types.UID, recorded iter.Seq[types.UID]) error {
	if uid != "" && uid == local {
		return NewWrongCluster(errors.New("its kubeconfig points to the local cluster, so nothing is mirrored: use the remote's kubeconfig"))
	}
	switch {
	case s.UID == Unverified && uid == "":
		return nil
	case s.UID == "" || s.UID == Unverified: // the mirrors say which one it is
	case uid == "":
		return fmt.Errorf("the UID of the cluster cannot be read, but uid=%s is configured, so its mirrors are not updated: "+
			"allow the account to get namespace kube-system, or set uid=unverified in %s", s.UID, s.Where())
	case uid != s.UID:
		return NewWrongCluster(fmt.Errorf("its kubeconfig points to the cluster with UID %s, but uid=%s is configured, so its mirrors are not updated: correct the kubeconfig, or uid= in %s", uid, s.UID, s.Where()))
	default:
		return nil
	}
	var other types.UID
	for known := range recorded {
		switch known {
		case "":
		case uid:
			return nil
		default:
			other = known
		}
	}
	switch {
	case other == "":
		return nil
	case uid == "":
		return fmt.Errorf("the UID of the cluster cannot be read, but its mirrors are from the cluster with UID %s, so they are not updated: "+
			"allow the account to get namespace kube-system, or set uid=unverified in %s", other, s.Where())
	default:
		return NewWrongCluster(fmt.Errorf("its kubeconfig points to the cluster with UID %s, but its mirrors are from the cluster with UID %s, so they are not updated: "+
			"if the cluster was replaced on purpose, add uid=%s to %s", uid, other, uid, s.Where()))
	}
}
