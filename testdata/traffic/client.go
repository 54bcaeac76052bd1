package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// caller is a pod of London: it has a resolver, a URL, and perhaps certificates.
type caller struct {
	tls     *tls.Config
	network string
	to      string
	http2   bool
	timeout time.Duration
}

// client makes one request and prints the answer as JSON, or makes requests at
// a steady rate until its standard input ends or there are COUNT of them, or as many
// as it can until there are COUNT of them, and prints a count.
//
//	client [--network tcp4|tcp6] [--to HOST:PORT] [--http2] [--root FILE] [--cert FILE --key FILE] [--resume] [--rate N] [--count N] URL
//
// The scheme of the URL says what kind of request: http, https, ws, wss, grpc,
// grpc-stream, grpcs, tcp or udp.
func client(args []string) int {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	network := flags.String("network", "tcp", "tcp4 and tcp6 ask for addresses of one family, and connect to no other")
	root := flags.String("root", "", "root certificate that servers must have")
	cert := flags.String("cert", "", "own certificate")
	key := flags.String("key", "", "its key")
	host := flags.String("host", "", "Host header, if another than the URL's")
	http2 := flags.Bool("http2", false, "request https with HTTP/2")
	resume := flags.Bool("resume", false, "make the request twice: the second resumes the TLS session of the first, if the server lets it")
	to := flags.String("to", "", "what to connect to, HOST:PORT, if another than the URL's")
	rate := flags.Int("rate", 0, "requests per second, each on a connection of its own")
	count := flags.Int("count", 0, "requests; without --rate eight at a time, each of the eight on a connection that is kept")
	timeout := flags.Duration("timeout", 5*time.Second, "for one request")
	flags.Parse(args)

	c := &caller{tls: &tls.Config{RootCAs: x509.NewCertPool()}, network: *network, to: *to, http2: *http2, timeout: *timeout}
	if *root != "" {
		pem, err := os.ReadFile(*root)
		if err != nil || !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			fmt.Fprintln(os.Stderr, "no root certificate:", err)
			return 2
		}
	}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if *rate > 0 {
		json.NewEncoder(os.Stdout).Encode(c.load(target, *rate, *count))
		return 0
	}
	if *count > 0 {
		json.NewEncoder(os.Stdout).Encode(c.many(target, *count))
		return 0
	}
	if *resume {
		c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if _, err := c.call(target, *host); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	answer, err := c.call(target, *host)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	json.NewEncoder(os.Stdout).Encode(answer)
	return 0
}

func (c *caller) call(target *url.URL, host string) (seen, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	switch target.Scheme {
	case "http", "https":
		return c.http(ctx, target, host)
	case "ws", "wss":
		return c.webSocket(ctx, target)
	case "grpc":
		return c.grpc(ctx, target, false)
	case "grpc-stream":
		return c.grpc(ctx, target, true)
	case "grpcs":
		return c.grpc(ctx, target, false)
	case "tcp", "udp":
		return c.line(ctx, target)
	}
	return seen{}, fmt.Errorf("what is %s?", target.Scheme)
}

// dial connects to a name's address of the family that is wanted.
func (c *caller) dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, c.network, cmp.Or(c.to, address))
}

func (c *caller) http(ctx context.Context, target *url.URL, host string) (answer seen, wrong error) {
	transport := &http.Transport{
		DialContext:     func(ctx context.Context, _, address string) (net.Conn, error) { return c.dial(ctx, address) },
		TLSClientConfig: c.tls, DisableKeepAlives: true, ForceAttemptHTTP2: c.http2,
	}
	var step atomic.Value // what a request that fails was waiting for
	step.Store("resolve")
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectStart: func(_, address string) { step.Store("connect") },
		GotConn:      func(httptrace.GotConnInfo) { step.Store("answer") },
	})
	defer func() {
		if wrong != nil {
			wrong = fmt.Errorf("%s: %w", step.Load(), wrong)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return seen{}, err
	}
	req.Host = host
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return seen{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return seen{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return seen{}, fmt.Errorf("status %d: %.200s", resp.StatusCode, body)
	}
	if c.http2 && resp.ProtoMajor != 2 {
		return seen{}, errors.New("the answer has " + resp.Proto)
	}
	if len(body) > 0 { // a health check has none
		err = json.Unmarshal(body, &answer)
	}
	if resp.TLS != nil {
		answer.Issued = resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	return answer, err
}

func (c *caller) webSocket(ctx context.Context, target *url.URL) (seen, error) {
	config, err := websocket.NewConfig(target.String(), "http://foo.default/")
	if err != nil {
		return seen{}, err
	}
	host := target.Host
	if target.Port() == "" {
		host += map[string]string{"ws": ":80", "wss": ":443"}[target.Scheme]
	}
	raw, err := c.dial(ctx, host)
	if err != nil {
		return seen{}, err
	}
	if target.Scheme == "wss" {
		config := c.tls.Clone()
		config.ServerName = target.Hostname()
		raw = tls.Client(raw, config)
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	conn, err := websocket.NewClient(config, raw)
	if err != nil {
		return seen{}, err
	}
	var answer seen
	for range 3 {
		if err := errors.Join(websocket.Message.Send(conn, "hello"), websocket.JSON.Receive(conn, &answer)); err != nil {
			return seen{}, err
		}
	}
	return answer, nil
}

func (c *caller) grpc(ctx context.Context, target *url.URL, stream bool) (answer seen, err error) {
	security := insecure.NewCredentials()
	if target.Scheme == "grpcs" {
		security = credentials.NewTLS(c.tls)
	}
	conn, err := grpc.NewClient("passthrough:///"+target.Host, grpc.WithContextDialer(c.dial), grpc.WithTransportCredentials(security))
	if err != nil {
		return seen{}, err
	}
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	var header metadata.MD
	messages := 0
	if stream {
		watch, err := health.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			return seen{}, err
		}
		for {
			if _, err := watch.Recv(); err == io.EOF {
				break
			} else if err != nil {
				return seen{}, err
			}
			messages++
		}
		if header, err = watch.Header(); err != nil {
			return seen{}, err
		}
	} else if _, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header)); err != nil {
		return seen{}, err
	}
	if len(header["seen"]) != 1 {
		return seen{}, fmt.Errorf("header %v", header)
	}
	err = json.Unmarshal([]byte(header["seen"][0]), &answer)
	answer.Messages = messages
	return answer, err
}

// line sends a line and reads one, over TCP or, a packet each, UDP.
func (c *caller) line(ctx context.Context, target *url.URL) (answer seen, err error) {
	network := strings.Replace(c.network, "tcp", target.Scheme, 1)
	conn, err := new(net.Dialer).DialContext(ctx, network, target.Host)
	if err != nil {
		return seen{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return seen{}, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return seen{}, err
	}
	return answer, json.Unmarshal([]byte(line), &answer)
}

// tally is what came of a steady stream of requests.
type tally struct {
	Sent     int            `json:"sent"`
	Failed   int            `json:"failed"`
	Backends map[string]int `json:"backends"`
	// FailedFor is the time between the first failure and the last.
	FailedFor time.Duration `json:"failedFor"`
	// LastFailed is when the last failure began, First when each backend's first answer did.
	LastFailed time.Time            `json:"lastFailed"`
	First      map[string]time.Time `json:"first,omitempty"`
	Errors     []string             `json:"errors,omitempty"` // the first of them
}

// load sends requests at a steady rate: so many, or, if that is 0, until standard input ends.
func (c *caller) load(target *url.URL, rate, count int) tally {
	done := make(chan struct{})
	if count == 0 {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			close(done)
		}()
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	result := tally{Backends: map[string]int{}, First: map[string]time.Time{}}
	var first time.Time
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for started := 0; count == 0 || started < count; started++ {
		select {
		case <-done:
			wg.Wait()
			return result
		case at := <-ticker.C:
			wg.Go(func() {
				answer, err := c.call(target, "")
				mu.Lock()
				defer mu.Unlock()
				result.Sent++
				if err == nil {
					result.Backends[answer.Backend]++
					if began, known := result.First[answer.Backend]; !known || at.Before(began) {
						result.First[answer.Backend] = at
					}
					return
				}
				result.Failed++
				if at.After(result.LastFailed) {
					result.LastFailed = at
				}
				if first.IsZero() {
					first = at
				}
				result.FailedFor = max(result.FailedFor, at.Sub(first))
				if len(result.Errors) < 5 {
					result.Errors = append(result.Errors, at.Format(time.TimeOnly+".000: ")+err.Error())
				}
			})
		}
	}
	wg.Wait()
	return result
}

// many makes requests of HTTP, eight at a time, over connections that are kept.
func (c *caller) many(target *url.URL, count int) tally {
	const atOnce = 8
	client := &http.Client{Timeout: c.timeout, Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, address string) (net.Conn, error) { return c.dial(ctx, address) },
		MaxIdleConnsPerHost: atOnce,
	}}
	result := tally{Backends: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	left := make(chan struct{}, count)
	for range count {
		left <- struct{}{}
	}
	close(left)
	for range atOnce {
		wg.Go(func() {
			for range left {
				answer, err := get(client, target.String())
				mu.Lock()
				result.Sent++
				if err == nil {
					result.Backends[answer.Backend]++
				} else if result.Failed++; len(result.Errors) < 5 {
					result.Errors = append(result.Errors, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return result
}

func get(client *http.Client, url string) (answer seen, err error) {
	response, err := client.Get(url)
	if err != nil {
		return seen{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return seen{}, fmt.Errorf("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return seen{}, err
	}
	return answer, json.Unmarshal(body, &answer)
}
