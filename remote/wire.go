package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// wire counts what an answer in protobuf takes: it walks through the messages as they are
// read, and counts each as the Go type that it is decoded to.
type wire struct {
	*bound
	read, memory int64
	before       int64 // the item that is being read: the memory that was counted
	items        int

	levels []nesting // of messages, the innermost last
	state  wireState
	number uint64 // a varint that is being read
	shift  uint
	tag    uint64
	skip   int64  // bytes of a value, or of the magic, that follow
	meta   []byte // the type of what follows, encoded
	typed  bool   // that has begun
	raw    bool   // what follows has begun
}

// nesting is a message that is being read.
type nesting struct {
	*message
	end int64 // its end, in the bytes of the answer
}

type wireState int

const (
	atTag wireState = iota
	atVarint
	atLength
	inValue
	inMeta
	inMagic
)

// Messages around an object, which is a runtime.Unknown: its type, and its bytes.
var (
	envelope = &message{}
	// watchEvent is a metav1.WatchEvent: a type, and a runtime.RawExtension.
	watchEvent = &message{fields: map[uint64]field{2: {message: &message{fields: map[uint64]field{1: {message: envelope}}}}}}
)

// maxTypeMeta is the size of the name of a type.
const maxTypeMeta = 1 << 10

var errNotProtobuf = errors.New("malformed answer: it is not protobuf")

func newWire(b *bound) *wire {
	w := &wire{bound: b}
	w.enter(envelope, math.MaxInt64)
	return w
}

// enter begins a message.
func (w *wire) enter(m *message, end int64) {
	w.levels = append(w.levels, nesting{m, end})
	if m == envelope {
		w.state, w.skip, w.typed, w.raw, w.meta = inMagic, int64(len(protobufPrefix)), false, false, w.meta[:0]
	}
}

func (w *wire) feed(data []byte) error {
	for len(data) > 0 {
		n, err := w.step(data)
		if err != nil {
			return err
		}
		data = data[n:]
		w.took = w.memory
		switch w.read += int64(n); {
		case w.read > w.bytes:
			return w.refuseBytes()
		case w.memory > w.bound.memory:
			return w.refuseMemory()
		case w.one > 0 && w.items > 0 && w.memory-w.before > w.one:
			return w.refuseItem()
		case w.bound.items > 0 && w.items > w.bound.items:
			return w.refuseItems()
		}
		if len(w.levels) > 0 && w.top().end < w.read {
			return errNotProtobuf // a field goes beyond the end of its message: the decoder would read the rest as another one
		}
		for w.state == atTag && w.shift == 0 && len(w.levels) > 0 && w.top().end == w.read {
			w.levels = w.levels[:len(w.levels)-1]
		}
	}
	return nil
}

// step looks at some of the next bytes, of which there is at least one, and returns how many.
func (w *wire) step(data []byte) (n int, err error) {
	switch w.state {
	case inValue, inMeta, inMagic:
		n = int(min(w.skip, int64(len(data))))
		if w.state == inMeta {
			w.meta = append(w.meta, data[:n]...)
		}
		if w.skip -= int64(n); w.skip == 0 {
			w.state = atTag
		}
		return n, nil
	}
	if len(w.levels) == 0 || w.shift > 63 {
		return 0, errNotProtobuf
	}
	w.number |= uint64(data[0]&0x7f) << w.shift
	if w.shift += 7; data[0] >= 0x80 {
		return 1, nil
	}
	number := w.number
	w.number, w.shift = 0, 0
	return 1, w.complete(number)
}

// complete goes on after a number.
func (w *wire) complete(number uint64) error {
	switch w.state {
	case atTag:
		w.tag = number
		return w.begin()
	case atLength:
		return w.value(number)
	}
	w.memory += w.field().each // of a varint
	w.state = atTag
	return nil
}

func (w *wire) top() nesting { return w.levels[len(w.levels)-1] }
func (w *wire) field() field { return w.top().fields[w.tag>>3] }

// begin begins a field, after its tag.
func (w *wire) begin() error {
	if w.tag > math.MaxUint32 {
		return errNotProtobuf // decoders look at the lower 32 bits, and take it for another field
	}
	switch w.tag & 7 {
	case 0:
		w.state = atVarint
	case 1:
		w.state, w.skip = inValue, 8
	case 2:
		w.state = atLength
	case 5:
		w.state, w.skip = inValue, 4
	default:
		return errNotProtobuf // groups are not used any more
	}
	return nil
}

// value begins a value of so many bytes.
func (w *wire) value(length uint64) error {
	begin := w.read + 1 // after the last byte of the length, which is being looked at
	if length > uint64(w.bytes) || begin+int64(length) > w.bytes {
		return w.refuseBytes()
	}
	end := begin + int64(length)
	if end > w.top().end {
		return errNotProtobuf
	}
	if w.state = atTag; length > 0 {
		w.state, w.skip = inValue, int64(length)
	}
	if w.top().message == envelope {
		return w.enveloped(length, end)
	}
	is := w.field()
	if is.item {
		w.items++
		w.before = w.memory
	}
	w.memory += is.each
	if is.message == nil {
		w.memory += int64(length) * max(1, is.eachByte)
	} else if length > 0 {
		w.state = atTag
		w.enter(is.message, end)
	}
	return nil
}

// enveloped begins a field of a runtime.Unknown: only the last value of a field counts in
// protobuf, so each may come once, and the type first.
func (w *wire) enveloped(length uint64, end int64) error {
	switch w.tag >> 3 {
	case 1:
		if w.typed || w.raw || length > maxTypeMeta {
			return errNotProtobuf
		}
		if w.typed = true; length > 0 {
			w.state = inMeta
		}
	case 2:
		if w.raw {
			return errNotProtobuf
		}
		w.raw = true
		of, err := w.typeOf()
		if err != nil {
			return err
		}
		w.memory += of.size
		if length > 0 {
			w.state = atTag
			w.enter(of, end)
		}
	}
	return nil
}

// typeOf is the type of what the envelope has.
func (w *wire) typeOf() (*message, error) {
	if known, found := knownKinds.Load(string(w.meta)); found {
		return known.(*message), nil
	}
	var meta runtime.TypeMeta
	if err := meta.Unmarshal(w.meta); err != nil {
		return nil, errNotProtobuf
	}
	kind := schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind)
	obj, err := scheme.Scheme.New(kind)
	if kind == metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata") {
		obj, err = &metav1.PartialObjectMetadata{}, nil // the client's scheme does not have it
	}
	if err != nil {
		return nil, fmt.Errorf("malformed answer: unexpected content type %.100s", describeKind(kind))
	}
	m := messageOf(obj)
	if canonical, err := meta.Marshal(); err == nil && bytes.Equal(canonical, w.meta) { // else a server could have any number kept
		knownKinds.Store(string(canonical), m)
	}
	return m, nil
}

// knownKinds are the messages of kinds, by their type as API servers encode it.
var knownKinds sync.Map

// wireFrames counts in a stream of events in protobuf, each after its length.
type wireFrames struct {
	*bound
	header []byte
	event  *wire
	left   int64 // bytes of the event
	count  int
}

func (f *wireFrames) between() bool { return f.left == 0 && len(f.header) == 0 }
func (f *wireFrames) events() int   { return f.count }

// begin begins an event.
func (f *wireFrames) begin() {
	if f.event == nil {
		f.event = &wire{bound: f.bound}
	}
	*f.event = wire{bound: f.bound, levels: f.event.levels[:0], meta: f.event.meta[:0]}
	f.event.enter(watchEvent, f.left)
}

func (f *wireFrames) feed(data []byte) error {
	for len(data) > 0 {
		if f.left == 0 {
			n := min(4-len(f.header), len(data))
			f.header, data = append(f.header, data[:n]...), data[n:]
			if len(f.header) < 4 {
				return nil
			}
			f.left, f.header = int64(binary.BigEndian.Uint32(f.header)), f.header[:0]
			if f.left > f.bytes {
				return f.refuseBytes()
			}
			f.begin()
			continue
		}
		n := min(f.left, int64(len(data)))
		if err := f.event.feed(data[:n]); err != nil {
			return err
		}
		data = data[n:]
		if f.left -= n; f.left == 0 {
			f.count++
			f.ended(f.event.memory)
		}
	}
	return nil
}
