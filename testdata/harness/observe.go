package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// observer has a new connection for each request, as those who look at a daemon do.
var observer = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Get requests a path of what serves at an address, and returns the status code and the body.
func Get(ctx context.Context, address, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := observer.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// GetOK is Get where any status but 200 is an error.
func GetOK(ctx context.Context, address, path string) (string, error) {
	code, body, err := Get(ctx, address, path)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s answers %d %s", path, code, body)
	}
	return body, err
}

// Metric is the value of one series, NAME{LABEL="VALUE",…}, in what /metrics answers.
func Metric(metrics, series string) (float64, error) {
	for line := range strings.Lines(metrics) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no series %s", series)
}

// FreeAddress is an address of this machine, with a port that nothing listens on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
