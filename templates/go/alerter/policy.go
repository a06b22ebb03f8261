// An alerter. It warns about services with fewer instances than its configuration asks for; put your own policy into
// Evaluate. The package meshwright connects it with the contract in wit/plugin.wit.
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"meshwright"
	"meshwright/alerter"
)

// The configuration, from {{name}}.toml beside {{name}}.wasm.
type settings struct {
	InstancesMin uint32 `json:"instances_min"`
}

type policy struct{ settings settings }

func init() { alerter.Export(&policy{}) }

func main() {}

func (p *policy) Metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func (p *policy) Configure(configJSON string) []meshwright.Issue {
	read := settings{InstancesMin: 2}
	decoder := json.NewDecoder(strings.NewReader(configJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return []meshwright.Issue{{Message: err.Error()}}
	}
	p.settings = read
	return nil
}

// An error keeps the plugin out.
func (p *policy) SelfTest() error { return nil }

// What the host has to bring along: the position in this list is a sample's Want.
func (p *policy) Wants() []alerter.Want {
	return []alerter.Want{{Series: "meshwright_service_instances_available", Aggregate: alerter.Last, WindowS: 60}}
}

// Returns all that holds now, each time; the host remembers what it has already told.
func (p *policy) Evaluate(nowMs uint64, samples []alerter.Sample, events []alerter.Event) (firings []alerter.Firing) {
	wanted := float64(p.settings.InstancesMin)
	for _, sample := range samples {
		if sample.Value >= wanted {
			continue
		}
		firings = append(firings, alerter.Firing{
			Rule:     "few-instances",
			Severity: alerter.Warning,
			Labels:   sample.Labels,
			Title:    "a service has few instances",
			Detail:   fmt.Sprintf("%.0f available, %.0f wanted", sample.Value, wanted),
			Value:    sample.Value,
			// A lower bound, since ResolveAt is higher.
			Threshold: wanted - 1,
			ResolveAt: wanted,
		})
	}
	return firings
}
