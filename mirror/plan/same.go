package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// sameSubsets compares what subsets say, not how they are ordered.
func sameSubsets(a, b []corev1.EndpointSubset) bool {
	return sameSet(a, b, func(x, y corev1.EndpointSubset) bool {
		return sameSet(x.Addresses, y.Addresses, same) &&
			sameSet(x.NotReadyAddresses, y.NotReadyAddresses, same) &&
			sameSet(x.Ports, y.Ports, same)
	})
}

func same[T any](a, b T) bool { return equality.Semantic.DeepEqual(a, b) }

// maxUnordered bounds the lists that are compared whatever their order: that
// takes the square of their length, and the remote chooses it.
const maxUnordered = 256

// sameSet tells whether two lists without duplicates hold the same elements.
func sameSet[T any](a, b []T, equal func(T, T) bool) bool {
	if slices.EqualFunc(a, b, equal) {
		return true
	}
	return len(a) == len(b) && len(a) <= maxUnordered && !slices.ContainsFunc(a, func(x T) bool {
		return !slices.ContainsFunc(b, func(y T) bool { return equal(x, y) })
	})
}
