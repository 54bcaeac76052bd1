// Command sbom prints what a Go program is made of, as an SPDX document: the modules that the linker recorded in it. It
// is a function of the program, its arguments and $SOURCE_DATE_EPOCH.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

func main() {
	name := flag.String("name", "", "`NAME` of the document")
	version := flag.String("version", "", "`VERSION` of the program")
	flag.Parse()
	if err := run(*name, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(name, version string, args []string) error {
	if name == "" || version == "" || len(args) != 1 {
		return errors.New("usage: sbom --name NAME --version VERSION PROGRAM")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	program, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(describe(subject{name: name, version: version, sum: fmt.Sprintf("%x", sha256.Sum256(program)), created: time.Unix(seconds, 0)}, info))
}

// subject is the program that a document is about.
type subject struct {
	name, version string
	sum           string // SHA-256
	created       time.Time
}

const (
	unknown = "NOASSERTION"
	program = "SPDXRef-Program"
)

func describe(s subject, info *debug.BuildInfo) document {
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: s.name,
		DocumentNamespace: "https://service-mirror.io/spdx/" + s.name + "-" + s.sum,
		CreationInfo:      creation{Created: s.created.UTC().Format(time.RFC3339), Creators: []string{"Tool: service-mirror-sbom"}},
	}
	main := module(program, info.Main.Path, s.version)
	main.LicenseDeclared, main.Purpose = "Apache-2.0", "APPLICATION"
	main.Checksums = []checksum{{"SHA256", s.sum}}
	d.Packages = append(d.Packages, main)
	d.Relationships = append(d.Relationships, relationship{d.SPDXID, "DESCRIBES", program})
	depends := func(path, version, sum string) {
		p := module(fmt.Sprintf("SPDXRef-Module-%d", len(d.Packages)), path, version)
		if sum != "" {
			p.SourceInfo = "go.sum: " + sum
		}
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{program, "DEPENDS_ON", p.SPDXID})
	}
	depends("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "")
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		depends(dep.Path, dep.Version, dep.Sum)
	}
	return d
}

func module(id, path, version string) pkg {
	return pkg{
		SPDXID: id, Name: path, Version: version, Location: unknown, Copyright: unknown, LicenseConcluded: unknown, LicenseDeclared: unknown,
		Purpose:   "LIBRARY",
		Externals: []external{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")}},
	}
}

// What of SPDX 2.3 is used, https://spdx.github.io/spdx-spec/v2.3/.
type (
	document struct {
		SPDXVersion       string         `json:"spdxVersion"`
		DataLicense       string         `json:"dataLicense"`
		SPDXID            string         `json:"SPDXID"`
		Name              string         `json:"name"`
		DocumentNamespace string         `json:"documentNamespace"`
		CreationInfo      creation       `json:"creationInfo"`
		Packages          []pkg          `json:"packages"`
		Relationships     []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	pkg struct {
		SPDXID           string     `json:"SPDXID"`
		Name             string     `json:"name"`
		Version          string     `json:"versionInfo"`
		Location         string     `json:"downloadLocation"`
		FilesAnalyzed    bool       `json:"filesAnalyzed"`
		Checksums        []checksum `json:"checksums,omitempty"`
		SourceInfo       string     `json:"sourceInfo,omitempty"`
		LicenseConcluded string     `json:"licenseConcluded"`
		LicenseDeclared  string     `json:"licenseDeclared"`
		Copyright        string     `json:"copyrightText"`
		Externals        []external `json:"externalRefs"`
		Purpose          string     `json:"primaryPackagePurpose"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	external struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)
