// Package quickstart does what the README's quick start says, command by command, between real control planes: with real
// kubectl, Helm, buildah and make, and the program in the image that they build and push. What a Deployment's controller, a
// kubelet, a container registry and a gateway do meanwhile, the tests do. Nothing leaves a network namespace of their own.
package quickstart
