// Package harness is what the tests between clusters, those of the manifests, those of
// traffic and the benchmark have in common: real control planes, programs that run beside
// a test, credentials, the API servers' audit logs, and namespaces to run in.
//
// Nothing here fails a test: each function returns an error, so that the benchmark and the
// demo, which are no tests, can use it.
package harness
