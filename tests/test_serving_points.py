"""A reply's reward is one thing wherever it is read, and who may send feedback doesn't outvote a judge."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import served
from pydantic import ValidationError
from sqlalchemy import update

from rlhf.serving import Outcome, Recorder, Router, capture, dashboards, guardrails, lately, monitor, points
from rlhf.serving.capture import Metric
from rlhf.serving.log import Rollout
from rlhf.store import Workspace
from rlhf.store.tables import rollouts


@pytest.mark.parametrize(
    ("own", "reported", "is_judged", "wanted"),
    [
        (None, None, False, None),
        (None, 2.0, False, 2.0),
        (None, 2.0, True, None),
        (1.0, 2.0, False, 1.0),
        (1.0, 2.0, True, 1.0),
        (None, -1e300, False, None),
        (math.nan, None, False, None),
    ],
)
def test_what_was_given_here_comes_first(
    own: float | None, reported: float | None, is_judged: bool, wanted: float | None
) -> None:
    assert points.reward_of(own, reported, is_judged=is_judged) == wanted


@pytest.mark.parametrize("is_judged", [False, True], ids=["reported", "judged"])
def test_guards_pages_and_sums_read_one_reward(workspace: Workspace, tmp_path: Path, is_judged: bool) -> None:
    served.with_versions(workspace, tmp_path)
    rollout = served.started(workspace, "ab", guards=[{"metric": "reward"}])
    if is_judged:
        _give_judge(workspace, rollout)
    router, recorder = Router(workspace, follow=False), Recorder(workspace)
    rows = served.serve(workspace, router, 200, lambda arm, chance: {"reward": chance.choice([None, 1.0])})
    for row in rows:
        if row.arm == "b":
            recorder.record_outcome(Outcome(row.request_id, "metric", "reward", -1000.0))
    recorder.record_outcome(Outcome(rows[0].request_id, "metric", "reward", 1e300)).durable(20)  # from before the bound
    recorder.close()
    router.close()
    with workspace.read() as connection:
        read = monitor.served(connection, rollout)
        verdict = guardrails.judge(connection, rollout, read)
        recent = lately.by_alias(connection)[served.ALIAS]
        board = dashboards.read(connection, "hour")["rows"]
    own = {row.request_id: row.reward for row in rows}
    for row in read:
        reported = -1000.0 if row.arm == "b" and not is_judged else None
        assert row.reward == (own[row.request_id] if own[row.request_id] is not None else reported)
    told = [row.reward for row in read if row.reward is not None]
    assert verdict.action == ("none" if is_judged else "roll_back")
    assert (recent.reward, recent.n_rewards) == (pytest.approx(sum(told) / len(told)), len(told))
    figures = [row["figures"]["reward"] for row in board if row["figures"]["reward"] is not None]
    assert sum(one["n"] for one in figures) == len(told)
    assert sum(one["n"] * one["value"] for one in figures) == pytest.approx(sum(told))


@pytest.mark.parametrize("value", [-1e300, 1e9, math.inf, math.nan])
def test_a_number_without_measure_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        Metric(name="reward", value=value)
    assert Metric(name="reward", value=-points.MOST).value == -points.MOST


@pytest.mark.parametrize("name", capture.MEASURED)
def test_what_the_server_measures_itself_is_nobody_elses_to_say(name: str) -> None:
    with pytest.raises(ValidationError, match="measured by the server"):
        Metric(name=name, value=0.0)


def _give_judge(workspace: Workspace, rollout: Rollout) -> None:
    """As if it had begun with one: these versions' base is no model that a reward could be of."""
    with workspace.write() as write:
        (spec,) = write.connection.execute(rollouts.select().where(rollouts.c.id == rollout.id)).all()
        stored = json.loads(spec.spec)
        stored["settings"]["judge"] = {"version": f"sha256:{'a' * 64}", "share": 100.0}
        said = json.dumps(stored, sort_keys=True, separators=(",", ":"))
        write.connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(spec=said))
