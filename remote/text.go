package remote

// What a value takes in memory, of an answer in JSON: more than a struct of Kubernetes' own does, but for
// the items of lists.
const (
	valueMemory = 128
	itemMemory  = 2 << 10
)

// text counts what an answer in JSON takes: without looking at what it means, each value counts
// as a struct.
type text struct {
	*bound
	frames bool // it is a stream of events

	read, memory    int64 // of the answer, or of the event that has begun
	before          int64 // the item that is being read: the memory that was counted
	items           int
	depth           int
	list            bool // at depth 2 there is an array
	quoted, escaped bool
	count           int // events
}

func (t *text) between() bool { return t.depth == 0 && !t.quoted } // an API server writes a line break after each event
func (t *text) events() int   { return t.count }

func (t *text) feed(data []byte) error {
	for _, char := range data {
		if t.read++; t.read > t.bytes {
			return t.refuseBytes()
		}
		switch {
		case t.escaped:
			t.escaped = false
		case t.quoted:
			t.escaped, t.quoted = char == '\\', char != '"'
			t.memory++
		case char == '"':
			t.quoted = true
		default:
			t.structure(char)
		}
		if t.took = t.memory; t.memory > t.bound.memory {
			return t.refuseMemory()
		}
		if t.one > 0 && t.items > 0 && t.memory-t.before > t.one {
			return t.refuseItem()
		}
		if t.bound.items > 0 && t.items > t.bound.items {
			return t.refuseItems()
		}
	}
	return nil
}

// structure counts by the characters between strings.
func (t *text) structure(char byte) {
	switch char {
	case '{', '[':
		t.memory += valueMemory
		if t.depth++; t.depth == 2 {
			if t.list = char == '['; t.list {
				t.item()
			}
		}
	case '}', ']':
		if t.depth--; t.depth == 0 && t.frames {
			t.ended(t.memory)
			*t = text{bound: t.bound, frames: true, count: t.count + 1}
		}
	case ',':
		if t.memory += valueMemory; t.depth == 2 && t.list {
			t.item()
		}
	}
}

func (t *text) item() {
	t.items++
	t.before = t.memory
	t.memory += itemMemory
}
