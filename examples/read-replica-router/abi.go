package main

// The canonical ABI by hand: what every plugin exports, and how values cross. Records lie in memory as C would lay
// them out, with pointers of 32 bits. What is exported here calls the functions of policy.go.

import "unsafe"

// Issue is a complaint about the configuration; Path is a JSON pointer, empty for the whole.
type Issue struct{ Path, Message string }

type text struct{ at, len uint32 }

type list struct{ at, len uint32 }

type optional[T any] struct {
	some  uint32
	value T
}

type issue struct{ path, message text }

type result struct {
	isErr uint32
	value list
}

// What the host hands in is put here and taken out at once. It is no memory of Go's, since a collection of garbage
// may ask for the time, and nothing may be asked while the host allocates.
var (
	arena [4 << 20 / 8]uint64
	used  uint32
)

// What was handed out, kept until the host has read it.
var (
	kept      []any
	succeeded result
	said      text
)

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

func take(t text) string {
	return string(unsafe.Slice((*byte)(pointer(t.at)), t.len))
}

func items[T any](l list) []T { return unsafe.Slice((*T)(pointer(l.at)), l.len) }

func takeAll(l list) []string {
	all := make([]string, 0, l.len)
	for _, t := range items[text](l) {
		all = append(all, take(t))
	}
	return all
}

func give(s string) text {
	if s == "" {
		return text{}
	}
	kept = append(kept, s)
	return text{uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))), uint32(len(s))}
}

func some(s string) optional[text] {
	if s == "" {
		return optional[text]{}
	}
	return optional[text]{1, give(s)}
}

func nonZero(n uint32) optional[uint32] {
	if n == 0 {
		return optional[uint32]{}
	}
	return optional[uint32]{1, n}
}

func forget() { kept, used = nil, 0 }

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#metadata
func exportMetadata() unsafe.Pointer {
	said = give(metadata())
	return unsafe.Pointer(&said)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#metadata
func postMetadata(unsafe.Pointer) { forget() }

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#configure
func exportConfigure(at, length uint32) unsafe.Pointer {
	issues := configure(take(text{at, length}))
	succeeded = result{}
	if len(issues) > 0 {
		given := make([]issue, len(issues))
		for i, one := range issues {
			given[i] = issue{give(one.Path), give(one.Message)}
		}
		kept = append(kept, given)
		succeeded = result{1, list{uint32(uintptr(unsafe.Pointer(&given[0]))), uint32(len(given))}}
	}
	return unsafe.Pointer(&succeeded)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#configure
func postConfigure(unsafe.Pointer) { forget() }

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#self-test
func exportSelfTest() unsafe.Pointer {
	succeeded = result{}
	if err := selfTest(); err != nil {
		succeeded = result{1, list(give(err.Error()))}
	}
	return unsafe.Pointer(&succeeded)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#self-test
func postSelfTest(unsafe.Pointer) { forget() }

func main() {}
