package mirror

import (
	"context"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

func TestAccept(t *testing.T) {
	for _, test := range []struct {
		name    string
		mirrors []string // the UID annotations of existing mirrors
		pinned  types.UID
		uid     types.UID
		wantErr string
	}{
		{name: "no mirrors yet", uid: "paris-uid"},
		{name: "the same cluster", mirrors: []string{"paris-uid"}, uid: "paris-uid"},
		{name: "another cluster", mirrors: []string{"paris-uid"}, uid: "other", wantErr: "UID other, but its mirrors are from the cluster with UID paris-uid"},
		{name: "another cluster, named by the flags", mirrors: []string{"paris-uid"}, pinned: "other", uid: "other"},
		{name: "the same, but the flags name another", mirrors: []string{"paris-uid"}, pinned: "other", uid: "paris-uid",
			wantErr: "points to the cluster with UID paris-uid, but uid=other"},
		{name: "the local cluster", uid: "home-uid", wantErr: "points to the local cluster"},
		{name: "the local cluster, named by the flags", pinned: "home-uid", uid: "home-uid", wantErr: "points to the local cluster"},
		{name: "mirrors without a UID", mirrors: []string{""}, uid: "paris-uid"},
		{name: "half of the mirrors have another UID", mirrors: []string{"old", "new"}, uid: "new"},
		{name: "not readable, no mirrors", uid: ""},
		{name: "not readable, and never was", mirrors: []string{""}, uid: ""},
		{name: "no longer readable", mirrors: []string{"paris-uid"}, uid: "",
			wantErr: "cannot be read, but its mirrors are from the cluster with UID paris-uid, so they are not updated: allow the account to get namespace kube-system, or set uid=unverified in --remote paris"},
		{name: "not readable, named by the flags", mirrors: []string{"paris-uid"}, pinned: "paris-uid", uid: "",
			wantErr: "cannot be read, but uid=paris-uid is configured, so its mirrors are not updated: allow the account to get namespace kube-system, or set uid=unverified in --remote paris"},
		{name: "not readable, named by the flags, no mirrors", pinned: "paris-uid", uid: "", wantErr: "set uid=unverified"},
		{name: "not readable, and need not be", mirrors: []string{"paris-uid"}, pinned: remote.Unverified, uid: ""},
		{name: "not readable, and need not be, no mirrors", pinned: remote.Unverified, uid: ""},
		{name: "readable, and need not be", mirrors: []string{"paris-uid"}, pinned: remote.Unverified, uid: "paris-uid"},
		{name: "another one, and need not be readable", mirrors: []string{"paris-uid"}, pinned: remote.Unverified, uid: "other",
			wantErr: "UID other, but its mirrors are from the cluster with UID paris-uid"},
		{name: "the local cluster, and need not be readable", pinned: remote.Unverified, uid: "home-uid", wantErr: "points to the local cluster"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, Options{}, paris, func(w *world) {
				for i, uid := range test.mirrors {
					svc := mirrorOfBar().Service
					svc.Name = "bar" + strings.Repeat("x", i) + "-paris"
					svc.Annotations[plan.ClusterUIDAnnotation], svc.Annotations[plan.MirrorAnnotation] = uid, "default/"+svc.Name
					w.server.put(svc)
				}
				// Mirrors of others do not count.
				other := mirrorOfBar().Service
				other.Name, other.Labels[plan.ClusterLabel], other.Annotations[plan.ClusterUIDAnnotation], other.Annotations[plan.MirrorAnnotation] = "bar-berlin", "berlin", "berlin-uid", "default/bar-berlin"
				w.server.put(other)
				w.remotes["paris"].know(false)
				w.settle()
				err := accept(w.Context(), w.controller.local, remote.Spec{Name: "paris", UID: test.pinned}, test.uid)
				if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
					w.Errorf("got %v, want %q", err, test.wantErr)
				}
				if awaited := Awaited(err) != ""; awaited != (err != nil && test.uid == "") { // its permissions may be about to be granted
					w.Errorf("waiting may change %v: %t", err, awaited)
				}
			})
		})
	}
}

// Nothing is accepted before the mirrors are known.
func TestAcceptWaitsForTheLocalCaches(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		svc := mirrorOfBar().Service
		w.server.put(svc)
		w.remotes["paris"].know(false) // or the mirror would be an orphan
		answer := make(chan error, 1)
		go func() { answer <- accept(w.Context(), w.controller.local, remote.Spec{Name: "paris"}, "other") }()
		w.wait(1)
		select {
		case err := <-answer:
			w.Fatalf("it did not wait: %v", err)
		default:
		}
		w.settle()
		if err := <-answer; err == nil {
			w.Error("another cluster was accepted")
		}
	})
}

func TestAcceptEndsWithItsContext(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		if err := accept(ctx, w.controller.local, remote.Spec{Name: "paris"}, "paris-uid"); err != context.Canceled {
			w.Errorf("got %v", err)
		}
	})
}

// A cluster that the flags now name takes over the mirrors of the previous one.
func TestNewUIDIsWritten(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		r := w.remotes["paris"]
		r.mu.Lock()
		r.uid = "new-uid"
		r.mu.Unlock()
		r.know(true)
		w.settle()
		w.expect(updateService)
		if got := w.pair().Service.Annotations[plan.ClusterUIDAnnotation]; got != "new-uid" {
			w.Errorf("got %s", got)
		}
		r.mu.Lock()
		r.uid = "" // no longer readable
		r.mu.Unlock()
		r.know(true)
		w.settle()
		w.expect()
	})
}

var _ Remote = (*remote.Remote)(nil)
