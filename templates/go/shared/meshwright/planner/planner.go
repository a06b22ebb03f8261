// Package planner is what a planner exports.
package planner

import (
	"unsafe"

	"meshwright"
	"meshwright/internal/abi"
	"meshwright/internal/pools"
)

type (
	Member = pools.Member
	Load   = pools.Load
)

// Plan holds for TTLMs, at most a minute.
type Plan struct {
	Strategy Strategy
	TTLMs    uint32
	Why      string
}

// Strategy is Weighted, TwoChoices, Ring or Tiers.
type Strategy interface{ given() (uint32, [3]uint32) }

// Weighted has a weight for each member in order; 0 is never picked.
type Weighted []uint32

// TwoChoices has a choice for each member in order.
type TwoChoices struct {
	Choices   []Choice
	FailureUs uint32
}

type Choice struct {
	Share uint32
	Price float32
	First bool
}

// Ring has points on a circle of 64 bits, and the slots that own them.
type Ring []Point

type Point struct {
	Point uint64
	Slot  uint32
}

// Tiers are slots in order of preference.
type Tiers [][]uint32

type Policy interface {
	meshwright.Lifecycle
	// Compile leaves the pool to the next by nil.
	Compile(pool uint32, service string, members []Member, loads []Load) *Plan
}

var policy Policy

// Export makes policy the plugin. It is called in init.
func Export(planner Policy) {
	policy = planner
	meshwright.Export(planner)
}

func (w Weighted) given() (uint32, [3]uint32) { return 0, words(abi.GiveAll([]uint32(w)), 0) }

func (t TwoChoices) given() (uint32, [3]uint32) { return 1, words(abi.GiveAll(t.Choices), t.FailureUs) }

func (r Ring) given() (uint32, [3]uint32) { return 2, words(abi.GiveAll([]Point(r)), 0) }

func (t Tiers) given() (uint32, [3]uint32) {
	tiers := make([]abi.List, 0, len(t))
	for _, slots := range t {
		tiers = append(tiers, abi.GiveAll(slots))
	}
	return 3, words(abi.GiveAll(tiers), 0)
}

func words(l abi.List, more uint32) [3]uint32 { return [3]uint32{l.At, l.Len, more} }

type plan struct {
	strategy uint32
	value    [3]uint32
	ttlMs    uint32
	why      abi.Text
}

var answered abi.Optional[plan]

//go:wasmexport meshwright:plugin/planner@0.1.0#compile
func exportCompile(pool, serviceAt, serviceLen, membersAt, membersLen, loadsAt, loadsLen uint32) unsafe.Pointer {
	service := abi.Take(abi.Text{At: serviceAt, Len: serviceLen})
	members, loads := pools.Members(membersAt, membersLen), pools.Loads(loadsAt, loadsLen)
	answered = abi.Optional[plan]{}
	if made := policy.Compile(pool, service, members, loads); made != nil {
		strategy, value := made.Strategy.given()
		answered = abi.Optional[plan]{Some: 1, Value: plan{strategy, value, made.TTLMs, abi.Give(made.Why)}}
	}
	return unsafe.Pointer(&answered)
}

//go:wasmexport cabi_post_meshwright:plugin/planner@0.1.0#compile
func postCompile(unsafe.Pointer) { abi.Forget() }
