package quickstart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// registry is a container registry, as far as a push needs it: see the OCI's distribution specification.
type registry struct {
	server *httptest.Server
	host   string

	mu        sync.Mutex
	blobs     map[string][]byte // by digest; manifests are blobs, too
	uploads   map[string][]byte
	manifests map[string]string // digests, by NAME:TAG and NAME@DIGEST
	types     map[string]string // media types of manifests, by digest
}

func newRegistry() *registry {
	return &registry{blobs: map[string][]byte{}, uploads: map[string][]byte{}, manifests: map[string]string{}, types: map[string]string{}}
}

// listen has the registry serve until the test ends.
func (r *registry) listen(t *testing.T) {
	t.Helper()
	r.server = httptest.NewTLSServer(r)
	t.Cleanup(r.server.Close)
	r.host = r.server.Listener.Addr().String()
}

// trusted is the variable by which programs trust the registry's certificate.
func (r *registry) trusted(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.crt")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	if err := os.WriteFile(path, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return "SSL_CERT_FILE=" + path
}

func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the client has gone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	path := strings.TrimPrefix(request.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if name, upload, found := strings.Cut(path, "/blobs/uploads/"); found {
		r.upload(w, request, name, upload, body)
	} else if _, digest, found := strings.Cut(path, "/blobs/"); found {
		r.serve(w, digest, "application/octet-stream")
	} else if name, reference, found := strings.Cut(path, "/manifests/"); found {
		r.manifest(w, request, name, reference, body)
	} else {
		http.NotFound(w, request)
	}
}

func (r *registry) upload(w http.ResponseWriter, request *http.Request, name, upload string, body []byte) {
	if request.Method == http.MethodPost {
		upload = strconv.Itoa(len(r.uploads))
	}
	r.uploads[upload] = append(r.uploads[upload], body...)
	if request.Method == http.MethodPut {
		content, digest := r.uploads[upload], request.URL.Query().Get("digest")
		if digest != digestOf(content) {
			http.Error(w, "another digest", http.StatusBadRequest)
			return
		}
		r.blobs[digest] = content
		w.Header().Set("Location", "/v2/"+name+"/blobs/"+digest)
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+upload)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(r.uploads[upload])-1, 0)))
	w.WriteHeader(http.StatusAccepted)
}

func (r *registry) manifest(w http.ResponseWriter, request *http.Request, name, reference string, body []byte) {
	if request.Method == http.MethodPut {
		digest := digestOf(body)
		r.blobs[digest], r.types[digest] = body, request.Header.Get("Content-Type")
		r.manifests[name+":"+reference], r.manifests[name+":"+digest] = digest, digest
		w.Header().Set("Docker-Content-Digest", digest)
		w.WriteHeader(http.StatusCreated)
		return
	}
	digest := r.manifests[name+":"+reference]
	r.serve(w, digest, r.types[digest])
}

func (r *registry) serve(w http.ResponseWriter, digest, mediaType string) {
	content, found := r.blobs[digest]
	if !found {
		http.Error(w, "unknown", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	w.Header().Set("Docker-Content-Digest", digest)
	w.Write(content)
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

// has tells whether an image is one of this registry.
func (r *registry) has(image string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, known := r.manifests[r.name(image)]
	return known || r.server != nil && strings.HasPrefix(image, r.host+"/")
}

// name is that of an image in the registry: a name without one is in Docker's.
func (r *registry) name(image string) string {
	if !strings.Contains(image, "/") {
		return "docker.io/library/" + image
	}
	return strings.TrimPrefix(image, r.host+"/")
}

// load takes the image of an OCI archive, as the images of a node do without any registry.
func (r *registry) load(archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	for tr := tar.NewReader(file); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if header.Name == "index.json" {
			if err := json.Unmarshal(content, &index); err != nil {
				return err
			}
		} else if header.Typeflag == tar.TypeReg {
			r.blobs[digestOf(content)] = content
		}
	}
	for _, m := range index.Manifests {
		r.manifests[m.Annotations["org.opencontainers.image.ref.name"]] = m.Digest
	}
	return nil
}

// pull unpacks what an image has for this machine into a directory.
func (r *registry) pull(image, dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest, found := r.manifests[r.name(image)]
	if !found {
		return fmt.Errorf("nobody has pushed %s, but %q", image, slices.Sorted(maps.Keys(r.manifests)))
	}
	var index struct {
		Manifests []struct {
			Digest   string
			Platform struct{ Architecture string }
		}
	}
	if err := json.Unmarshal(r.blobs[digest], &index); err != nil {
		return err
	}
	for _, m := range index.Manifests {
		if m.Platform.Architecture != runtime.GOARCH {
			continue
		}
		var manifest struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal(r.blobs[m.Digest], &manifest); err != nil {
			return err
		}
		for _, layer := range manifest.Layers {
			if err := unpack(r.blobs[layer.Digest], dir); err != nil {
				return fmt.Errorf("layer %s: %w", layer.Digest, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%s is not for %s: %s", image, runtime.GOARCH, r.blobs[digest])
}

func unpack(layer []byte, dir string) error {
	plain, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	for tr := tar.NewReader(plain); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		path := filepath.Join(dir, header.Name)
		if header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, header.FileInfo().Mode()))
			}
		}
		if err != nil {
			return err
		}
	}
}
