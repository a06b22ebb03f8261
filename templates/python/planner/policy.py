"""A planner. Each instance gets calls by its weight, less what fails; put your own policy into `compile`. The classes are
the interfaces of the world `planning` in wit/plugin.wit, in Python's spelling."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import Issue
from wit_world.exports.planner import Plan, Strategy_Weighted
from wit_world.imports.types import Load, Member

# A plan outlives a few missed rounds.
TTL_MS = 5000


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


class Planner(exports.Planner):
    def compile(self, pool: int, service: str, members: list[Member], loads: list[Load]) -> Plan | None:
        """The host's own balancer follows the plan until the next one. `None` leaves the pool to the next."""
        if not members:
            return None
        failing = {load.slot: load.errors_permille for load in loads}
        weights = [member.weight * (1000 - failing.get(member.slot, 0)) // 1000 for member in members]
        return Plan(Strategy_Weighted(weights), TTL_MS, "by weight and errors")
