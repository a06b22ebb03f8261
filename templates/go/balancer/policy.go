// A balancer. The less busy of two instances taken at random wins; put your own policy into Pick. The package meshwright
// connects it with the contract in wit/plugin.wit.
package main

import (
	"meshwright"
	"meshwright/balancer"
)

type policy struct {
	// The slots of each pool that may be picked.
	pools map[uint32][]uint32
}

func init() { balancer.Export(&policy{map[uint32][]uint32{}}) }

func main() {}

func (p *policy) Metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func (p *policy) Configure(configJSON string) []meshwright.Issue {
	if configJSON == "{}" {
		return nil
	}
	return []meshwright.Issue{{Message: "There are no settings."}}
}

// An error keeps the plugin out.
func (p *policy) SelfTest() error { return nil }

// The whole membership of a pool, before the first pick and after each change. No members: it is gone.
func (p *policy) OnPool(pool uint32, service string, members []balancer.Member) {
	delete(p.pools, pool)
	for _, member := range members {
		p.pools[pool] = append(p.pools[pool], member.Slot)
	}
}

// About once a second: a score of 0 means that the host will not route there now.
func (p *policy) OnLoad(pool uint32, loads []balancer.Load) {
	usable := p.pools[pool][:0]
	for _, load := range loads {
		if load.Score > 0 {
			usable = append(usable, load.Slot)
		}
	}
	p.pools[pool] = usable
}

func (p *policy) Pick(pool uint32, affinity, random, tried uint64) uint32 {
	var free []uint32
	for _, slot := range p.pools[pool] {
		if slot >= 64 || tried>>slot&1 == 0 {
			free = append(free, slot)
		}
	}
	if len(free) == 0 {
		return balancer.NoSlot
	}
	one, other := free[random%uint64(len(free))], free[(random>>32)%uint64(len(free))]
	if balancer.InFlight(pool, other) < balancer.InFlight(pool, one) {
		return other
	}
	return one
}
