package verify

import (
	"context"
	"errors"
	"os"
	"time"
)

// settled is how long a connection must stay open to count. A gateway that has no backend accepts it and
// closes it at once.
const settled = time.Second

// connect finds out whether a connection is closed at once: plain TCP has no request that all servers answer.
func connect(ctx context.Context, t Target, dial dialer) Outcome {
	begin := time.Now()
	conn, err := dial(ctx)
	if err != nil {
		return t.unanswered(answer{err: err, latency: time.Since(begin)})
	}
	defer conn.Close()
	latency := time.Since(begin)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetReadDeadline(time.Now().Add(settled))
	n, err := conn.Read(make([]byte, 1))
	switch {
	case n > 0:
		return Outcome{Result: Reached, Answer: "the server sends data", Latency: latency}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Outcome{Result: Reached, Answer: "the connection stays open", Latency: latency}
	}
	return Outcome{Result: Closed, Answer: "the connection is accepted and closed immediately", Latency: latency,
		Remedy: "check that the gateway port is routed to the exported Service, and that the Service has ready pods"}
}
