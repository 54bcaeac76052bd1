package release

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	spdx "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

const (
	root    = "../.."
	version = "v1.2.3-test"
	image   = "registry.example.com/service-mirror"
	// created is $SOURCE_DATE_EPOCH.
	created = "1700000000"
)

// platform is the one that is released here: this one, so that the program can be run.
var platform = runtime.GOOS + "/" + runtime.GOARCH

// Two releases of one source, of two directories and by users with different habits, are the same.
func TestReproducible(t *testing.T) {
	first := build(t, root, "022")
	second := build(t, copyOfSource(t), "077")
	if first.sums != second.sums {
		t.Errorf("the first release has\n%sthe second\n%s", first.sums, second.sums)
	}
	name := "service-mirror-" + version + "-" + strings.ReplaceAll(platform, "/", "-")
	want := []string{name + ".spdx.json", name + ".tar.gz", "service-mirror-1.2.3-test.tgz", "service-mirror-" + version + "-image.tar"}
	first.listed(t, want)
	first.program(t, name)
	first.contents(t, name)
	first.image(t)
}

// released is a release.
type released struct{ dir, sums string }

func build(t *testing.T, source, umask string) released {
	t.Helper()
	r := released{dir: filepath.Join(t.TempDir(), "release")}
	cmd := exec.Command("sh", "-c", "umask "+umask+` && exec "$@"`, "sh",
		filepath.Join(source, "deploy/release/build.sh"), "-o", r.dir, "-t", version, "-p", platform, "-i", image)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+created)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r.sums = string(out)
	return r
}

// copyOfSource is what git would check out, elsewhere.
func copyOfSource(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "elsewhere")
	cmd := exec.Command("sh", "-c", `mkdir "$1" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read | tar -x -C "$1"`, "sh", dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// listed checks that these files are there, with their checksums, and no others.
func (r released) listed(t *testing.T, want []string) {
	t.Helper()
	var sums strings.Builder
	for _, name := range want {
		content, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), name)
	}
	kept, err := os.ReadFile(filepath.Join(r.dir, "SHA256SUMS"))
	got, expected := strings.Split(string(kept), "\n"), strings.Split(sums.String(), "\n")
	slices.Sort(got)
	slices.Sort(expected)
	if err != nil || string(kept) != r.sums || !slices.Equal(got, expected) {
		t.Errorf("SHA256SUMS has (%v)\n%swant\n%s", err, kept, sums.String())
	}
}

// program checks that the archive has the program, and what is applied to clusters, and the modes that all users need.
func (r released) program(t *testing.T, name string) {
	t.Helper()
	files := r.unpack(t, name+".tar.gz")
	for file, mode := range map[string]int64{
		"service-mirror": 0o755, "README.md": 0o644, "LICENSE": 0o644, "deploy/local/kustomization.yaml": 0o644,
		"deploy/chart/Chart.yaml": 0o644, "deploy/image/build.sh": 0o755,
	} {
		if header := files[name+"/"+file]; header == nil || header.Mode != mode {
			t.Errorf("the archive has %s as %v, want mode %o", file, header, mode)
		}
	}
	for _, side := range []string{"local", "publish"} { // which are applied as they are
		manifest, err := os.ReadFile(filepath.Join(filepath.Dir(r.unpacked(name)), "deploy", side, "kustomization.yaml"))
		if want := "\n  newName: " + image + "\n  newTag: \"" + version + "\"\n"; err != nil || !strings.Contains(string(manifest), want) {
			t.Errorf("deploy/%s has another image: %v\n%s", side, err, manifest)
		}
	}
	out, err := exec.Command(r.unpacked(name), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("service-mirror --version: %v, %s", err, out)
	}
}

func (r released) unpacked(name string) string {
	return filepath.Join(r.dir, "unpacked", name, "service-mirror")
}

// unpack unpacks an archive into a directory beside it, and returns the headers by their names.
func (r released) unpack(t *testing.T, archive string) map[string]*tar.Header {
	t.Helper()
	file, err := os.Open(filepath.Join(r.dir, archive))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var reader io.Reader = file
	if strings.HasSuffix(archive, "gz") {
		if reader, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	headers := map[string]*tar.Header{}
	for in := tar.NewReader(reader); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() != 0 {
			t.Errorf("%s: %s says who made it, or when: %v", archive, header.Name, header)
		}
		headers[header.Name] = header
		if header.Typeflag != tar.TypeReg {
			continue
		}
		path := filepath.Join(r.dir, "unpacked", header.Name)
		content, err := io.ReadAll(in)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, header.FileInfo().Mode())); err != nil {
			t.Fatal(err)
		}
	}
}

// contents checks that the list of contents is valid SPDX, and has every module that go version finds in the program.
func (r released) contents(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(filepath.Join(r.dir, name+".spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var document v2_3.Document
	if err := spdx.ReadInto(file, &document); err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(&document); err != nil {
		t.Error(err)
	}
	if document.CreationInfo.Created != "2023-11-14T22:13:20Z" {
		t.Errorf("it says that it is of %s", document.CreationInfo.Created)
	}
	var listed []string
	for _, p := range document.Packages {
		if p.PackageName != "stdlib" {
			listed = append(listed, p.PackageName+" "+p.PackageVersion)
		}
		if purl := p.PackageExternalReferences[0].Locator; !strings.HasPrefix(purl, "pkg:golang/"+p.PackageName+"@") {
			t.Errorf("%s has the package URL %s", p.PackageName, purl)
		}
	}
	out, err := exec.Command("go", "version", "-m", r.unpacked(name)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"service-mirror.io/service-mirror " + version}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "dep" {
			want = append(want, fields[1]+" "+fields[2])
		}
	}
	slices.Sort(listed)
	slices.Sort(want)
	if len(want) < 10 || !slices.Equal(listed, want) {
		t.Errorf("it lists\n%s\nwant\n%s", strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}
	if len(document.Relationships) != len(document.Packages) || len(document.Packages) != len(want)+1 {
		t.Errorf("there are %d packages and %d relations", len(document.Packages), len(document.Relationships))
	}
}

// image checks that the image is an OCI layout.
func (r released) image(t *testing.T) {
	t.Helper()
	files := r.unpack(t, "service-mirror-"+version+"-image.tar")
	blobs := 0
	for name := range files {
		if strings.HasPrefix(name, "blobs/sha256/") && len(name) > len("blobs/sha256/") {
			blobs++
		}
	}
	// For two architectures: an index, and a manifest, a configuration and layers for each.
	if files["oci-layout"] == nil || files["index.json"] == nil || blobs < 7 {
		t.Errorf("it has %d blobs, and of the layout %v and %v", blobs, files["oci-layout"], files["index.json"])
	}
}

// The workflow has nothing that its forge would not take, or that shellcheck knows to be wrong in its scripts.
func TestWorkflow(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Fatalf("%v: testdata/deploy/setup.sh installs it", err)
	}
	linter, err := actionlint.NewLinter(os.Stderr, &actionlint.LinterOptions{Shellcheck: shellcheck})
	if err != nil {
		t.Fatal(err)
	}
	workflows, err := filepath.Glob(root + "/.github/workflows/*.yml")
	if err != nil || len(workflows) == 0 {
		t.Fatalf("there are %v (%v)", workflows, err)
	}
	found, err := linter.LintFiles(workflows, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range found {
		t.Error(one)
	}
}

// The scripts of a release, too.
func TestScripts(t *testing.T) {
	out, err := exec.Command("shellcheck", root+"/deploy/release/build.sh", root+"/deploy/chart/build.sh", root+"/deploy/chart/package.sh").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
