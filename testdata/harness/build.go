package harness

import (
	"fmt"
	"os"
	"path/filepath"
)

// BuildDir is the directory of the built programs: $SERVICE_MIRROR_BUILD, else .build of the
// repository as seen from a package of this module.
func BuildDir() string {
	if dir := os.Getenv("SERVICE_MIRROR_BUILD"); dir != "" {
		return dir
	}
	return "../../.build"
}

// FindProgram is the absolute path of a built program.
func FindProgram(name string) (string, error) {
	path, err := filepath.Abs(filepath.Join(BuildDir(), name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run the tests with make, which builds it", err)
	}
	return path, nil
}

// Program is FindProgram for programs without which nothing can be tested: where one is
// missing it ends this process, before each test of a package fails for the same reason.
func Program(name string) string {
	path, err := FindProgram(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return path
}
