"""An alerter on the share of calls that fail. What it exports are the interfaces of the world `alerting` in
wit/plugin.wit, in Python's spelling."""

import json
from dataclasses import dataclass, fields

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.alerter import Aggregate, Event, Firing, Sample, Want
from wit_world.exports.lifecycle import Issue
from wit_world.imports.types import Severity

# The position in this list is a sample's `want`.
CALLS, FAILURES = 0, 1
SERIES = ["meshwright_calls_total", "meshwright_call_failures_total"]


@dataclass
class Settings:
    ratio: float = 0.05
    """Of so many calls that fail, 1 being all."""
    window_s: int = 60
    calls_min: int = 20
    """With fewer calls in the window, nothing is said."""
    for_s: int = 0


RANGES = {"ratio": (0.001, 1.0), "window_s": (5, 600), "calls_min": (1, 1_000_000), "for_s": (0, 3600)}

settings = Settings()


def read(config_json: str) -> Settings:
    given = json.loads(config_json)
    issues = [Issue(f"/{key}", "There is no such setting.") for key in given if key not in RANGES]
    for field in fields(Settings):
        value, (low, high) = given.get(field.name, field.default), RANGES[field.name]
        whole = field.type is int
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or (whole and value != int(value)) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            issues.append(Issue(f"/{field.name}", f"This must be {kind} from {low} to {high}."))
    if issues:
        raise Err(issues)
    return Settings(**given)


def ratios(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Calls and the share of failures, by service. Samples are one for each instance."""
    sums: dict[str, list[float]] = {}
    for sample in samples:
        service = dict(sample.labels).get("service", "")
        sums.setdefault(service, [0.0, 0.0])[sample.want] += sample.value
    return {service: (calls, failures / calls) for service, (calls, failures) in sums.items() if calls > 0}


class Lifecycle(exports.Lifecycle):
    def metadata(self) -> str:
        return 'name = "error-ratio-alerts"\nversion = "0.1.0"\nsummary = "Alerts when too many calls fail"\n'

    def configure(self, config_json: str) -> None:
        global settings
        settings = read(config_json)

    def self_test(self) -> None:
        samples = [Sample(CALLS, [("service", "x")], 8.0), Sample(FAILURES, [("service", "x")], 2.0)]
        if ratios(samples) != {"x": (8.0, 0.25)}:
            raise Err("ratios are wrong")


class Alerter(exports.Alerter):
    def wants(self) -> list[Want]:
        return [Want(series, Aggregate.RATE, settings.window_s) for series in SERIES]

    def evaluate(self, now_ms: int, samples: list[Sample], events: list[Event]) -> list[Firing]:
        """Returns all that holds now, each time; the host remembers what it has already told."""
        resolve_at = settings.ratio * 0.8
        return [
            Firing(
                rule="error-ratio",
                severity=Severity.ERROR,
                labels=[("service", service)],
                title=f"`{service}` fails {ratio:.0%} of its calls",
                detail=f"{rate * settings.window_s:.0f} calls in {settings.window_s} s",
                value=ratio,
                threshold=settings.ratio,
                for_s=settings.for_s,
                resolve_at=resolve_at,
            )
            for service, (rate, ratio) in ratios(samples).items()
            if ratio >= resolve_at and rate * settings.window_s >= settings.calls_min
        ]
