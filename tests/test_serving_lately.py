"""What an alias served in the last minutes: counted from what was recorded, and read by time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import served
from served import ALIAS, started
from sqlalchemy import event

from rlhf.ids import clock_at, now
from rlhf.serving import Outcome, Recorder, Router, lately
from rlhf.store import Workspace


def test_only_the_last_minutes_of_what_was_shown_count(either: Workspace, tmp_path: Path) -> None:
    four = served.with_versions(either, tmp_path)
    started(four, "shadow", "hh@2")
    router, recorder = Router(four, follow=False), Recorder(four)
    with clock_at((now() - timedelta(minutes=16)).timestamp()):
        served.serve(four, router, 7, lambda arm, chance: {"status": "error"})
    measured = {"status": "ok", "latency_s": 0.5, "reward": 2.0}
    shown = [
        row for row in served.serve(four, router, 9, lambda arm, chance: measured, seed=1) if row.shadow_of is None
    ]
    served.serve(four, router, 1, lambda arm, chance: {"status": "error", "latency_s": 9.0}, seed=2)
    served.serve(four, router, 5, lambda arm, chance: {"status": "shed"}, seed=3)
    recorder.record_outcome(served.thumb(shown[0].request_id, True))
    recorder.record_outcome(served.thumb(shown[1].request_id, False))
    refused = Outcome(shown[2].request_id, "thumb", "thumb", 0.0, state="refused")
    recorder.record_outcome(refused).durable(5)
    recorder.close()
    router.close()
    with four.read() as connection:
        found = lately.by_alias(connection)
        assert lately.by_alias(connection, minutes=1)[ALIAS].per_minute == 15
    assert set(found) == {ALIAS}
    one = found[ALIAS]
    assert (one.n, one.per_minute, one.error_rate) == (15, pytest.approx(1.0), pytest.approx(0.1))
    assert (one.latency_s, one.reward, one.n_rewards, one.satisfaction, one.n_thumbs) == (0.5, 2.0, 9, 0.5, 2)


def test_nothing_served_is_nothing_told(workspace: Workspace, tmp_path: Path) -> None:
    four = served.with_versions(workspace, tmp_path)
    with four.read() as connection:
        assert lately.by_alias(connection) == {}


def test_the_look_reads_by_time_and_not_everything_that_is_kept(workspace: Workspace) -> None:
    asked: list[tuple[str, object]] = []
    engine = workspace.database.engine
    event.listen(engine, "before_cursor_execute", lambda c, cursor, words, values, *_: asked.append((words, values)))
    with workspace.read() as connection:
        lately.by_alias(connection)
        looks = [(words, values) for words, values in asked if "exposures" in words]
        plans = [
            [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)]  # type: ignore[arg-type]
            for words, values in looks
        ]
    assert len(plans) == 1
    for plan in plans:
        assert any("exposures USING INDEX" in step and "at>" in step for step in plan), plan
        assert not any(step.startswith("SCAN") for step in plan), plan
