package remote

import (
	"reflect"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
)

// message is what a Go type takes in memory that is decoded from protobuf.
type message struct {
	size   int64
	fields map[uint64]field
}

// field is a field of a message.
type field struct {
	each     int64 // memory for each value, besides its bytes
	eachByte int64 // memory for each byte of a value; 0: 1
	item     bool  // each value is an object of a list
	message  *message
}

const (
	stringSize = 16 // of its header; the bytes of a short one take as much
	mapEntry   = 64 // besides key and value
)

var messages = struct {
	sync.Mutex
	known map[reflect.Type]*message
}{known: map[reflect.Type]*message{}}

// messageOf is the message of an object's type.
func messageOf(obj runtime.Object) *message {
	messages.Lock()
	defer messages.Unlock()
	of := reflect.TypeOf(obj).Elem()
	m := messageOfType(of)
	if items, found := of.FieldByName("Items"); found && items.Type.Kind() == reflect.Slice {
		number, _ := fieldNumber(items)
		if list := m.fields[number]; !list.item { // else others read it by now
			list.item = true
			m.fields[number] = list
		}
	}
	return m
}

// messageOfType makes it of the tags of the type's fields. messages is locked.
func messageOfType(of reflect.Type) *message {
	if m := messages.known[of]; m != nil {
		return m
	}
	m := &message{size: int64(of.Size()), fields: map[uint64]field{}}
	messages.known[of] = m // it may have itself
	for i := range of.NumField() {
		if number, tagged := fieldNumber(of.Field(i)); tagged {
			m.fields[number] = fieldOfType(of.Field(i).Type)
		}
	}
	return m
}

func fieldNumber(of reflect.StructField) (uint64, bool) {
	parts := strings.Split(of.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return 0, false
	}
	number, err := strconv.ParseUint(parts[1], 10, 29)
	return number, err == nil
}

func fieldOfType(of reflect.Type) field {
	switch of.Kind() {
	case reflect.Struct:
		return field{message: messageOfType(of)}
	case reflect.Pointer:
		pointed := fieldOfType(of.Elem())
		pointed.each += int64(of.Elem().Size())
		return pointed
	case reflect.Map:
		return field{each: 2*int64(of.Key().Size()+of.Elem().Size()) + mapEntry}
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			return field{each: stringSize}
		}
		element := fieldOfType(of.Elem())
		size := int64(of.Elem().Size())
		if element.message == nil && of.Elem().Kind() != reflect.String {
			element.eachByte = 2 * size // packed
		}
		element.each += 2 * size // a slice grows beyond what it has
		return element
	}
	return field{each: stringSize}
}
