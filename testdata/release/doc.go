// Package release tests what make release builds, and the workflow that runs it on a forge. Its command sbom lists what
// a program is made of.
package release
