package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// The ports of a backend's pod.
const (
	httpPort       = 8080
	httpOtherPort  = 8081
	httpsPort      = 8443
	httpsOtherPort = 8444
	mutualPort     = 8445 // HTTPS for those who have a certificate
	grpcPort       = 9090
	grpcTLSPort    = 9091
	tcpPort        = 5432
	udpPort        = 5353
)

// seen is what a backend says of a request: who it is itself, and what arrived.
type seen struct {
	Backend        string `json:"backend"`
	Host           string `json:"host,omitempty"`
	Port           int    `json:"port"` // of the pod
	Client         string `json:"client"`
	Proto          string `json:"proto"`
	ForwardedHost  string `json:"forwardedHost,omitempty"`
	ForwardedFor   string `json:"forwardedFor,omitempty"`
	ForwardedProto string `json:"forwardedProto,omitempty"`
	Caller         string `json:"caller,omitempty"` // whose certificate it was shown
	// Issued is for the client to fill in: whose certificate it was shown.
	Issued string `json:"issued,omitempty"`
	// Messages is for the client to fill in: how many a stream brought.
	Messages int `json:"messages,omitempty"`
}

// backend is a pod of Paris: it answers on all its ports with what it has seen.
func backend(args []string) int {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	name := flags.String("name", "", "what it calls itself")
	cert := flags.String("cert", "", "certificate for HTTPS")
	key := flags.String("key", "", "its key")
	clients := flags.String("clients", "", "root of the certificates that clients must have on a port for them")
	flags.Parse(args)

	listen := func(port int) net.Listener {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			log.Fatal(err)
		}
		return listener
	}
	b := &backendServer{name: *name}
	mux := http.NewServeMux()
	mux.Handle("/ws", websocket.Server{Handler: b.webSocket})
	mux.HandleFunc("/", b.http)
	serveGRPC := func(port int, options ...grpc.ServerOption) {
		server := grpc.NewServer(options...)
		grpc_health_v1.RegisterHealthServer(server, b)
		log.Fatal(server.Serve(listen(port)))
	}
	for _, port := range []int{httpPort, httpOtherPort} {
		go func() { log.Fatal(http.Serve(listen(port), mux)) }()
	}
	go serveGRPC(grpcPort)
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		for _, port := range []int{httpsPort, httpsOtherPort} {
			server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
			go func() { log.Fatal(server.ServeTLS(listen(port), "", "")) }()
		}
		if *clients != "" {
			config, err := mutualTLS(pair, *clients)
			if err != nil {
				log.Fatal(err)
			}
			server := &http.Server{Handler: mux, TLSConfig: config}
			go func() { log.Fatal(server.ServeTLS(listen(mutualPort), "", "")) }()
		}
		go serveGRPC(grpcTLSPort, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	packets, err := net.ListenPacket("udp", fmt.Sprintf(":%d", udpPort))
	if err != nil {
		log.Fatal(err)
	}
	go b.udp(packets)
	b.tcp(listen(tcpPort))
	return 0
}

// mutualTLS wants a certificate of a root from clients.
func mutualTLS(own tls.Certificate, root string) (*tls.Config, error) {
	pem, err := os.ReadFile(root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", root)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}

type backendServer struct {
	grpc_health_v1.UnimplementedHealthServer
	name string
}

func (b *backendServer) request(r *http.Request) seen {
	caller := ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		caller = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	return seen{
		Caller: caller, Backend: b.name, Host: r.Host, Port: portOf(r.Context().Value(http.LocalAddrContextKey).(net.Addr)), Client: r.RemoteAddr, Proto: r.Proto,
		ForwardedHost: r.Header.Get("X-Forwarded-Host"), ForwardedFor: r.Header.Get("X-Forwarded-For"),
		ForwardedProto: r.Header.Get("X-Forwarded-Proto"),
	}
}

// portOf is the port of a TCP address.
func portOf(address net.Addr) int { return address.(*net.TCPAddr).Port }

func (b *backendServer) http(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(b.request(r))
}

// webSocket answers each message.
func (b *backendServer) webSocket(conn *websocket.Conn) {
	answer := b.request(conn.Request())
	for {
		var text string
		if websocket.Message.Receive(conn, &text) != nil {
			return
		}
		answer.Messages++
		if websocket.JSON.Send(conn, answer) != nil {
			return
		}
	}
}

// tcp answers the first line of each connection.
func (b *backendServer) tcp(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				json.NewEncoder(conn).Encode(seen{Backend: b.name, Port: tcpPort, Client: conn.RemoteAddr().String(), Proto: "tcp"})
			}
		}()
	}
}

// udp answers each packet.
func (b *backendServer) udp(conn net.PacketConn) {
	buffer := make([]byte, 512)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		answer, _ := json.Marshal(seen{Backend: b.name, Port: udpPort, Client: from.String(), Proto: "udp"})
		conn.WriteTo(append(answer, '\n'), from)
	}
}

// Check is the unary call: what was seen comes back in the header.
func (b *backendServer) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, grpc.SetHeader(ctx, b.call(ctx))
}

// Watch is the stream: three messages.
func (b *backendServer) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	if err := stream.SetHeader(b.call(stream.Context())); err != nil {
		return err
	}
	for range 3 {
		if err := stream.Send(&grpc_health_v1.HealthCheckResponse{}); err != nil {
			return err
		}
	}
	return nil
}

func (b *backendServer) call(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	from, _ := peer.FromContext(ctx)
	text, _ := json.Marshal(seen{
		Backend: b.name, Host: strings.Join(in[":authority"], ","), Port: portOf(from.LocalAddr), Client: from.Addr.String(), Proto: "grpc",
		ForwardedHost: strings.Join(in["x-forwarded-host"], ","), ForwardedFor: strings.Join(in["x-forwarded-for"], ","),
	})
	return metadata.Pairs("seen", string(text))
}
