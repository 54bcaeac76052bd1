// Package chart tests the Helm chart in deploy/chart: that it renders what the kustomize files beside it do, and what
// its values change. The package install applies it to real API servers, generate makes its long templates.
package chart
