"""Guards: an arm that degrades is taken back by itself, one that doesn't is left alone, and a broken draw is said."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
from served import ALIAS, serve, settings, started
from sqlalchemy import insert

from rlhf.ids import clock_at, now
from rlhf.registry import GateRules, aliases, gates
from rlhf.serving import Router, Tender, guardrails, log, monitor, rollouts, tend
from rlhf.serving.assignment import Allocation
from rlhf.serving.guardrails import Verdict
from rlhf.serving.log import Rollout
from rlhf.serving.monitor import Served
from rlhf.store import Workspace, audit
from rlhf.store.tables import outcomes

ERRORS = [{"metric": "error_rate"}]


@pytest.fixture
def four(workspace: Workspace, tmp_path: Path) -> Workspace:
    return served.with_versions(workspace, tmp_path)


@pytest.fixture
def router(four: Workspace) -> Any:
    made = Router(four, follow=False)
    yield made
    made.close()


def _reply(**worse: float) -> Any:
    """What an arm measures; worse: error (rate of the arm b), slower, longer (factors), duller (points)."""

    def reply(arm: str, chance: random.Random) -> Mapping[str, Any]:
        is_b = arm == "b"
        failed = chance.random() < (worse.get("error", 0.02) if is_b else 0.02)
        return {
            "status": "error" if failed else "ok",
            "latency_s": chance.gammavariate(4, 0.1) * (worse.get("slower", 1.0) if is_b else 1.0),
            "refusal": chance.random() < (worse.get("refuses", 0.03) if is_b else 0.03),
            "length_chars": int(chance.gauss(400, 80) * (worse.get("longer", 1.0) if is_b else 1.0)),
            "reward": chance.gauss(0, 1) - (worse.get("duller", 0.0) if is_b else 0.0),
        }

    return reply


def _judge(workspace: Workspace) -> Verdict:
    with workspace.read() as connection:
        return guardrails.judge(connection, log.find(connection, ALIAS))


def test_an_arm_that_fails_is_rolled_back_by_itself_and_the_figures_are_kept(four: Workspace, router: Router) -> None:
    started(four, ramp=[{"share": 20}, {"share": 100}])
    n_served = 0
    while not (deeds := tend(four)):
        assert n_served < 4000, "not found"
        serve(four, router, 100, _reply(error=0.3), first=n_served)
        n_served += 100
    assert [deed.what for deed in deeds] == ["roll_back"] and "error_rate higher of b" in deeds[0].why
    assert rollouts.status(four, ALIAS).status == "rolled_back"
    assert router.resolve("hh", "anybody").version == "hh@1", "the next request sees it"
    with four.read() as connection:
        (entry,) = audit.entries(connection, action="rollout.roll_back")
        audit.verify(connection)
    assert entry["actor"] == "guardrails"
    (finding,) = [one for one in entry["details"]["figures"]["guards"] if one["metric"] == "error_rate"]
    assert finding["fired"] and finding["peak"] >= finding["threshold"] and finding["n_arm"] > 5


@pytest.mark.parametrize(
    ("guard", "worse"),
    [
        ({"metric": "latency", "tolerance": 0.1}, {"slower": 1.6}),
        ({"metric": "refusal"}, {"refuses": 0.4}),
        ({"metric": "reply_length", "tolerance": 0.1}, {"longer": 1.5}),
        ({"metric": "reply_length", "harm": "lower"}, {"longer": 0.6}),
        ({"metric": "reward", "tolerance": 0.1}, {"duller": 1.0}),
        ({"metric": "reply_length", "harm": "either", "tolerance": 0.1}, {"longer": 0.6}),
        ({"metric": "refusal", "harm": "either"}, {"refuses": 0.4}),
        ({"metric": "error_rate", "harm": "either"}, {"error": 0.3}),
    ],
)
def test_each_metrics_harm_is_found_and_a_signal_only_pauses(
    four: Workspace, router: Router, guard: dict[str, Any], worse: dict[str, float]
) -> None:
    started(four, "ab", guards=[{**guard, "role": "signal"}])
    serve(four, router, 600, _reply(**worse))
    verdict = _judge(four)
    assert (verdict.action, verdict.blocked) == ("pause", False)
    tend(four)
    paused = rollouts.status(four, ALIAS)
    assert paused.status == "paused" and paused.fired == verdict.fired
    assert router.resolve("hh", "u").rollout_id == paused.id, "the shares stand"
    rollouts.advance(four, ALIAS, why="seen, and wanted")
    assert tend(four) == [] and rollouts.status(four, ALIAS).status == "running", (
        "what was passed over doesn't pause again"
    )


def test_what_is_tolerated_is_borne(four: Workspace, router: Router) -> None:
    started(four, "ab", guards=[{"metric": "latency", "tolerance": 0.6}])
    serve(four, router, 800, _reply(slower=1.4))
    assert _judge(four).action == "none"


def test_thumbs_down_are_found_however_many_thumbs_there_are(four: Workspace, router: Router) -> None:
    started(four, "ab", guards=[{"metric": "satisfaction"}])
    rows = serve(four, router, 800, _reply())
    chance = random.Random(1)
    thumbs = []
    for row in rows:
        if row.status == "ok" and chance.random() < 0.5:
            thumbs.append(served.thumb(row.request_id, chance.random() < (0.4 if row.arm == "b" else 0.8), row.unit))
    with four.write() as write:
        write.connection.execute(insert(outcomes), [vars_of(one) for one in thumbs])
    assert _judge(four).fired == ("satisfaction lower of b",)
    assert [deed.what for deed in tend(four)] == ["roll_back"]


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_a_heavy_user_counts_once(four: Workspace, router: Router) -> None:
    """One user of the arm whose every request fails, a thousand times."""
    started(four, "ab", guards=ERRORS)
    rows = serve(four, router, 300, _reply())
    unlucky = next(row for row in rows if row.arm == "b")
    more = [router.resolve(ALIAS, unlucky.unit).exposure(f"more-{n}", status="error") for n in range(1000)]
    with four.write() as write:
        from rlhf.serving.exposures import _exposure_row
        from rlhf.store.tables import exposures

        write.connection.execute(insert(exposures), [_exposure_row(row) for row in more])
    assert _judge(four).action == "none"


def test_a_broken_draw_blocks_every_verdict_and_pauses(four: Workspace, router: Router) -> None:
    """Half of the arm's replies are never recorded: the errors that remain prove nothing."""
    one = started(four, "ab", guards=ERRORS)
    rows = serve(four, router, 2000, _reply(error=0.5))
    lost = [row.request_id for row in rows if row.arm == "b"][::2]
    with four.write() as write:
        from rlhf.store.tables import exposures

        write.connection.execute(exposures.delete().where(exposures.c.request_id.in_(lost)))
    verdict = _judge(four)
    assert (verdict.action, verdict.blocked, verdict.fired) == ("pause", True, ("shares",))
    assert verdict.findings[0].fired, "and yet nothing is rolled back on it"
    assert [deed.what for deed in tend(four)] == ["pause"]
    rollouts.advance(four, one.id, why="a person takes it on")
    assert tend(four) == [] and _judge(four).blocked


def test_a_draw_that_works_is_left_alone(four: Workspace, router: Router) -> None:
    started(four, "ab", "hh@2", "hh@3")
    serve(four, router, 1500, _reply())
    verdict = _judge(four)
    assert (verdict.action, verdict.mismatch.found) == ("none", False)
    assert sum(verdict.mismatch.units.values()) == 1500 == pytest.approx(sum(verdict.mismatch.expected.values()))


def _simulated(arms: np.ndarray[Any, Any], chance: random.Random) -> list[Served]:
    reply = _reply()
    rows = []
    for number, is_b in enumerate(arms):
        arm = "b" if is_b else "control"
        m = reply(arm, chance)
        thumb = float(chance.random() < 0.7) if chance.random() < 0.2 else None
        rows.append(
            Served(
                f"r{number}", f"{number:06}", 1, arm, "weights", f"u{number}", m["status"], m["latency_s"], int(m["refusal"]),
                m["length_chars"], m["reward"], None, thumb, f"{number:06}",
            )
        )  # fmt: skip
    return rows


def test_arms_that_do_not_differ_raise_no_more_false_alarms_than_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """520 rollouts, three guards and the shares' check, judged on everything; a guard's peak is a look after every row."""
    runs, alpha = 520, 0.2
    spec = settings("ab", "hh@2", alpha=alpha)
    half = Allocation.whole("control").moved_to({"control": 5000, "b": 5000})
    of = {"control": "a" * 64, "b": "b" * 64}
    rollout = Rollout("r", ALIAS, spec, of, 1, "x", "t", 1, "running", half, 0, "t", (), (), "x", "y", "t")
    monkeypatch.setattr(monitor, "shares_by_entry", lambda connection, rollout: {1: {"control": 0.5, "b": 0.5}})
    draw, chance = np.random.default_rng(9), random.Random(9)
    alarms = mismatches = 0
    for _ in range(runs):
        verdict = guardrails.judge(None, rollout, _simulated(draw.random(250) < 0.5, chance))  # type: ignore[arg-type]
        alarms += verdict.action != "none" and not verdict.blocked
        mismatches += verdict.blocked
    assert alarms / runs <= alpha and mismatches / runs <= 0.01
    assert alarms > 0, "at this alpha some are due: the test would see a guard that never fires"


def test_a_stage_is_left_after_its_time_and_its_units(four: Workspace, router: Router) -> None:
    ramp = [{"share": 50, "units": 30, "hours": 1}, {"share": 100, "units": 10}]
    began = now().timestamp()
    with clock_at(began):
        started(four, ramp=ramp, complete="auto")
        serve(four, router, 100, _reply())
        assert tend(four) == [], "the hour isn't over"
    with clock_at(began + 3700):
        (deed,) = tend(four)
        assert deed.what == "advance" and rollouts.status(four, ALIAS).stage == 1
        assert tend(four) == [], "nobody new was served yet"
        serve(four, router, 20, _reply(), first=200)
    with clock_at(began + 3800):
        assert [deed.what for deed in tend(four)] == ["complete"]
    assert str(aliases.current(four, ALIAS)) == "hh@2" and router.resolve("hh").rollout_id is None
    with four.read() as connection:
        (entry,) = audit.entries(connection, action="rollout.advance")
    assert entry["details"]["figures"]["units"]["b"] >= 30


def test_a_gate_that_is_not_met_pauses_what_would_complete_by_itself(four: Workspace, router: Router) -> None:
    gates.set_gate(four, ALIAS, GateRules(signoffs=("evaluator",), report="evaluation"), "signed first")
    started(four, ramp=[{"share": 100, "units": 5}], complete="auto")
    serve(four, router, 10, _reply())
    assert [deed.what for deed in tend(four)] == ["pause"]
    assert rollouts.status(four, ALIAS).fired == ("gate",) and str(aliases.current(four, ALIAS)) == "hh@1"
    rollouts.advance(four, ALIAS, why="it will be signed")
    assert tend(four) == []


def test_a_bandits_shares_follow_the_thumbs_and_keep_the_floor(four: Workspace, router: Router) -> None:
    began = now().timestamp()
    with clock_at(began):
        started(four, "bandit", floor=0.1, guards=[])
        rows = serve(four, router, 400, _reply())
        thumbs = [
            served.thumb(row.request_id, (int(row.request_id[-1]) < (8 if row.arm == "b" else 3))) for row in rows
        ]
        with four.write() as write:
            write.connection.execute(insert(outcomes), [vars_of(one) for one in thumbs])
        assert tend(four) == [], "not yet"
    with clock_at(began + 700):
        assert [deed.what for deed in tend(four)] == ["weigh"]
    weights = rollouts.status(four, ALIAS).allocation.weights
    assert weights == {"control": 1000, "b": 9000}
    assert router.resolve("hh", "u").propensity in (0.1, 0.9)


def test_a_shadow_is_compared_in_pairs(four: Workspace, router: Router) -> None:
    started(four, "shadow", guards=[{"metric": "reward"}, {"metric": "latency"}])
    serve(four, router, 200, _reply(duller=0.8, slower=9.0))
    verdict = _judge(four)
    assert verdict.fired == ("reward lower of b",) and [one.metric for one in verdict.findings] == ["reward"]
    assert 170 < verdict.findings[0].n < 200, "pairs of which both were answered"


def test_both_stores_give_the_rows_that_were_served(either: Workspace, tmp_path: Path) -> None:
    served.with_versions(either, tmp_path)
    router = Router(either, follow=False)
    rollout = started(either, "ab", guards=[{"metric": "latency"}, {"metric": "error_rate"}])
    rows = serve(either, router, 150, _reply(error=0.2, slower=1.5))
    with either.read() as connection:
        read = monitor.served(connection, rollout)
        verdict = guardrails.judge(connection, rollout, read)
    expected = [
        Served(
            row.request_id, row.at, 1, row.arm or "", row.rule, row.unit or "", row.status, row.latency_s,
            int(bool(row.refusal)), row.length_chars, row.reward, None,
            propensity=row.propensity,
        )
        for row in sorted(rows, key=lambda row: (row.at, row.request_id))
    ]  # fmt: skip
    assert read == expected
    with either.read() as connection:
        assert guardrails.judge(connection, rollout, expected) == verdict == _judge(either)
    router.close()


def test_figures_stand_beside_each_other_with_intervals(four: Workspace, router: Router) -> None:
    rollout = started(four, "ab", toggles={"staff": "b"})
    rows = serve(four, router, 500, _reply(error=0.2))
    with four.read() as connection:
        read = monitor.served(connection, rollout)
        found = monitor.figures(rollout, read)
    assert [row.request_id for row in read] == sorted((row.request_id for row in rows), key=lambda r: read_at(read, r))
    assert found["b"]["n"] + found["control"]["n"] == 500
    for arm in ("b", "control"):
        mine = [row for row in rows if row.arm == arm]
        rate = found[arm]["error_rate"]
        assert rate["value"] == pytest.approx(sum(row.status == "error" for row in mine) / len(mine))
        assert rate["low"] <= rate["value"] <= rate["high"] and rate["n"] == len(mine)
        p50, p95 = found[arm]["latency_p50"], found[arm]["latency_p95"]
        assert p50["low"] <= p50["value"] <= p50["high"] and p50["value"] < p95["value"]
        assert found[arm]["satisfaction"] is None and found[arm]["reward"]["n"] <= len(mine)
    assert found["b"]["error_rate"]["low"] > found["control"]["error_rate"]["high"]
    json.dumps(found, allow_nan=False)


def read_at(rows: list[Served], request_id: str) -> tuple[str, str]:
    return next((row.at, row.request_id) for row in rows if row.request_id == request_id)


def test_many_rows_have_the_normal_interval_which_agrees_with_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    rows = _simulated(np.arange(800) % 2, chance)
    slow = monitor._mean(rows, lambda row: row.reward)
    monkeypatch.setattr(monitor, "_MANY", 10)
    quick = monitor._mean(rows, lambda row: row.reward)
    assert slow is not None and quick is not None and quick["method"].startswith("normal")
    assert quick["low"] == pytest.approx(slow["low"], abs=0.02) and quick["high"] == pytest.approx(
        slow["high"], abs=0.02
    )


@pytest.mark.parametrize(("q", "least"), [(0.5, 6), (0.95, 59)])
def test_a_quantile_has_an_interval_from_as_many_rows_as_it_takes(q: float, least: int) -> None:
    few, enough = (monitor._quantile([float(k) for k in range(n)], q) for n in (least - 1, least))
    assert few is not None and (few["low"], few["high"]) == (None, None)
    assert enough is not None and enough["low"] <= enough["value"] <= enough["high"] and enough["low"] < enough["high"]


def test_what_a_toggle_gave_is_not_compared(four: Workspace, router: Router) -> None:
    rollout = started(four, "ab", guards=ERRORS, toggles={"staff": "b"})
    rows = [
        router.resolve(ALIAS, f"u{n}", {"cohort": "staff"}).exposure(f"t{n}", status="error", latency_s=1.0)
        for n in range(200)
    ]
    with four.write() as write:
        from rlhf.serving.exposures import _exposure_row
        from rlhf.store.tables import exposures

        write.connection.execute(insert(exposures), [_exposure_row(row) for row in rows])
    verdict = _judge(four)
    assert (verdict.action, verdict.findings[0].n) == ("none", 0)
    with four.read() as connection:
        found = monitor.figures(rollout, monitor.served(connection, rollout))
    assert (found["b"]["n"], found["b"]["toggled"]) == (0, 200)


def test_two_servers_that_tend_one_store_do_a_thing_once(four: Workspace, router: Router) -> None:
    started(four, "ab", guards=ERRORS)
    serve(four, router, 600, _reply(error=0.5))
    other = Workspace.open(four.root, actor="other")
    with ThreadPoolExecutor(2) as both:
        deeds = [deed for done in both.map(tend, (four, other)) for deed in done]
    other.close()
    assert [deed.what for deed in deeds] == ["roll_back"] and rollouts.status(four, ALIAS).seq == 2


def test_the_tender_looks_by_itself_and_judges_again_only_what_grew(four: Workspace, router: Router) -> None:
    started(four, "ab", guards=ERRORS)
    seen: dict[str, tuple[int, ...]] = {}
    serve(four, router, 50, _reply())
    assert tend(four, seen) == [] and list(seen.values()) == [(1, 50, 50, 0)]
    tender = Tender(four, every_s=0.02)
    serve(four, router, 600, _reply(error=0.5), first=100)
    end = time.monotonic() + 20
    while rollouts.status(four, ALIAS).status == "running":
        assert time.monotonic() < end and tender.trouble is None
        time.sleep(0.02)
    tender.close()
    assert rollouts.status(four, ALIAS).who == "guardrails"
