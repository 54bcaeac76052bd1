// Package publish tests the command publish against a real API server with the CustomResourceDefinitions of Gateway
// API, whose module is no dependency of anything else. There is no gateway: what an implementation would say is written
// by hand.
package publish
