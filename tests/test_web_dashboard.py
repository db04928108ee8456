"""The dashboard's API: figures by version and audience for those who operate, with what the newest report says of each version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from operated import operated
from served import ALIAS
from test_web_board import expert
from test_web_operate import operator

from rlhf.ids import now_text
from rlhf.registry import resolve
from rlhf.serving import dashboards
from rlhf.store import Workspace
from rlhf.store.tables import reports


def test_the_dashboard_tells_what_the_sums_hold(workspace: Workspace, tmp_path: Path) -> None:
    operated(workspace, tmp_path)
    told = operator(workspace).get("/api/dashboard?window=hour").json()
    with workspace.read() as connection:
        wanted = dashboards.read(connection, "hour")
    assert {row["version"]: row["figures"]["n"] for row in told["rows"]} == {
        str(resolve(workspace, f"sha256:{row['digest']}")): row["figures"]["n"] for row in wanted["rows"]
    }
    assert sum(row["figures"]["n"] for row in told["rows"]) == 400
    assert sum(row["figures"]["satisfaction"]["n"] for row in told["rows"]) == 100
    assert {(row["alias"], row["held_out"]) for row in told["rows"]} == {(ALIAS, None)}


def test_what_the_newest_report_says_stands_beside_what_is_served(workspace: Workspace, tmp_path: Path) -> None:
    operated(workspace, tmp_path, n=20)
    figures = {
        "hh@3": {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "n": 90},
        "hh@2": {"win_rate": 0.4, "n": 9},
    }
    with workspace.write() as write:
        for digest, some, at in (
            ("b" * 64, figures, now_text()),
            ("a" * 64, {"hh@3": {"accuracy": 0.1}}, "2020-01-01"),
        ):
            row = {"digest": digest, "kind": "evaluation", "title": "t", "path": "p", "actor": "x", "created_at": at}
            write.connection.execute(reports.insert(), [{**row, "figures": json.dumps(some)}])
    rows = operator(workspace).get("/api/dashboard?window=hour").json()["rows"]
    held_out = {row["version"]: row["held_out"] for row in rows}
    assert held_out["hh@3"] == {"what": "accuracy", "value": 0.7, "low": 0.6, "high": 0.8, "n": 90, "report": "b" * 64}
    assert held_out["hh@2"] == {"what": "win rate", "value": 0.4, "low": None, "high": None, "n": 9, "report": "b" * 64}


@pytest.mark.parametrize("query", ["window=year", "by=moon", "window="])
def test_another_window_is_refused_in_words(workspace: Workspace, query: str) -> None:
    answer = operator(workspace).get(f"/api/dashboard?{query}")
    assert answer.status_code in (400, 422) and query.partition("=")[0] in answer.json()["error"]["message"]


def test_labelers_see_no_dashboard(workspace: Workspace) -> None:
    labeler = expert(workspace, "lab", "labeler", ("label",))
    assert labeler.get("/dashboard").status_code == 403 and labeler.get("/api/dashboard").status_code == 403
    assert operator(workspace).get("/dashboard").status_code == 200
