// An alerter. It warns about services with fewer instances than its configuration asks for; put your own policy into
// evaluate. The files abi*.go connect it to the contract in wit/plugin.wit.
package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The configuration, from {{name}}.toml beside {{name}}.wasm.
type settings struct {
	InstancesMin uint32 `json:"instances_min"`
}

var inForce = settings{InstancesMin: 2}

func metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func configure(configJSON string) []Issue {
	read := settings{InstancesMin: 2}
	decoder := json.NewDecoder(strings.NewReader(configJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return []Issue{{Message: err.Error()}}
	}
	inForce = read
	return nil
}

// An error keeps the plugin out.
func selfTest() error { return nil }

// What the host has to bring along: the position in this list is a sample's Want.
func wants() []Want { return []Want{{"meshwright_service_instances_available", Last, 60}} }

// Returns all that holds now, each time; the host remembers what it has already told.
func evaluate(nowMs uint64, samples []Sample, events []Event) (firings []Firing) {
	wanted := float64(inForce.InstancesMin)
	for _, sample := range samples {
		if sample.Value >= wanted {
			continue
		}
		firings = append(firings, Firing{
			Rule:     "few-instances",
			Severity: Warning,
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
