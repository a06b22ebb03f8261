// A router that keeps writes off read replicas: tools whose names look like writes go to instances with the primary's
// tag, all others to instances with the replicas' tag. The package meshwright connects it with the contract in
// wit/plugin.wit.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"meshwright"
	"meshwright/router"
)

type settings struct {
	Primary string   `json:"primary"`
	Replica string   `json:"replica"`
	Writes  []string `json:"writes"`
}

func defaults() settings {
	return settings{
		Primary: "primary",
		Replica: "replica",
		Writes:  []string{"create_*", "write_*", "insert_*", "update_*", "set_*", "delete_*", "drop_*"},
	}
}

type policy struct {
	settings settings
	// The tags of each service, as the host told them last.
	tags map[string][]string
}

func init() { router.Export(&policy{defaults(), map[string][]string{}}) }

func main() {}

func (p *policy) Metadata() string {
	return "name = \"read-replica-router\"\nversion = \"0.1.0\"\nsummary = \"Keeps writes off read replicas\"\n"
}

func read(configJSON string) (settings, []meshwright.Issue) {
	read := defaults()
	decoder := json.NewDecoder(strings.NewReader(configJSON))
	// A setting that nobody knows is most likely misspelt.
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return read, []meshwright.Issue{{Message: err.Error()}}
	}
	var issues []meshwright.Issue
	for i, pattern := range read.Writes {
		if _, err := path.Match(pattern, ""); err != nil {
			issues = append(issues, meshwright.Issue{Path: fmt.Sprintf("/writes/%d", i), Message: "This is no pattern."})
		}
	}
	return read, issues
}

// What is refused changes nothing.
func (p *policy) Configure(configJSON string) []meshwright.Issue {
	read, issues := read(configJSON)
	if len(issues) == 0 {
		p.settings = read
	}
	return issues
}

func (p *policy) SelfTest() error {
	if !isWrite(defaults(), "delete_row") || isWrite(defaults(), "read_row") {
		return errors.New("writes are not told from reads")
	}
	return nil
}

func (p *policy) OnCatalog(services []router.Service) {
	clear(p.tags)
	for _, service := range services {
		p.tags[service.Name] = service.Tags
	}
}

func isWrite(settings settings, tool string) bool {
	return slices.ContainsFunc(settings.Writes, func(pattern string) bool {
		matches, _ := path.Match(pattern, tool)
		return matches
	})
}

func (p *policy) Route(call router.Call) router.Decision {
	if call.Tool == "" {
		return router.Decision{}
	}
	tag, why := p.settings.Replica, "reads go to replicas"
	if isWrite(p.settings, call.Tool) {
		tag, why = p.settings.Primary, "writes go to the primary"
	}
	// A tag that no instance has would be an error for the caller.
	if !slices.Contains(p.tags[call.Service], tag) {
		return router.Decision{}
	}
	return router.Decision{Forward: &router.Target{Service: call.Service, Tag: tag}, Why: why}
}
