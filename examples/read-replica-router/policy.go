// A router that keeps writes off read replicas: tools whose names look like writes go to instances with the primary's
// tag, all others to instances with the replicas' tag. abi.go connects it to the contract in wit/plugin.wit.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
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

var (
	inForce = defaults()
	// The tags of each service, as the host told them last.
	tags = map[string][]string{}
)

func metadata() string {
	return "name = \"read-replica-router\"\nversion = \"0.1.0\"\nsummary = \"Keeps writes off read replicas\"\n"
}

func read(configJSON string) (settings, []Issue) {
	read := defaults()
	decoder := json.NewDecoder(strings.NewReader(configJSON))
	// A setting that nobody knows is most likely misspelt.
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return read, []Issue{{Message: err.Error()}}
	}
	var issues []Issue
	for i, pattern := range read.Writes {
		if _, err := path.Match(pattern, ""); err != nil {
			issues = append(issues, Issue{Path: fmt.Sprintf("/writes/%d", i), Message: "This is no pattern."})
		}
	}
	return read, issues
}

// What is refused changes nothing.
func configure(configJSON string) []Issue {
	read, issues := read(configJSON)
	if len(issues) == 0 {
		inForce = read
	}
	return issues
}

func selfTest() error {
	if !isWrite(defaults(), "delete_row") || isWrite(defaults(), "read_row") {
		return errors.New("writes are not told from reads")
	}
	return nil
}

func onCatalog(services []Service) {
	clear(tags)
	for _, service := range services {
		tags[service.Name] = service.Tags
	}
}

func isWrite(settings settings, tool string) bool {
	return slices.ContainsFunc(settings.Writes, func(pattern string) bool {
		matches, _ := path.Match(pattern, tool)
		return matches
	})
}

func route(call Call) Decision {
	if call.Tool == "" {
		return Decision{}
	}
	tag, why := inForce.Replica, "reads go to replicas"
	if isWrite(inForce, call.Tool) {
		tag, why = inForce.Primary, "writes go to the primary"
	}
	// A tag that no instance has would be an error for the caller.
	if !slices.Contains(tags[call.Service], tag) {
		return Decision{}
	}
	return Decision{Forward: &Target{Service: call.Service, Tag: tag}, Why: why}
}
