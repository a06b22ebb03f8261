"""A router. It refuses the tools whose names begin as its configuration says; put your own policy into `route`. The
classes are the interfaces of the world `routing` in wit/plugin.wit, in Python's spelling."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.catalog import Service
from wit_world.exports.lifecycle import Issue
from wit_world.exports.router import Decision, Refusal, Verdict_Pass, Verdict_Reject
from wit_world.imports.types import Call

DEFAULTS = {"refuse": ["delete_"]}

# The configuration, from {{name}}.toml beside {{name}}.wasm.
settings = DEFAULTS


class Lifecycle(exports.Lifecycle):
    def metadata(self) -> str:
        return 'name = "{{name}}"\nversion = "0.1.0"\n'

    def configure(self, config_json: str) -> None:
        """Called before anything below, with {} when nothing is configured. Raising a list of issues refuses it."""
        global settings
        read = DEFAULTS | json.loads(config_json)
        issues = [Issue(f"/{key}", "There is no such setting.") for key in read if key not in DEFAULTS]
        if not isinstance(read["refuse"], list):
            issues.append(Issue("/refuse", "This must be a list of beginnings."))
        if issues:
            raise Err(issues)
        settings = read

    def self_test(self) -> None:
        """Raising `Err("why")` keeps the plugin out."""


class Catalog(exports.Catalog):
    def on_catalog(self, services: list[Service]) -> None:
        """The services that exist, before the next decision when they changed."""


class Router(exports.Router):
    def route(self, call: Call) -> Decision:
        if not call.tool.startswith(tuple(settings["refuse"])):
            return Decision(Verdict_Pass(), "", None)
        return Decision(Verdict_Reject(Refusal(f"`{call.tool}` is refused", None)), "refused by {{name}}", None)
