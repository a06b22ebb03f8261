// Package router is what a router exports.
package router

import (
	"unsafe"

	"meshwright"
	"meshwright/internal/abi"
)

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
	Reuse   *Reuse
}

// Target has a service; an empty tag or tool and a timeout of 0 leave things as they are.
type Target struct {
	Service, Tag, Tool string
	TimeoutMs          uint32
	Mirror             *Mirror
}

type Mirror struct {
	Service  string
	Permille uint16
	AnyTool  bool
}

type Refusal struct {
	Reason       string
	RetryAfterMs uint32
}

type Vary uint8

const (
	VaryTool Vary = 1 << iota
	VaryClient
	VaryAffinity
	VarySize
)

// Reuse lets the host take the decision for further calls, too.
type Reuse struct {
	TTLMs uint32
	Vary  Vary
}

type Policy interface {
	meshwright.Lifecycle
	// OnCatalog gets the services that exist, before the next decision when they changed.
	OnCatalog(services []Service)
	Route(call Call) Decision
}

var policy Policy

// Export makes policy the plugin. It is called in init.
func Export(router Policy) {
	policy = router
	meshwright.Export(router)
}

// Argument answers the JSON text at a pointer into the call's arguments, if there is one. It needs the grant
// `arguments`.
func Argument(pointer string) (string, bool) {
	var found abi.Optional[abi.Text]
	argumentAt(pointer, unsafe.Pointer(&found))
	return abi.Take(found.Value), found.Some&1 == 1
}

//go:wasmimport meshwright:plugin/arguments@0.1.0 at
func argumentAt(pointer string, found unsafe.Pointer)

type mirror struct {
	service  abi.Text
	permille uint16
	anyTool  bool
}

type target struct {
	service   abi.Text
	tag, tool abi.Optional[abi.Text]
	timeoutMs abi.Optional[uint32]
	mirror    abi.Optional[mirror]
}

type refusal struct {
	reason       abi.Text
	retryAfterMs abi.Optional[uint32]
}

type reuse struct {
	ttlMs uint32
	vary  Vary
}

type decision struct {
	verdict uint32
	// Or a refusal.
	target target
	why    abi.Text
	reuse  abi.Optional[reuse]
}

type service struct {
	name               abi.Text
	tags, tools        abi.List
	instances, healthy uint32
}

var answered decision

//go:wasmexport meshwright:plugin/catalog@0.1.0#on-catalog
func exportOnCatalog(at, length uint32) {
	services := make([]Service, 0, length)
	for _, s := range abi.Items[service](abi.List{At: at, Len: length}) {
		services = append(services,
			Service{abi.Take(s.name), abi.TakeAll(s.tags), abi.TakeAll(s.tools), s.instances, s.healthy})
	}
	abi.Forget()
	policy.OnCatalog(services)
}

//go:wasmexport meshwright:plugin/router@0.1.0#route
func exportRoute(id, nowMs, random, affinity uint64, serviceAt, serviceLen, toolAt, toolLen, methodAt, methodLen,
	clientAt, clientLen, size, deadlineMs uint32) unsafe.Pointer {
	text := func(at, length uint32) string { return abi.Take(abi.Text{At: at, Len: length}) }
	made := policy.Route(Call{id, nowMs, random, affinity, text(serviceAt, serviceLen), text(toolAt, toolLen),
		text(methodAt, methodLen), text(clientAt, clientLen), size, deadlineMs})
	answered = decision{why: abi.Give(made.Why)}
	switch {
	case made.Forward != nil:
		answered.verdict = 1
		answered.target = given(made.Forward)
	case made.Reject != nil:
		answered.verdict = 2
		*(*refusal)(unsafe.Pointer(&answered.target)) = refusal{abi.Give(made.Reject.Reason),
			abi.NonZero(made.Reject.RetryAfterMs)}
	}
	if made.Reuse != nil {
		answered.reuse = abi.Optional[reuse]{Some: 1, Value: reuse{made.Reuse.TTLMs, made.Reuse.Vary}}
	}
	return unsafe.Pointer(&answered)
}

func given(to *Target) target {
	made := target{service: abi.Give(to.Service), tag: abi.Some(to.Tag), tool: abi.Some(to.Tool),
		timeoutMs: abi.NonZero(to.TimeoutMs)}
	if to.Mirror != nil {
		value := mirror{abi.Give(to.Mirror.Service), to.Mirror.Permille, to.Mirror.AnyTool}
		made.mirror = abi.Optional[mirror]{Some: 1, Value: value}
	}
	return made
}

//go:wasmexport cabi_post_meshwright:plugin/router@0.1.0#route
func postRoute(unsafe.Pointer) { abi.Forget() }
