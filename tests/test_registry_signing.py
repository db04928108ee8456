"""Sign-offs name a version and a report that both exist."""

from __future__ import annotations

from pathlib import Path

import adapter_folders as made
import pytest

from rlhf.errors import BadInput, BadUsage, Damaged, Forbidden, NotFound
from rlhf.registry import open_version, show, sign
from rlhf.store import Workspace, audit

REPORT = "ab12" * 16


@pytest.fixture
def ready(workspace: Workspace, tmp_path: Path) -> Workspace:
    made.published(workspace, tmp_path, 0)
    made.report(workspace, REPORT)
    return workspace


def test_a_sign_off_is_recorded_once_with_its_actor(ready: Workspace) -> None:
    signed = sign(ready.as_actor("ann"), "hh@1", f"sha256:{REPORT[:12]}", "evaluator")
    assert (signed.who, signed.role, signed.report_digest) == ("ann", "evaluator", REPORT)
    assert sign(ready.as_actor("ann"), "hh@1", REPORT, "evaluator") == signed
    assert [s["who"] for s in show(ready, "hh@1").signoffs] == ["ann"]
    with ready.read() as connection:
        (entry,) = audit.entries(connection, action="version.sign")
    assert entry["actor"] == "ann" and entry["details"]["report"] == REPORT


@pytest.mark.parametrize(
    ("version", "report", "role"),
    [
        ("hh@2", REPORT, "evaluator"),
        ("hh@1", "0" * 64, "evaluator"),
        ("hh@1", "ab1", "evaluator"),
        ("hh@1", "", "evaluator"),
        ("hh@1", "%" * 12, "evaluator"),
        ("hh@1", REPORT, ""),
        ("hh@1", REPORT, "x" * 41),
    ],
)
def test_what_is_not_there_cannot_be_signed(ready: Workspace, version: str, report: str, role: str) -> None:
    with pytest.raises((NotFound, BadUsage)):
        sign(ready, version, report, role)
    assert show(ready, "hh@1").signoffs == ()


@pytest.mark.parametrize("what", ["the version", "the report", "a missing report"])
def test_what_is_damaged_is_not_signed(ready: Workspace, what: str) -> None:
    file = Path(ready.artifacts.root) / "reports" / REPORT[:12] / "report.json"
    if what == "the version":
        (open_version(ready, "hh@1").folder / "adapter_config.json").write_text("{}")
    elif what == "the report":
        file.write_text('{"accuracy": 1.0}', "utf-8")
    else:
        file.unlink()
    with pytest.raises(Damaged):
        sign(ready, "hh@1", REPORT, "evaluator")
    assert show(ready, "hh@1").signoffs == ()
    with ready.read() as connection:
        assert audit.entries(connection, action="version.sign") == []


def test_a_report_on_another_version_is_not_signed_with(ready: Workspace, tmp_path: Path) -> None:
    made.published(ready, tmp_path, 1)
    with pytest.raises(BadInput, match="doesn't measure hh@2: it is about hh@1"):
        sign(ready, "hh@2", REPORT, "evaluator")
    namesake = {"hh@2": {"digest": "0" * 64, "figures": {}}}
    made.report(ready, "cd34" * 16, versions=namesake)
    with pytest.raises(BadInput, match="doesn't measure hh@2: it is about hh@2"):
        sign(ready, "hh@2", "cd34" * 16, "evaluator")
    assert show(ready, "hh@2").signoffs == ()


def test_nobody_signs_what_they_trained(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, 0, run_id="01run")
    made.report(workspace, REPORT)
    with pytest.raises(Forbidden, match="tester trained hh@1, and nobody signs what they trained"):
        sign(workspace, "hh@1", REPORT, "evaluator")
    assert show(workspace, "hh@1").signoffs == ()
    assert sign(workspace.as_actor("ann"), "hh@1", REPORT, "evaluator").who == "ann"
