"""Figures in Prometheus' text format: counts, sums by bucket, and what is so at this moment. One lock, no library.

Labels are few and bounded: a route, a status, a version's short digest, an arm. No user, prompt or token stands in them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MOST_SERIES = 2000  # of one metric: beyond them new labels are counted together
_Labels = tuple[tuple[str, str], ...]
_OTHER: _Labels = (("other", "true"),)


class Counter:
    """Goes up."""

    kind = "counter"

    def __init__(self, name: str, told: str) -> None:
        self.name, self.told = name, told
        self._values: dict[_Labels, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0, **labels: str) -> None:
        with self._lock:
            self._values[_bounded(self._values, labels)] += amount

    def lines(self) -> Iterator[str]:
        with self._lock:
            values = dict(self._values)
        for labels, value in sorted(values.items()):
            yield f"{self.name}{_written(labels)} {_number(value)}"


class Histogram:
    """How often a value was at most each bound, its sum and its number."""

    kind = "histogram"

    def __init__(self, name: str, told: str, bounds: tuple[float, ...] = SECONDS) -> None:
        self.name, self.told, self.bounds = name, told, bounds
        self._counts: dict[_Labels, list[int]] = {}
        self._sums: dict[_Labels, float] = defaultdict(float)
        self._lock = threading.Lock()

    def observe(self, value: float, **labels: str) -> None:
        with self._lock:
            key = _bounded(self._counts, labels)
            counts = self._counts.setdefault(key, [0] * (len(self.bounds) + 1))
            counts[bisect_left(self.bounds, value)] += 1
            self._sums[key] += value

    def lines(self) -> Iterator[str]:
        with self._lock:
            counts = {key: list(found) for key, found in self._counts.items()}
            sums = dict(self._sums)
        for key, found in sorted(counts.items()):
            total = 0
            for bound, n in zip((*map(_number, self.bounds), "+Inf"), found, strict=True):
                total += n
                yield f"{self.name}_bucket{_written((*key, ('le', bound)))} {total}"
            yield f"{self.name}_sum{_written(key)} {_number(sums[key])}"
            yield f"{self.name}_count{_written(key)} {total}"


class Gauge:
    """What is so when it is asked. read: values by labels."""

    kind = "gauge"

    def __init__(self, name: str, told: str, read: Callable[[], Mapping[_Labels, float]]) -> None:
        self.name, self.told, self._read = name, told, read

    def lines(self) -> Iterator[str]:
        for labels, value in sorted(self._read().items()):
            yield f"{self.name}{_written(labels)} {_number(value)}"


Metric = Counter | Histogram | Gauge


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.requests = Counter("rlhf_requests_total", "Requests by route and status.")
        self.replies = Counter("rlhf_replies_total", "Replies by version, arm and how they ended.")
        self.tokens = Counter("rlhf_tokens_total", "Tokens taken in and written.")
        self.lost = Counter(
            "rlhf_lost_total", "Requests without an answer, by why (shed: the queue was full; deadline), model and arm."
        )
        self.judged = Counter(
            "rlhf_judged_total", "Replies by a rollout's judge and what came of it; dropped = too many waited."
        )
        self.latency = Histogram("rlhf_reply_seconds", "Seconds from a request to the end of its reply.")
        self.first_token = Histogram("rlhf_first_token_seconds", "Seconds from a request to the first of its reply.")
        self.loading = Histogram("rlhf_version_load_seconds", "Seconds until a version was checked and in memory.")
        self.rollback = Histogram(
            "rlhf_rollback_seconds", "Seconds of a rollback through this server, commit included."
        )
        self._more: list[Metric] = []

    def gauge(self, name: str, told: str, read: Callable[[], Mapping[_Labels, float]]) -> None:
        """Add what is read when it is asked for."""
        self._more.append(Gauge(name, told, read))

    def text(self) -> str:
        """Everything, in the text format."""
        counts = (self.requests, self.replies, self.tokens, self.lost, self.judged)
        seconds = (self.latency, self.first_token, self.loading, self.rollback)
        lines: list[str] = []
        for metric in (*counts, *seconds, *self._more):
            lines += [f"# HELP {metric.name} {metric.told}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(lines) + "\n"


def _bounded(known: Mapping[_Labels, object], labels: Mapping[str, str]) -> _Labels:
    key = tuple(sorted(labels.items()))
    return key if key in known or len(known) < _MOST_SERIES else _OTHER


def _written(labels: _Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
