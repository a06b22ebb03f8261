// A router. It refuses the tools whose names begin as its configuration says; put your own policy into Route. The
// package meshwright connects it with the contract in wit/plugin.wit.
package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"meshwright"
	"meshwright/router"
)

// The configuration, from {{name}}.toml beside {{name}}.wasm.
type settings struct {
	Refuse []string `json:"refuse"`
}

type policy struct{ settings settings }

func init() { router.Export(&policy{}) }

func main() {}

func (p *policy) Metadata() string { return "name = \"{{name}}\"\nversion = \"0.1.0\"\n" }

// Called before anything below, with {} when nothing is configured. Any issue refuses it.
func (p *policy) Configure(configJSON string) []meshwright.Issue {
	read := settings{Refuse: []string{"delete_"}}
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

// The services that exist, before the next decision when they changed.
func (p *policy) OnCatalog(services []router.Service) {}

func (p *policy) Route(call router.Call) router.Decision {
	begins := func(prefix string) bool { return strings.HasPrefix(call.Tool, prefix) }
	if !slices.ContainsFunc(p.settings.Refuse, begins) {
		return router.Decision{}
	}
	refusal := router.Refusal{Reason: fmt.Sprintf("`%s` is refused", call.Tool)}
	return router.Decision{Reject: &refusal, Why: "refused by {{name}}"}
}
