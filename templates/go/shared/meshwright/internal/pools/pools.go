// Package pools has what balancers and planners are told of pools.
package pools

import "meshwright/internal/abi"

type Member struct {
	Slot                 uint32
	Instance, Node, Zone string
	Weight               uint16
	Tags                 []string
}

type Load struct {
	Slot, InFlight, EwmaUs uint32
	ErrorsPermille         uint16
	Score                  uint8
}

type member struct {
	slot                 uint32
	instance, node, zone abi.Text
	weight               uint16
	tags                 abi.List
}

func Members(at, length uint32) []Member {
	members := make([]Member, 0, length)
	for _, m := range abi.Items[member](abi.List{At: at, Len: length}) {
		members = append(members, Member{m.slot, abi.Take(m.instance), abi.Take(m.node), abi.Take(m.zone), m.weight,
			abi.TakeAll(m.tags)})
	}
	return members
}

func Loads(at, length uint32) []Load {
	return append([]Load(nil), abi.Items[Load](abi.List{At: at, Len: length})...)
}
