// Package alerter is what an alerter exports.
package alerter

import (
	"unsafe"

	"meshwright"
	"meshwright/internal/abi"
)

type Aggregate uint8

const (
	Last Aggregate = iota
	Min
	Max
	Mean
	P50
	P95
	P99
	Rate
	Count
	Slope
)

type Severity uint8

const (
	Info Severity = iota
	Warning
	Error
	Critical
)

// Want asks for an aggregate of a series of the host over a window of 1 to 600 seconds.
type Want struct {
	Series    string
	Aggregate Aggregate
	WindowS   uint32
}

type Label struct{ Name, Value string }

// Sample is the answer to a want, by its position in the list of wants, for one set of labels.
type Sample struct {
	Want   uint32
	Labels []Label
	Value  float64
}

type Event struct {
	AtMs                            uint64
	Kind, Service, Instance, Detail string
}

// Firing is an upper bound while ResolveAt is not above Threshold, and a lower bound otherwise.
type Firing struct {
	Rule                        string
	Severity                    Severity
	Labels                      []Label
	Title, Detail               string
	Value, Threshold, ResolveAt float64
	ForS                        uint32
}

type Policy interface {
	meshwright.Lifecycle
	Wants() []Want
	// Evaluate answers all that holds now, each time.
	Evaluate(nowMs uint64, samples []Sample, events []Event) []Firing
}

var policy Policy

// Export makes policy the plugin. It is called in init.
func Export(alerter Policy) {
	policy = alerter
	meshwright.Export(alerter)
}

type label struct{ name, value abi.Text }

type want struct {
	series    abi.Text
	aggregate Aggregate
	windowS   uint32
}

type sample struct {
	want   uint32
	labels abi.List
	value  float64
}

type event struct {
	atMs                            uint64
	kind, service, instance, detail abi.Text
}

type firing struct {
	rule             abi.Text
	severity         Severity
	labels           abi.List
	title, detail    abi.Text
	value, threshold float64
	forS             uint32
	resolveAt        float64
}

var listed abi.List

//go:wasmexport meshwright:plugin/alerter@0.1.0#wants
func exportWants() unsafe.Pointer {
	var given []want
	for _, w := range policy.Wants() {
		given = append(given, want{abi.Give(w.Series), w.Aggregate, w.WindowS})
	}
	listed = abi.GiveAll(given)
	return unsafe.Pointer(&listed)
}

//go:wasmexport cabi_post_meshwright:plugin/alerter@0.1.0#wants
func postWants(unsafe.Pointer) { abi.Forget() }

//go:wasmexport meshwright:plugin/alerter@0.1.0#evaluate
func exportEvaluate(nowMs uint64, samplesAt, samplesLen, eventsAt, eventsLen uint32) unsafe.Pointer {
	var samples []Sample
	for _, s := range abi.Items[sample](abi.List{At: samplesAt, Len: samplesLen}) {
		var labels []Label
		for _, l := range abi.Items[label](s.labels) {
			labels = append(labels, Label{abi.Take(l.name), abi.Take(l.value)})
		}
		samples = append(samples, Sample{s.want, labels, s.value})
	}
	var events []Event
	for _, e := range abi.Items[event](abi.List{At: eventsAt, Len: eventsLen}) {
		events = append(events, Event{e.atMs, abi.Take(e.kind), abi.Take(e.service), abi.Take(e.instance), abi.Take(e.detail)})
	}
	var given []firing
	for _, f := range policy.Evaluate(nowMs, samples, events) {
		var labels []label
		for _, l := range f.Labels {
			labels = append(labels, label{abi.Give(l.Name), abi.Give(l.Value)})
		}
		given = append(given, firing{abi.Give(f.Rule), f.Severity, abi.GiveAll(labels), abi.Give(f.Title), abi.Give(f.Detail), f.Value,
			f.Threshold, f.ForS, f.ResolveAt})
	}
	listed = abi.GiveAll(given)
	return unsafe.Pointer(&listed)
}

//go:wasmexport cabi_post_meshwright:plugin/alerter@0.1.0#evaluate
func postEvaluate(unsafe.Pointer) { abi.Forget() }
