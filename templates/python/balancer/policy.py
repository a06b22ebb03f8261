"""A balancer. The less busy of two instances taken at random wins; put your own policy into `pick`. The classes are the
interfaces of the world `balancing` in wit/plugin.wit, in Python's spelling."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Issue
from wit_world.imports import live
from wit_world.imports.types import Load, Member

# "Leave it to the next."
NOBODY = 0xFFFFFFFF

# The slots of each pool that may be picked.
pools: dict[int, list[int]] = {}


class Lifecycle(exports.Lifecycle):
    def metadata(self) -> str:
        return 'name = "{{name}}"\nversion = "0.1.0"\n'

    def configure(self, config_json: str) -> None:
        """Called before anything below, with {} when nothing is configured. Raising a list of issues refuses it."""
        issues = [Issue(f"/{key}", "There is no such setting.") for key in json.loads(config_json)]
        if issues:
            raise Err(issues)

    def self_test(self) -> None:
        """Raising `Err("why")` keeps the plugin out."""


class Balancer(exports.Balancer):
    def on_pool(self, pool: int, service: str, members: list[Member]) -> None:
        """The whole membership of a pool, before the first pick and after each change. No members: it is gone."""
        if members:
            pools[pool] = [member.slot for member in members]
        else:
            pools.pop(pool, None)

    def on_load(self, pool: int, loads: list[Load]) -> None:
        """About once a second: a score of 0 means that the host will not route there now."""
        pools[pool] = [load.slot for load in loads if load.score > 0]

    def pick(self, pool: int, affinity: int, random: int, tried: int) -> int:
        free = [slot for slot in pools.get(pool, []) if slot >= 64 or not tried >> slot & 1]
        if not free:
            return NOBODY
        one, other = free[random % len(free)], free[(random >> 32) % len(free)]
        return other if live.in_flight(pool, other) < live.in_flight(pool, one) else one
