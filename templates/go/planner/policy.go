// A planner. Each instance gets calls by its weight, less what fails; put your own policy into Compile. The package
// meshwright connects it with the contract in wit/plugin.wit.
package main

import (
	"meshwright"
	"meshwright/planner"
)

// A plan outlives a few missed rounds.
const ttlMs = 5_000

type policy struct{}

func init() { planner.Export(policy{}) }

func main() {}

func (policy) Metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func (policy) Configure(configJSON string) []meshwright.Issue {
	if configJSON == "{}" {
		return nil
	}
	return []meshwright.Issue{{Message: "There are no settings."}}
}

// An error keeps the plugin out.
func (policy) SelfTest() error { return nil }

// The host's own balancer follows the plan until the next one.
func (policy) Compile(pool uint32, service string, members []planner.Member, loads []planner.Load) *planner.Plan {
	if len(members) == 0 {
		return nil
	}
	failing := map[uint32]uint32{}
	for _, load := range loads {
		failing[load.Slot] = uint32(load.ErrorsPermille)
	}
	weights := make(planner.Weighted, 0, len(members))
	for _, member := range members {
		weights = append(weights, uint32(member.Weight)*(1000-failing[member.Slot])/1000)
	}
	return &planner.Plan{Strategy: weights, TTLMs: ttlMs, Why: "by weight and errors"}
}
