package remote

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// confirmation is what it takes to confirm a list that lacks much of what is mirrored: a
// proxy may answer in the API server's place, or one that has lost its data.
type confirmation struct {
	// mirrored are the objects that have a mirror in the local cluster, whose caches are
	// filled: those of all namespaces.
	mirrored func(context.Context) ([]cache.ObjectName, error)
	// again is how to list over a network connection of its own, which end closes.
	again func() (over reader, end func(), err error)
}

const (
	// confirmDelay is the time from a list that is not believed to the next one.
	confirmDelay = 10 * time.Second
	// maxAbsent is how many mirrors any list may lack.
	maxAbsent = 10
)

// errOnePiece has a pager list again without pages.
var errOnePiece = apierrors.NewResourceExpired("the list must be requested again without pages")

// compare returns what a list lacks of the mirrored objects, and whether it is believed. The law: a
// list may lack ten of them, or half of them. Those that the list before it lacks too, which was
// not believed, do not count. So what is deleted is missing in two lists in a row, or is no
// more than any list may lack.
func compare(mirrored, listed, before map[string]bool) (absent map[string]bool, believed bool) {
	absent = map[string]bool{}
	counted, of := 0, 0
	for key := range mirrored {
		if !before[key] {
			of++
		}
		if listed[key] {
			continue
		}
		absent[key] = true
		if !before[key] {
			counted++
		}
	}
	return absent, counted <= maxAbsent || 2*counted <= of
}

// confirmed returns a list that may replace what is known: the one given, or a later one if that
// lacks too much. Until then, what is known stays as it is.
func (lw *ListWatch) confirmed(ctx context.Context, options metav1.ListOptions, list runtime.Object, keys []string) (runtime.Object, []string, error) {
	if listMeta, err := meta.ListAccessor(list); lw.confirm == nil || err != nil || listMeta.GetContinue() != "" {
		return list, keys, err
	}
	listed := setOf(keys)
	if options.Continue != "" {
		for key := range lw.page {
			listed[key] = true
		}
	}
	absent, refusal := lw.judge(ctx, listed, nil)
	if refusal != nil && options.Continue != "" {
		return nil, nil, errOnePiece
	}
	for refusal != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		lw.Report(fmt.Errorf("%v: the exports are listed again in %v on a new connection; only mirrors missing in both lists are deleted", refusal, confirmDelay))
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(confirmDelay):
		}
		var err error
		if list, keys, err = lw.readAgain(ctx); err != nil {
			return nil, nil, err
		}
		before := absent
		absent, refusal = lw.judge(ctx, setOf(keys), before)
		klog.FromContext(ctx).Info("Listed exports again to confirm deletions", "namespace", lw.Namespace, "missingMirrors", len(absent), "before", len(before), "confirmed", refusal == nil)
	}
	return list, keys, nil
}

// readAgain lists over a connection of its own, a new one at each try.
func (lw *ListWatch) readAgain(ctx context.Context) (runtime.Object, []string, error) {
	lw.history.requested("")
	l := &listing{lw: lw}
	err := lw.retry(ctx, func() error {
		over, end, err := lw.confirm.again()
		if err != nil {
			return err
		}
		defer end()
		return l.try(ctx, over)
	}, func(error) bool { return false })
	return l.list, l.keys, err
}

// judge compares a whole list with what is mirrored: the error says what it lacks, unless it is
// believed. What a filled cache does not have is no mirror that the list could delete.
func (lw *ListWatch) judge(ctx context.Context, listed, before map[string]bool) (absent map[string]bool, refusal error) {
	if lw.confirm == nil {
		return nil, nil
	}
	names, err := lw.confirm.mirrored(ctx)
	if err != nil {
		return before, err
	}
	var known map[string]bool
	filled := lw.cache != nil && lw.cache.HasSynced()
	if filled {
		known = setOf(lw.cache.keys())
	}
	mirrored := map[string]bool{}
	for _, name := range names {
		if lw.Namespace != "" && name.Namespace != lw.Namespace {
			continue
		}
		if key := name.String(); !filled || known[key] {
			mirrored[key] = true
		}
	}
	absent, believed := compare(mirrored, listed, before)
	if !believed {
		return absent, fmt.Errorf("the list lacks %d of %d mirrors", len(absent), len(mirrored))
	}
	return absent, nil
}

func setOf(keys []string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, key := range keys {
		set[key] = true
	}
	return set
}
