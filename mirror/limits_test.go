package mirror

import (
	"fmt"
	"testing"
)

func TestHugeServiceCostsTheOthersNothing(t *testing.T) {
	run(t, Options{Policy: Policy{CopyAnnotations: []string{"note"}}}, paris, func(w *world) {
		for n := range 50 {
			one := huge()
			one.Name = fmt.Sprintf("huge-%d", n)
			w.remotes["paris"].export(one)
		}
		w.remotes["paris"].export(exportedBar())
		w.settle()
		if n := mirrors(w); n != 51 || w.pair().Service == nil {
			w.Errorf("%d mirrors, want 51", n)
		}
		w.server.wrote()
		w.remotes["paris"].know(true)
		w.settle()
		w.expect()
	})
}
