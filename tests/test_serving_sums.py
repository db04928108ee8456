"""The sums of what was served are those of the rows, whatever is written in whatever order; dashboards read them alone."""

from __future__ import annotations

import math
import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import served
from alembic import command
from alembic.config import Config
from sqlalchemy import event, select, text

from rlhf.errors import Conflict, NotFound
from rlhf.serving import Exposure, Outcome, Recorder, Router, capture, dashboards, sums
from rlhf.serving.capture import FeedbackAsked, Metric
from rlhf.store import Workspace, database
from rlhf.store.tables import exposures, outcomes, served_sums


def kept(workspace: Workspace) -> dict[tuple[str, ...], dict[str, float]]:
    with workspace.read() as connection:
        rows = connection.execute(select(served_sums)).mappings().all()
    return {tuple(row[key] for key in sums.KEYS): {name: row[name] for name in sums.NUMBERS} for row in rows}


def counted(workspace: Workspace) -> dict[tuple[str, ...], dict[str, float]]:
    """The slow twin: every row, one after the other."""
    found: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: dict.fromkeys(sums.NUMBERS, 0))
    with workspace.read() as connection:
        rows = connection.execute(select(exposures)).mappings().all()
        said = connection.execute(select(outcomes).order_by(outcomes.c.id)).mappings().all()
    for row in rows:
        if row["rule"] == "shadow":
            continue
        minute = int(row["at"][14:16]) // 5 * 5
        one = found[f"{row['at'][:14]}{minute:02}", row["alias"] or "", row["digest"] or "", row["cohort"] or ""]
        mine = [o for o in said if o["request_id"] == row["request_id"] and o["state"] != "refused"]
        thumbs = [o["value"] for o in mine if o["kind"] == "thumb"]
        rewards = [o["value"] for o in mine if o["kind"] == "metric" and o["name"] == "reward"]
        rewards = rewards[-1:] if row["reward"] is None else [row["reward"]]
        one["n"] += 1
        one["tokens_out"] += row["tokens_out"] or 0
        one["errors"] += row["status"] == "error"
        one["shed"] += row["status"] == "shed"
        one["ok"] += row["status"] == "ok"
        one["looked_at"] += row["refusal"] is not None
        one["refusals"] += row["refusal"] or 0
        one["thumbs"] += bool(thumbs)
        one["thumbs_up"] += thumbs[-1] if thumbs else 0
        one["rewards"] += len(rewards)
        one["reward"] += sum(rewards)
        one["reward_squared"] += sum(value**2 for value in rewards)
        if row["status"] == "ok" and row["latency_s"] is not None:
            one["latency_s"] += row["latency_s"]
            one[f"bin_{sum(row['latency_s'] >= edge for edge in sums.EDGES_S):02}"] += 1
    return dict(found)


def assert_equal(workspace: Workspace) -> None:
    found, wanted = kept(workspace), counted(workspace)
    assert found.keys() == wanted.keys()
    for key, numbers in wanted.items():
        assert found[key] == pytest.approx(numbers, abs=1e-9), key


def drawn(number: int, chance: random.Random) -> Exposure:
    day, minute = chance.randrange(1, 3), chance.randrange(60)
    return Exposure(
        f"r{number}",
        "hh",
        "hh",
        chance.choice(["a" * 64, "b" * 64, None]),
        alias=chance.choice(["hh@champion", None]),
        rule=chance.choice(["alias", "weights", "shadow"]),
        cohort=chance.choice([None, "staff"]),
        status=chance.choice(["ok", "ok", "ok", "error", "shed", "cancelled"]),  # type: ignore[arg-type]
        latency_s=chance.choice([None, 0.0, 0.01, 0.0135, 10 ** chance.uniform(-3, 3)]),
        tokens_out=chance.choice([None, 12]),
        refusal=chance.choice([None, True, False]),
        reward=chance.choice([None, chance.gauss(0, 1)]),
        at=f"2026-11-{day:02}T10:{minute:02}:07.000001+00:00",
    )


def test_sums_are_those_of_the_rows_whatever_comes(either: Workspace) -> None:
    chance = random.Random(5)
    recorder = Recorder(either)
    tickets = [recorder.record(drawn(number, chance)) for number in range(120)]
    for ticket in tickets:
        ticket.durable(20)
    recorder.close()
    assert_equal(either)
    shown = [row.request_id for row in _rows(either) if row.rule != "shadow"]
    for _ in range(150):
        request_id = chance.choice(shown)
        asked: dict[str, Any] = chance.choice(
            [
                {"thumb": chance.choice(["up", "down"])},
                {"metric": Metric(name=chance.choice(["reward", "clicks"]), value=chance.gauss(0, 1))},
                {"comment": "so so"},
            ]
        )
        capture.keep(either, FeedbackAsked(request_id=request_id, **asked), 10**6)
    assert_equal(either)
    assert sum(one["thumbs"] for one in kept(either).values()) > 20


def test_a_changed_mind_counts_once(workspace: Workspace) -> None:
    recorder = Recorder(workspace)
    recorder.record(Exposure("r1", "hh", "hh", "a" * 64)).durable(20)
    recorder.close()
    for thumb in ("up", "down", "down", "up"):
        capture.keep(workspace, FeedbackAsked(request_id="r1", thumb=thumb), 50)  # type: ignore[arg-type]
        (one,) = kept(workspace).values()
        assert (one["thumbs"], one["thumbs_up"]) == (1, float(thumb == "up"))


def test_a_row_that_is_refused_counts_nowhere(either: Workspace) -> None:
    recorder = Recorder(either)
    first = recorder.record(Exposure("r1", "hh", "hh", "a" * 64))
    first.durable(20)
    again, other = (
        recorder.record(Exposure("r1", "hh", "hh", "a" * 64)),
        recorder.record(Exposure("r2", "hh", "hh", None)),
    )
    lost = recorder.record_outcome(Outcome("nobody", "thumb", "thumb", 1.0))
    with pytest.raises(Conflict):
        again.durable(20)
    with pytest.raises(NotFound):
        lost.durable(20)
    other.durable(20)
    recorder.close()
    assert_equal(either)
    assert sum(one["n"] for one in kept(either).values()) == 2


def test_several_writers_at_once_lose_nothing(either: Workspace) -> None:
    def write(k: int) -> None:
        recorder = Recorder(either)
        chance = random.Random(k)
        tickets = [recorder.record(drawn(1000 * k + number, chance)) for number in range(60)]
        for ticket in tickets:
            ticket.durable(60)
        recorder.close()

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_rows(either)) == 240
    assert_equal(either)


def test_a_workspace_of_before_is_summed_as_it_is_upgraded(either: Workspace) -> None:
    chance = random.Random(8)
    recorder = Recorder(either)
    for number in range(80):
        recorder.record(drawn(number, chance))
    for row in range(0, 80, 2):
        recorder.record_outcome(Outcome(f"r{row}", "thumb", "thumb", float(row % 4 == 0)))
        recorder.record_outcome(Outcome(f"r{row}", "metric", "reward", 0.5, state="refused" if row % 3 else "sampled"))
    recorder.close()
    with either.database.write() as connection:
        connection.execute(exposures.update().values(cohort=None))
        connection.execute(text("drop table served_sums"))
        connection.execute(text("alter table exposures drop column cohort"))
        connection.execute(text("update alembic_version set version_num = '0007'"))
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with either.database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")  # what came later is there already
    assert_equal(either)
    assert sum(one["thumbs"] for one in kept(either).values()) > 10


def test_bins_cover_every_latency() -> None:
    chance = random.Random(1)
    edges = (-1.0, *sums.EDGES_S, math.inf)
    for latency_s in [0.0, *sums.EDGES_S, *(10 ** chance.uniform(-4, 4) for _ in range(300))]:
        row = {**dict.fromkeys(("tokens_out", "refusal", "reward"), None), "status": "ok", "latency_s": latency_s}
        one = dict.fromkeys(sums.NUMBERS, 0.0)
        sums._add_one(one, row)
        (k,) = (k for k, name in enumerate(sums.BINS) if one[name])
        assert edges[k] <= latency_s < edges[k + 1]


def test_quantiles_are_a_bin_off_at_most() -> None:
    chance = random.Random(2)
    values = sorted(math.exp(chance.gauss(-1, 0.8)) for _ in range(5000))
    one = dict.fromkeys(sums.NUMBERS, 0.0)
    for latency_s in values:
        sums._add_one(
            one, {**dict.fromkeys(("tokens_out", "refusal", "reward"), None), "status": "ok", "latency_s": latency_s}
        )
    for q in (0.05, 0.5, 0.95, 1.0):
        found = dashboards.quantile(one, q)
        assert found is not None and found["n"] == 5000
        true = values[min(4999, int(q * 5000))]
        assert found["low"] <= found["value"] <= found["high"] and true / 1.4 < found["value"] < true * 1.4
    assert dashboards.quantile(dict.fromkeys(sums.NUMBERS, 0.0), 0.5) is None


def test_a_dashboard_tells_versions_and_audiences(workspace: Workspace, tmp_path: Path) -> None:
    served.with_versions(workspace, tmp_path)
    router, recorder = Router(workspace, follow=False), Recorder(workspace)
    for number in range(300):
        context = {"cohort": "staff"} if number % 3 == 0 else {}
        route = router.resolve("hh@1" if number % 5 == 0 else "hh", f"u{number}", context)
        status: Any = "error" if number % 10 == 0 else "ok"
        recorder.record(route.exposure(f"r{number}", status=status, latency_s=0.2, reward=float(number % 2)))
    for number in range(0, 300, 2):
        recorder.record_outcome(served.thumb(f"r{number}", up=number % 4 == 0))
    recorder.close()
    router.close()
    with workspace.read() as connection:
        told = dashboards.read(connection, "hour")
        apart = dashboards.read(connection, "day", "audience")
    assert {(row["alias"], row["figures"]["n"], row["cohort"]) for row in told["rows"]} == {
        ("", 60, None),
        (served.ALIAS, 240, None),
    }
    assert {(row["alias"], row["cohort"]): row["figures"]["n"] for row in apart["rows"]} == {
        ("", ""): 40, ("", "staff"): 20, (served.ALIAS, ""): 160, (served.ALIAS, "staff"): 80,
    }  # fmt: skip
    direct = told["rows"][0]["figures"]
    assert direct["error_rate"]["value"] == 0.5 and direct["error_rate"]["n"] == 60
    alias = told["rows"][1]
    assert alias["figures"]["reward"]["low"] < alias["figures"]["reward"]["value"] < alias["figures"]["reward"]["high"]
    assert alias["figures"]["satisfaction"]["n"] == 120 and alias["figures"]["refusal"] is None
    assert sum(point["n"] for point in alias["series"]) == 240


def test_a_dashboard_never_reads_the_exposures(workspace: Workspace, tmp_path: Path) -> None:
    asked: list[str] = []
    event.listen(workspace.database.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    with workspace.read() as connection:
        for window in dashboards._SPANS:
            dashboards.read(connection, window, "audience")  # type: ignore[arg-type]
    read = [statement for statement in asked if "from" in statement.lower()]
    assert len(read) == 4 and all("exposures" not in statement and "outcomes" not in statement for statement in read)


def test_cohorts_that_clients_make_up_are_counted_together(workspace: Workspace, tmp_path: Path) -> None:
    served.with_versions(workspace, tmp_path)
    router = Router(workspace, follow=False)
    cohorts = {router.resolve("hh", "u", {"cohort": f"c{n}"}).cohort for n in range(300)}
    assert len(cohorts) == 101 and "(others)" in cohorts
    assert router.resolve("hh", "u", {"cohort": "x" * 100}).cohort == "(others)"
    assert router.resolve("hh", "u", {"cohort": 7}).cohort is None and router.resolve("hh", "u").cohort is None
    router.close()


def _rows(workspace: Workspace) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(exposures)).all())
