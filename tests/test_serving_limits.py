"""Limits: an address that is wrong too often waits for a minute, an account that asks too often for a moment, and nobody else."""

from __future__ import annotations

import pytest

from rlhf.serving import limits
from rlhf.serving.limits import Failures, Pace


def test_the_window_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    failures = Failures(window_s=60, most=3)
    for second in (0, 10, 20):
        now = 1000.0 + second
        assert failures.wait_s("a") == 0
        failures.note("a")
    assert failures.wait_s("a") == 40 and failures.wait_s("b") == 0
    now = 1060.0
    assert failures.wait_s("a") == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_ADDRESSES", 100)
    failures = Failures()
    for i in range(1000):
        failures.note(str(i))
    assert len(failures._at) <= 100


def test_a_bucket_fills_as_time_passes_and_never_over_its_brim(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    pace = Pace(per_s=2, burst=3)
    assert [pace.take("ada") for _ in range(4)] == [0, 0, 0, 0.5]
    assert pace.take("bob") == 0
    now += 0.5
    assert [pace.take("ada") for _ in range(2)] == [0, 0.5]
    now += 3600
    assert [pace.take("ada") for _ in range(4)] == [0, 0, 0, 0.5]
