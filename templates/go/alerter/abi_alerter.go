package main

// What an alerter exports, beside abi.go.

import "unsafe"

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

type label struct{ name, value text }

type want struct {
	series    text
	aggregate Aggregate
	windowS   uint32
}

type sample struct {
	want   uint32
	labels list
	value  float64
}

type event struct {
	atMs                            uint64
	kind, service, instance, detail text
}

type firing struct {
	rule             text
	severity         Severity
	labels           list
	title, detail    text
	value, threshold float64
	forS             uint32
	resolveAt        float64
}

var listed list

func giveAll[T any](values []T) list {
	if len(values) == 0 {
		return list{}
	}
	kept = append(kept, values)
	return list{uint32(uintptr(unsafe.Pointer(&values[0]))), uint32(len(values))}
}

//go:wasmexport meshwright:plugin/alerter@0.1.0#wants
func exportWants() unsafe.Pointer {
	var given []want
	for _, w := range wants() {
		given = append(given, want{give(w.Series), w.Aggregate, w.WindowS})
	}
	listed = giveAll(given)
	return unsafe.Pointer(&listed)
}

//go:wasmexport cabi_post_meshwright:plugin/alerter@0.1.0#wants
func postWants(unsafe.Pointer) { forget() }

//go:wasmexport meshwright:plugin/alerter@0.1.0#evaluate
func exportEvaluate(nowMs uint64, samplesAt, samplesLen, eventsAt, eventsLen uint32) unsafe.Pointer {
	var samples []Sample
	for _, s := range items[sample](list{samplesAt, samplesLen}) {
		var labels []Label
		for _, l := range items[label](s.labels) {
			labels = append(labels, Label{take(l.name), take(l.value)})
		}
		samples = append(samples, Sample{s.want, labels, s.value})
	}
	var events []Event
	for _, e := range items[event](list{eventsAt, eventsLen}) {
		events = append(events, Event{e.atMs, take(e.kind), take(e.service), take(e.instance), take(e.detail)})
	}
	var given []firing
	for _, f := range evaluate(nowMs, samples, events) {
		var labels []label
		for _, l := range f.Labels {
			labels = append(labels, label{give(l.Name), give(l.Value)})
		}
		given = append(given, firing{give(f.Rule), f.Severity, giveAll(labels), give(f.Title), give(f.Detail), f.Value,
			f.Threshold, f.ForS, f.ResolveAt})
	}
	listed = giveAll(given)
	return unsafe.Pointer(&listed)
}

//go:wasmexport cabi_post_meshwright:plugin/alerter@0.1.0#evaluate
func postEvaluate(unsafe.Pointer) { forget() }
