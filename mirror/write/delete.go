package write

import (
	"context"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Exactly limits a deletion to an object as it was seen.
func Exactly(obj metav1.Object) metav1.DeleteOptions {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

// Deletion is that of one object.
type Deletion struct {
	Object string // its kind and name
	Delete func(ctx context.Context) error
}

// DeleteAll deletes objects, after it has listed them; with dry it only lists. That one is gone already is no error.
func DeleteAll(ctx context.Context, all []Deletion, where string, dry bool, out io.Writer) error {
	_, err := deleteAll(ctx, all, where, dry, out)
	return err
}

// deleteAll returns how many were deleted, too.
func deleteAll(ctx context.Context, all []Deletion, where string, dry bool, out io.Writer) (removed int, err error) {
	for _, one := range all {
		fmt.Fprintf(out, "%s %s\n", one.Object, where)
	}
	fmt.Fprintf(out, "%d objects %s\n", len(all), where)
	if dry {
		return 0, nil
	}
	var failed []error
	for _, one := range all {
		switch err := one.Delete(ctx); {
		case apierrors.IsNotFound(err): // Kubernetes deletes Endpoints with their Service
		case err != nil:
			failed = append(failed, fmt.Errorf("delete %s: %w", one.Object, err))
		}
	}
	removed = len(all) - len(failed)
	fmt.Fprintf(out, "%d removed\n", removed)
	if len(failed) > 10 {
		failed = append(failed[:10], fmt.Errorf("and %d more", len(failed)-10))
	}
	return removed, errors.Join(failed...)
}
