// A router. It refuses the tools whose names begin as its configuration says; put your own policy into route. The files
// abi*.go connect it to the contract in wit/plugin.wit.
package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The configuration, from {{name}}.toml beside {{name}}.wasm.
type settings struct {
	Refuse []string `json:"refuse"`
}

var inForce = settings{Refuse: []string{"delete_"}}

func metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func configure(configJSON string) []Issue {
	read := settings{Refuse: []string{"delete_"}}
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

// The services that exist, before the next decision when they changed.
func onCatalog(services []Service) {}

func route(call Call) Decision {
	begins := func(prefix string) bool { return strings.HasPrefix(call.Tool, prefix) }
	if !slices.ContainsFunc(inForce.Refuse, begins) {
		return Decision{}
	}
	return Decision{Reject: &Refusal{Reason: fmt.Sprintf("`%s` is refused", call.Tool)}, Why: "refused by {{name}}"}
}
