"""An alerter. It warns about services with fewer instances than its configuration asks for; put your own policy into
`evaluate`. The classes are the interfaces of the world `alerting` in wit/plugin.wit, in Python's spelling."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.alerter import Aggregate, Event, Firing, Sample, Want
from wit_world.exports.lifecycle import Issue
from wit_world.imports.types import Severity

DEFAULTS = {"instances_min": 2}

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
        if not isinstance(read["instances_min"], int):
            issues.append(Issue("/instances_min", "This must be a whole number."))
        if issues:
            raise Err(issues)
        settings = read

    def self_test(self) -> None:
        """Raising `Err("why")` keeps the plugin out."""


class Alerter(exports.Alerter):
    def wants(self) -> list[Want]:
        """What the host has to bring along: the position in this list is a sample's `want`."""
        return [Want("meshwright_service_instances_available", Aggregate.LAST, 60)]

    def evaluate(self, now_ms: int, samples: list[Sample], events: list[Event]) -> list[Firing]:
        """Returns all that holds now, each time; the host remembers what it has already told."""
        instances_min = settings["instances_min"]
        return [
            Firing(
                rule="few-instances",
                severity=Severity.WARNING,
                labels=sample.labels,
                title="a service has few instances",
                detail=f"{sample.value:.0f} available, {instances_min} wanted",
                value=sample.value,
                # A lower bound, since `resolve_at` is higher.
                threshold=instances_min - 1.0,
                for_s=0,
                resolve_at=float(instances_min),
            )
            for sample in samples
            if sample.value < instances_min
        ]
