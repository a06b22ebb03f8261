package main

// What a router exports, beside abi.go.

import "unsafe"

type Call struct {
	ID, NowMs, Random, Affinity   uint64
	Service, Tool, Method, Client string
	Size, DeadlineMs              uint32
}

type Service struct {
	Name               string
	Tags, Tools        []string
	Instances, Healthy uint32
}

// Decision passes when neither Forward nor Reject is set.
type Decision struct {
	Forward *Target
	Reject  *Refusal
	Why     string
}

// Target has a service; an empty tag or tool and a timeout of 0 leave things as they are.
type Target struct {
	Service, Tag, Tool string
	TimeoutMs          uint32
}

type Refusal struct {
	Reason       string
	RetryAfterMs uint32
}

type mirror struct {
	service  text
	permille uint16
	anyTool  bool
}

type target struct {
	service   text
	tag, tool optional[text]
	timeoutMs optional[uint32]
	_         optional[mirror]
}

type refusal struct {
	reason       text
	retryAfterMs optional[uint32]
}

type decision struct {
	verdict uint32
	// Or a refusal.
	target target
	why    text
	_      optional[struct{ ttlMs, vary uint32 }]
}

type service struct {
	name               text
	tags, tools        list
	instances, healthy uint32
}

var answered decision

//go:wasmexport meshwright:plugin/catalog@0.1.0#on-catalog
func exportOnCatalog(at, length uint32) {
	services := make([]Service, 0, length)
	for _, s := range items[service](list{at, length}) {
		services = append(services, Service{take(s.name), takeAll(s.tags), takeAll(s.tools), s.instances, s.healthy})
	}
	forget()
	onCatalog(services)
}

//go:wasmexport meshwright:plugin/router@0.1.0#route
func exportRoute(id, nowMs, random, affinity uint64, serviceAt, serviceLen, toolAt, toolLen, methodAt, methodLen,
	clientAt, clientLen, size, deadlineMs uint32) unsafe.Pointer {
	made := route(Call{id, nowMs, random, affinity, take(text{serviceAt, serviceLen}), take(text{toolAt, toolLen}),
		take(text{methodAt, methodLen}), take(text{clientAt, clientLen}), size, deadlineMs})
	answered = decision{why: give(made.Why)}
	switch {
	case made.Forward != nil:
		to := made.Forward
		answered.verdict = 1
		answered.target = target{service: give(to.Service), tag: some(to.Tag), tool: some(to.Tool),
			timeoutMs: nonZero(to.TimeoutMs)}
	case made.Reject != nil:
		answered.verdict = 2
		*(*refusal)(unsafe.Pointer(&answered.target)) = refusal{give(made.Reject.Reason),
			nonZero(made.Reject.RetryAfterMs)}
	}
	return unsafe.Pointer(&answered)
}

//go:wasmexport cabi_post_meshwright:plugin/router@0.1.0#route
func postRoute(unsafe.Pointer) { forget() }
