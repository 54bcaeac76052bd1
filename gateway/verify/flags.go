package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
)

// Options are the operator's decisions about verification.
type Options struct {
	Period time.Duration // in which the daemon verifies a sample of mirrors; 0: it does not
	CAFile string        // the roots that clients trust; empty: those of the system
}

// minPeriod bounds how often the daemon verifies.
const minPeriod = 10 * time.Second

// Flags are the flags about verification, as they are typed.
type Flags struct {
	options Options
	given   func(flag string) bool
}

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	raw.given = f.Changed
	f.DurationVar(&raw.options.Period, "verify", 0, "`PERIOD`, at least 10s, in which the daemon sends requests to a sample of the mirrors to verify that they arrive: at most one mirror every 2s, in turn (0: never)")
	f.StringVar(&raw.options.CAFile, "ca-file", "", "`FILE` with the root certificates that clients in this cluster trust, to verify gateway certificates (default: the system's)")
}

// Options are what the flags say; the error lists what is wrong with them, by flag.
func (raw *Flags) Options() (Options, error) {
	var mistakes []error
	options := raw.options
	if options.Period != 0 && options.Period < minPeriod {
		mistakes = append(mistakes, fmt.Errorf("--verify: %v is less than %v: set a longer period, or 0 to disable it", options.Period, minPeriod))
	}
	if options.CAFile == "" && raw.given("ca-file") {
		mistakes = append(mistakes, errors.New("--ca-file: the path is empty: set the path of a file, or remove the flag"))
	}
	if _, err := options.roots(); err != nil {
		mistakes = append(mistakes, fmt.Errorf("--ca-file: %w", err))
	}
	return options, errors.Join(mistakes...)
}

// maxCAFile bounds the bytes of a file of root certificates: a system's have 250 KB.
const maxCAFile = 4 << 20

// roots are the certificates of the CA file, as it is now; nil are those of the system.
func (o Options) roots() (*x509.CertPool, error) {
	if o.CAFile == "" {
		return nil, nil
	}
	file, err := os.Open(o.CAFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	pem, err := io.ReadAll(io.LimitReader(file, maxCAFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no PEM certificate", o.CAFile)
	}
	return roots, nil
}
