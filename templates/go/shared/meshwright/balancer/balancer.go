// Package balancer is what a balancer exports.
package balancer

import (
	"meshwright"
	"meshwright/internal/abi"
	"meshwright/internal/pools"
)

type (
	Member = pools.Member
	Load   = pools.Load
)

// NoSlot leaves it to the next.
const NoSlot uint32 = 0xffff_ffff

type Policy interface {
	meshwright.Lifecycle
	// OnPool gets the whole membership of a pool; without members, the pool is gone.
	OnPool(pool uint32, service string, members []Member)
	OnLoad(pool uint32, loads []Load)
	Pick(pool uint32, affinity, random, tried uint64) uint32
}

var policy Policy

// Export makes policy the plugin. It is called in init.
func Export(balancer Policy) {
	policy = balancer
	meshwright.Export(balancer)
}

// InFlight is asked about the pool that is being picked from.
//
//go:wasmimport meshwright:plugin/live@0.1.0 in-flight
func InFlight(pool, slot uint32) uint32

// EwmaUs is asked about the pool that is being picked from.
//
//go:wasmimport meshwright:plugin/live@0.1.0 ewma-us
func EwmaUs(pool, slot uint32) uint32

//go:wasmexport meshwright:plugin/balancer@0.1.0#on-pool
func exportOnPool(pool, serviceAt, serviceLen, at, length uint32) {
	service := abi.Take(abi.Text{At: serviceAt, Len: serviceLen})
	members := pools.Members(at, length)
	abi.Forget()
	policy.OnPool(pool, service, members)
}

//go:wasmexport meshwright:plugin/balancer@0.1.0#on-load
func exportOnLoad(pool, at, length uint32) {
	loads := pools.Loads(at, length)
	abi.Forget()
	policy.OnLoad(pool, loads)
}

//go:wasmexport meshwright:plugin/balancer@0.1.0#pick
func exportPick(pool uint32, affinity, random, tried uint64) uint32 {
	return policy.Pick(pool, affinity, random, tried)
}
