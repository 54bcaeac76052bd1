package deploy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// image is what one architecture has of the image.
type image struct {
	root         string // its file system, unpacked
	files        []string
	Architecture string
	Config       struct {
		User       string
		Env        []string
		Entrypoint []string
		Labels     map[string]string
	}
}

const imageVersion = "v0.0.0-test"

// imageDir is where the image is unpacked, and stays until all tests are done.
var imageDir string

// built builds the image once and unpacks it, by architecture.
var built = sync.OnceValues(func() (map[string]*image, error) {
	digest, err := buildImage(context.Background(), shipped("image"), filepath.Join(imageDir, "image.tar"))
	if err != nil {
		return nil, err
	}
	return unpack(filepath.Join(imageDir, "image.tar"), digest)
})

// ownImage is the image of the machine's architecture.
func (e *env) ownImage() *image {
	e.Helper()
	images, err := built()
	e.must(err)
	if images[runtime.GOARCH] == nil {
		e.Fatalf("there is no image for %s", runtime.GOARCH)
	}
	return images[runtime.GOARCH]
}

// buildImage runs build.sh of a source tree and returns the digest that it prints.
func buildImage(ctx context.Context, dir, to string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "build.sh"), "-o", to, "-t", imageVersion)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// descriptor is how one part of an OCI image names another.
type descriptor struct {
	Digest   string
	Platform struct{ Architecture, OS string }
}

// unpack reads an OCI archive that has an index of this digest.
func unpack(archive, digest string) (map[string]*image, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	blobs := map[string][]byte{}
	for tr := tar.NewReader(file); ; {
		header, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		blobs[strings.Replace(strings.TrimPrefix(header.Name, "blobs/"), "/", ":", 1)] = content
	}
	read := func(name string, into any) error {
		content, ok := blobs[name]
		if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); !ok || name != "index.json" && name != sum {
			return fmt.Errorf("%s is not in the archive, or has another digest", name)
		}
		return json.Unmarshal(content, into)
	}
	var top, index struct{ Manifests []descriptor }
	if err := errors.Join(read("index.json", &top), read(digest, &index)); err != nil {
		return nil, err
	}
	if len(top.Manifests) != 1 || top.Manifests[0].Digest != digest {
		return nil, fmt.Errorf("the archive has %v, the digest printed is %s", top.Manifests, digest)
	}
	images := map[string]*image{}
	for _, platform := range index.Manifests {
		var manifest struct {
			Config descriptor
			Layers []descriptor
		}
		img := &image{root: filepath.Join(filepath.Dir(archive), platform.Platform.Architecture)}
		if err := read(platform.Digest, &manifest); err != nil {
			return nil, err
		}
		if err := read(manifest.Config.Digest, img); err != nil {
			return nil, err
		}
		for _, layer := range manifest.Layers {
			if err := img.extract(blobs[layer.Digest]); err != nil {
				return nil, err
			}
		}
		images[platform.Platform.Architecture] = img
	}
	return images, nil
}

func (img *image) extract(layer []byte) error {
	plain, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	for tr := tar.NewReader(plain); ; {
		header, err := tr.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		path := filepath.Join(img.root, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(path, content, header.FileInfo().Mode())
			}
			img.files = append(img.files, fmt.Sprintf("%s %d:%d %s", header.FileInfo().Mode(), header.Uid, header.Gid, header.Name))
		}
		if err != nil {
			return err
		}
	}
}

// command runs the image's program as a container's runtime would, as its user and with
// its file system for all that there is.
func (img *image) command(root string, args ...string) *exec.Cmd {
	return &exec.Cmd{
		Path: "/usr/bin/" + img.Config.Entrypoint[0], Args: append(slices.Clone(img.Config.Entrypoint), args...),
		Dir: "/", Env: slices.Clone(img.Config.Env),
		SysProcAttr: &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}},
	}
}

func TestImage(t *testing.T) {
	e := newEnv(t)
	images, err := built()
	e.must(err)
	if got := slices.Sorted(maps.Keys(images)); !slices.Equal(got, []string{"amd64", "arm64"}) {
		t.Errorf("it is built for %v", got)
	}
	want := []string{
		"-rw-r--r-- 0:0 etc/group", "-rw-r--r-- 0:0 etc/passwd", "-rw-r--r-- 0:0 etc/ssl/certs/ca-certificates.crt", "-rwxr-xr-x 0:0 usr/bin/service-mirror",
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for arch, img := range images {
		if !slices.Equal(img.files, want) {
			t.Errorf("%s: it has the files %q, want %q", arch, img.files, want)
		}
		if img.Architecture != arch || img.Config.User != "65532:65532" || img.Config.Labels["org.opencontainers.image.version"] != imageVersion {
			t.Errorf("%s: it says of itself %+v", arch, img)
		}
		program, err := elf.Open(filepath.Join(img.root, "usr/bin/service-mirror"))
		e.must(err)
		if program.Machine != machines[arch] || slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s: the program is for %v, or not static", arch, program.Machine)
		}
		program.Close()
		certificates, err := os.ReadFile(filepath.Join(img.root, "etc/ssl/certs/ca-certificates.crt"))
		e.must(err)
		if !x509.NewCertPool().AppendCertsFromPEM(certificates) {
			t.Errorf("%s: there are no CA certificates", arch)
		}
		passwd, err := os.ReadFile(filepath.Join(img.root, "etc/passwd"))
		e.must(err)
		if !strings.Contains(string(passwd), ":65532:65532:") {
			t.Errorf("%s: passwd does not know the user: %s", arch, passwd)
		}
	}
	img := e.ownImage()
	cmd := img.command(img.root, "--version")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), imageVersion) {
		t.Errorf("service-mirror --version: %v, %s", err, out)
	}
}

// Another place, another time, another umask: the same digest.
func TestImageIsReproducible(t *testing.T) {
	e := newEnv(t)
	copied := t.TempDir()
	for _, name := range []string{"main.go", "go.mod", "go.sum", "gateway", "remote", "mirror", "deploy/image"} {
		e.must(copyTree(filepath.Join(shipped(".."), name), filepath.Join(copied, name)))
	}
	_, err := built()
	e.must(err)
	first, err := os.ReadFile(filepath.Join(imageDir, "image.tar"))
	e.must(err)
	defer syscall.Umask(syscall.Umask(0o077))
	digest, err := buildImage(t.Context(), filepath.Join(copied, "deploy/image"), filepath.Join(copied, "image.tar"))
	e.must(err)
	if !bytes.Contains(first, []byte(digest)) {
		t.Errorf("built again the image has the digest %s, which the first has not", digest)
	}
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if err != nil || entry.IsDir() {
			return errors.Join(err, os.MkdirAll(target, 0o755))
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, info.Mode()))
	})
}
