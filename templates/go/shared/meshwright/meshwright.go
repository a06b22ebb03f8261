// Package meshwright connects a policy with the contract of wit/plugin.wit: here what plugins of every kind have, and
// in the packages below what each kind has. A policy is handed to the Export of its kind, in init.
package meshwright

import (
	"errors"
	"unsafe"

	"meshwright/internal/abi"
)

// Issue is a complaint about the configuration; Path is a JSON pointer, empty for the whole.
type Issue struct{ Path, Message string }

// Lifecycle is what every policy has.
type Lifecycle interface {
	Metadata() string
	// Configure gets {} when nothing is configured. Any issue refuses it, and then what was in force stays in force.
	Configure(configJSON string) []Issue
	// SelfTest keeps the plugin out by an error.
	SelfTest() error
}

type Level uint32

const (
	Debug Level = iota
	Info
	Warn
	Error
)

var policy Lifecycle

// Export is called by that of each kind.
func Export(lifecycle Lifecycle) { policy = lifecycle }

// Log writes a line to the host's log.
func Log(level Level, message string) { emit(uint32(level), message) }

// Get answers what the host keeps under key, and whether it keeps anything.
func Get(key string) ([]byte, bool) {
	var found abi.Optional[abi.Text]
	kvGet(key, unsafe.Pointer(&found))
	return []byte(abi.Take(found.Value)), found.Some&1 == 1
}

// Set keeps value under key, for good when ttlS is 0.
func Set(key string, value []byte, ttlS uint32) error {
	var done abi.Result
	kvSet(key, string(value), ttlS, unsafe.Pointer(&done))
	return refused(done.IsErr, done.Reason)
}

// Add adds to the number under key, 0 when there is none, and answers the sum.
func Add(key string, delta int64, ttlS uint32) (int64, error) {
	var done struct {
		isErr uint32
		value int64
	}
	kvAdd(key, delta, ttlS, unsafe.Pointer(&done))
	if err := refused(done.isErr, *(*abi.List)(unsafe.Pointer(&done.value))); err != nil {
		return 0, err
	}
	return done.value, nil
}

func refused(isErr uint32, reason abi.List) error {
	if isErr&1 == 0 {
		return nil
	}
	return errors.New(abi.Take(abi.Text(reason)))
}

//go:wasmimport meshwright:plugin/log@0.1.0 emit
func emit(level uint32, message string)

//go:wasmimport meshwright:plugin/kv@0.1.0 get
func kvGet(key string, found unsafe.Pointer)

//go:wasmimport meshwright:plugin/kv@0.1.0 set
func kvSet(key, value string, ttlS uint32, done unsafe.Pointer)

//go:wasmimport meshwright:plugin/kv@0.1.0 add
func kvAdd(key string, delta int64, ttlS uint32, done unsafe.Pointer)

type issue struct{ path, message abi.Text }

var (
	said   abi.Text
	result abi.Result
)

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#metadata
func exportMetadata() unsafe.Pointer {
	said = abi.Give(policy.Metadata())
	return unsafe.Pointer(&said)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#metadata
func postMetadata(unsafe.Pointer) { abi.Forget() }

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#configure
func exportConfigure(at, length uint32) unsafe.Pointer {
	issues := policy.Configure(abi.Take(abi.Text{At: at, Len: length}))
	result = abi.Result{}
	if len(issues) > 0 {
		given := make([]issue, len(issues))
		for i, one := range issues {
			given[i] = issue{abi.Give(one.Path), abi.Give(one.Message)}
		}
		result = abi.Result{IsErr: 1, Reason: abi.GiveAll(given)}
	}
	return unsafe.Pointer(&result)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#configure
func postConfigure(unsafe.Pointer) { abi.Forget() }

//go:wasmexport meshwright:plugin/lifecycle@0.1.0#self-test
func exportSelfTest() unsafe.Pointer {
	result = abi.Result{}
	if err := policy.SelfTest(); err != nil {
		result = abi.Result{IsErr: 1, Reason: abi.List(abi.Give(err.Error()))}
	}
	return unsafe.Pointer(&result)
}

//go:wasmexport cabi_post_meshwright:plugin/lifecycle@0.1.0#self-test
func postSelfTest(unsafe.Pointer) { abi.Forget() }
