package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// localFails checks whether the daemon shows a problem with reading its own cluster.
func (d *daemon) localFails(want bool) func() error {
	return func() error {
		all, err := d.metrics()
		if err != nil {
			return err
		}
		if failing, known := all["local_problems"]; !known || (failing > 0) != want {
			return fmt.Errorf("%v parts of the local cluster fail (known: %v)", failing, known)
		}
		return nil
	}
}

// Another cluster that answers at the local API server's address is not the one that mirrors are made in,
// although the daemon has all permissions there: nothing is written to it, and nothing is believed of it.
func TestAnotherClusterInThePlaceOfTheLocalOne(t *testing.T) {
	e := newEnv(t)
	f := e.localFront()
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("kept")
	r.export("removed")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirrors", r.mirrored("kept", "203.0.113.1"), r.mirrored("removed", "203.0.113.1"), d.localFails(false))

	e.makeNamespace(berlin, e.id)
	since := berlin.mark(t)
	f.redirect(berlin, e.account(berlin, localRules))
	f.server.CloseClientConnections()
	e.soon("it is shown", d.localFails(true))
	r.export("late")
	e.remove(paris, "removed")
	e.stays("the mirrors stay, and the other cluster gets none", func() error {
		if writes := berlin.writes(t, e.id, since); len(writes) > 0 {
			return fmt.Errorf("it wrote there: %v", writes)
		}
		_, err := london.CoreV1().Services(e.id).Get(e.ctx, r.mirror("removed"), metav1.GetOptions{})
		return errors.Join(err, r.mirrored("kept", "203.0.113.1")())
	})
	if lines := d.logged("another cluster answered at the local API server's address"); lines == 0 || lines > 20 {
		t.Errorf("%d log lines name the cause", lines)
	}

	f.redirect(london, "")
	f.server.CloseClientConnections()
	e.eventually(soon+3*time.Second, "the right cluster answers again", r.mirrored("late", "203.0.113.1"))
	e.soon("the rest", r.gone("removed"), d.localFails(false))
}
