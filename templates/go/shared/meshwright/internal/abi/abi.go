// Package abi has the canonical ABI by hand: how values cross. Records lie in memory as C would lay them out, with
// pointers of 32 bits.
package abi

import "unsafe"

type Text struct{ At, Len uint32 }

type List struct{ At, Len uint32 }

type Optional[T any] struct {
	Some  uint32
	Value T
}

// Result has no value, or says what is wrong: a text or a list.
type Result struct {
	IsErr  uint32
	Reason List
}

// What the host hands in is put here and taken out at once. It is no memory of Go's, since a collection of garbage
// may ask for the time, and nothing may be asked while the host allocates.
var (
	arena [4 << 20 / 8]uint64
	used  uint32
)

// What was handed out, kept until the host has read it.
var kept []any

//go:wasmexport cabi_export_realloc
func reallocExport(old unsafe.Pointer, oldLen, align, newLen uint32) unsafe.Pointer {
	used = (used + align - 1) &^ (align - 1)
	if newLen > 8*uint32(len(arena))-used {
		panic("what the host handed in is larger than 4 MiB")
	}
	at := unsafe.Pointer(uintptr(unsafe.Pointer(&arena)) + uintptr(used))
	used += newLen
	if oldLen > 0 {
		copy(unsafe.Slice((*byte)(at), newLen), unsafe.Slice((*byte)(old), oldLen))
	}
	return at
}

//go:wasmexport cabi_import_realloc
func reallocImport(old unsafe.Pointer, oldLen, align, newLen uint32) unsafe.Pointer {
	return reallocExport(old, oldLen, align, newLen)
}

func pointer(at uint32) unsafe.Pointer { return unsafe.Pointer(uintptr(at)) }

func Take(t Text) string {
	return string(unsafe.Slice((*byte)(pointer(t.At)), t.Len))
}

func Items[T any](l List) []T { return unsafe.Slice((*T)(pointer(l.At)), l.Len) }

func TakeAll(l List) []string {
	all := make([]string, 0, l.Len)
	for _, t := range Items[Text](l) {
		all = append(all, Take(t))
	}
	return all
}

func Give(s string) Text {
	if s == "" {
		return Text{}
	}
	kept = append(kept, s)
	return Text{uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))), uint32(len(s))}
}

func GiveAll[T any](values []T) List {
	if len(values) == 0 {
		return List{}
	}
	kept = append(kept, values)
	return List{uint32(uintptr(unsafe.Pointer(&values[0]))), uint32(len(values))}
}

// Some is nothing for an empty text.
func Some(s string) Optional[Text] {
	if s == "" {
		return Optional[Text]{}
	}
	return Optional[Text]{1, Give(s)}
}

// NonZero is nothing for 0.
func NonZero(n uint32) Optional[uint32] {
	if n == 0 {
		return Optional[uint32]{}
	}
	return Optional[uint32]{1, n}
}

// Forget when the host has read what was handed out, and what it handed in was taken.
func Forget() { kept, used = nil, 0 }
