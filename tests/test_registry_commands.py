"""`rlhf adapter` and `rlhf alias`: exit codes, the keys that scripts rely on, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from snapshot_rows import judged, pair_of, put

from rlhf import cli, snapshots
from rlhf.registry import GateRules, aliases, gates, open_version
from rlhf.store import Workspace

Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def call(workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `rlhf WORDS --json` on the workspace: exit status and the one JSON object."""

    def run(*words: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["rlhf", *words, "--workspace", str(workspace.root), "--json"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return int(stop.value.code or 0), json.loads(lines[0])

    return run


@pytest.fixture
def two(workspace: Workspace, tmp_path: Path) -> Workspace:
    made.published(workspace, tmp_path, 0)
    made.published(workspace, tmp_path, 1)
    return workspace


def test_set_and_rollback_answer_with_names_and_seconds(two: Workspace, call: Call) -> None:
    status, first = call("alias", "set", "hh@champion", "hh@1", "--why", "first")
    assert status == 0 and (first["alias"], first["from"], first["to"]) == ("hh@champion", None, "hh@1")
    call("alias", "set", "hh@champion", "hh@2", "--why", "better")
    status, back = call("alias", "rollback", "hh@champion", "--why", "worse in the field")
    assert status == 0 and (back["from"], back["to"]) == ("hh@2", "hh@1") and 0 <= back["seconds"] < 5
    assert back["from_digest"] and back["to_digest"] == first["to_digest"]
    assert call("alias", "rollback", "hh@champion", "--why", "x")[1]["error"]["code"] == "conflict"
    assert call("alias", "rollback", "hh@champion", "--to", "hh@2", "--why", "no, it was good")[1]["to"] == "hh@2"
    history = call("alias", "history", "hh@champion")[1]["moves"]
    assert [(m["from"], m["to"], m["action"]) for m in history] == [
        (None, "hh@1", "set"),
        ("hh@1", "hh@2", "set"),
        ("hh@2", "hh@1", "rollback"),
        ("hh@1", "hh@2", "rollback"),
    ]
    assert call("alias", "list")[1]["aliases"][0]["version"] == "hh@2"


def test_a_rollback_to_a_damaged_version_is_done_and_said(
    two: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("hh@1", "hh@2"):
        aliases.move(two, "hh@champion", version, why="up")
    (open_version(two, "hh@1").folder / "adapter_config.json").write_text("{}")
    words = ["alias", "rollback", "hh@champion", "--why", "worse", "--workspace", str(two.root), "--json"]
    monkeypatch.setattr(sys, "argv", ["rlhf", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (
        not stop.value.code and json.loads(out)["to"] == "hh@1" and str(aliases.current(two, "hh@champion")) == "hh@1"
    )
    assert err.startswith("warning: hh@champion") and "versions/hh/1/adapter_config.json was changed" in err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("alias", "set", "hh@champion", "hh@9", "--why", "x"), 1),
        (("alias", "set", "hh@champion", "hh@1"), 2),
        (("alias", "set", "hh@champion", "hh@1", "--why", " "), 1),
        (("alias", "set", "hh@7", "hh@1", "--why", "x"), 2),
        (("alias", "set", "hh@champion", "hh@1", "--why", "x", "--expect", "3"), 1),
        (("alias", "history", "hh@champion"), 1),
        (("alias", "rollback", "hh@champion", "--why", "x"), 1),
        (("adapter", "show", "hh"), 2),
        (("adapter", "verify", "hh@9"), 1),
        (("adapter", "export", "hh@9", "out"), 1),
        (("adapter", "import", "absent"), 1),
        (("adapter", "list", "--role", "king"), 2),
        (("adapter", "lineage"), 2),
        (("adapter", "sign", "hh@1", "--report", "0" * 12, "--as", "evaluator"), 1),
    ],
)
def test_a_refusal_is_one_object_with_a_fix(two: Workspace, call: Call, words: tuple[str, ...], status: int) -> None:
    seen, answer = call(*words)
    assert seen == status and set(answer["error"]) == {"message", "fix", "code"} and answer["error"]["fix"]


def test_list_show_lineage_and_diff_name_versions(two: Workspace, call: Call) -> None:
    assert [v["version"] for v in call("adapter", "list")[1]["versions"]] == ["hh@1", "hh@2"]
    shown = call("adapter", "show", "hh@2")[1]
    assert shown["version"] == "hh@2" and shown["metrics"] == {"accuracy": 0.7} and shown["manifest"]["probe"]
    assert call("adapter", "lineage", "hh@2")[1]["base"]["name"] == "tiny"
    assert call("adapter", "diff", "hh@1", "hh@2")[1]["tensors"]


def test_diff_shows_the_tensors_that_are_farthest_apart_and_with_all_every_one(two: Workspace) -> None:
    def shown(*more: str) -> list[str]:
        words = [sys.executable, "-m", "rlhf.cli", "adapter", "diff", "hh@1", "hh@2", *more]
        done = subprocess.run([*words, "--workspace", str(two.root)], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    few, every = shown(), shown("--all")
    apart = [float(line.rpartition("apart ")[2]) for line in every if "apart" in line]
    assert len(apart) == 9 and apart == sorted(apart, reverse=True)
    assert few == [*every[:6], "  and 4 more tensors that differ less; --all or --json lists them"]


def test_a_snapshot_is_called_so_where_a_version_has_its_name(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(workspace, [judged(pair_of(i), "a") for i in range(4)])
    cut = snapshots.cut(workspace, "hh", holdout=0.5)
    made.published(workspace, tmp_path, 0, snapshot_digest=cut.digest)
    for words, said in (
        (("hh@1",), "trained-on  of hh@1: snapshot hh@1, 4 pairs"),
        (("--snapshot", "hh@1"), "hh@1  trained-on snapshot hh@1"),
    ):
        monkeypatch.setattr(sys, "argv", ["rlhf", "adapter", "lineage", *words, "--workspace", str(workspace.root)])
        with pytest.raises(SystemExit):
            cli.main()
        assert said in capsys.readouterr().out


def test_verify_exits_1_naming_the_file(two: Workspace, call: Call) -> None:
    assert call("adapter", "verify")[0] == 0
    (open_version(two, "hh@2").folder / "adapter_config.json").write_text("{}")
    status, answer = call("adapter", "verify")
    assert status == 1 and answer["problems"] == [
        "versions/hh/2/adapter_config.json was changed after it was published"
    ]
    assert call("adapter", "verify", "hh@1")[0] == 0 and call("adapter", "verify", "hh@2")[0] == 1


def test_retire_and_sign(two: Workspace, call: Call) -> None:
    made.report(two, "ab12" * 16)
    signed = call("adapter", "sign", "hh@1", "--report", "ab12" * 4, "--as", "evaluator")[1]
    assert signed["report_digest"] == "ab12" * 16
    assert call("adapter", "retire", "hh@1")[1]["retired_at"]
    assert call("alias", "set", "hh@champion", "hh@1", "--why", "x")[0] == 1


def test_export_falls_back_on_the_base_s_name(two: Workspace, call: Call, tmp_path: Path) -> None:
    status, answer = call("adapter", "export", "hh@1", str(tmp_path / "out"))
    assert status == 0 and answer["base"] == "tiny" and (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert call("adapter", "export", "hh@1", str(tmp_path / "out"))[1]["error"]["code"] == "conflict"


def test_people_read_lines_and_no_traceback(two: Workspace) -> None:
    def rlhf(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rlhf.cli", *words, "--workspace", str(two.root)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert rlhf("adapter", "list").stdout.splitlines()[1].startswith("hh@2")
    refused = rlhf("adapter", "show", "hh@3")
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.splitlines() == ["error: there is no version hh@3", "  fix: hh has hh@1, hh@2"]


def test_a_gate_is_set_shown_checked_and_removed(two: Workspace, call: Call, tmp_path: Path) -> None:
    rules = tmp_path / "gate.yaml"
    rules.write_text("report: evaluation\nagainst: any\nrules:\n  - {figure: accuracy, above: 0.6}\n")
    gate = ("alias", "gate", "hh@champion")
    ungated = {"alias": "hh@champion", "gate": None, "cautions": []}
    assert call(*gate) == (0, ungated)
    assert call(*gate, "--rules", str(rules))[1]["error"]["code"] == "bad_input"
    status, answer = call(*gate, "--rules", str(rules), "--why", "no worse than 0.6")
    assert status == 0 and answer["gate"]["rules"]["rules"][0]["above"] == 0.6
    assert call(*gate) == (0, answer)
    status, refused = call("alias", "set", "hh@champion", "hh@1", "--why", "x")
    assert status == 1 and refused["error"]["code"] == "conflict" and "has a gate" in refused["error"]["message"]
    status, verdict = call(*gate, "--check", "hh@1")
    assert status == 1 and not verdict["passed"] and verdict["reasons"]
    (caution,) = verdict["cautions"]
    assert "names no data set" in caution and answer["cautions"] == [caution]
    made.report(two, "ab12" * 16, {"hh@1": {"accuracy": 0.7}})
    assert call(*gate, "--check", "hh@1")[0] == 0
    moved = call("alias", "set", "hh@champion", "hh@1", "--why", "x")[1]
    assert moved["evidence"]["gate"]["report"] == "ab12" * 16
    assert call(*gate, "--remove", "--why", "in the way") == (0, ungated)
    assert call("alias", "set", "hh@champion", "hh@2", "--why", "x")[0] == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--remove", "--why", "x"), 1),
        (("--remove", "--check", "hh@1"), 2),
        (("--rules", "absent.yaml", "--why", "x"), 2),
        (("--check", "hh"), 2),
        (("--snapshot", "suite:bench@1"), 2),
    ],
)
def test_gate_words_that_make_no_sense_are_refused(
    two: Workspace, call: Call, words: tuple[str, ...], status: int
) -> None:
    if words[-1] == "hh":
        gates.set_gate(two, "hh@champion", GateRules(signoffs=("evaluator",)), "x")
    seen, answer = call("alias", "gate", "hh@champion", *words)
    assert seen == status and answer["error"]["fix"]


CLASSES = """
classes:
  low: {report: evaluation, against: any, rules: [accuracy_low >= 0.6 of 50], review_days: 90}
  high: {extends: low, rules: [fairness.worst_gap <= 0.05], signoffs: [evaluator]}
"""


def test_an_alias_is_given_a_class_and_checked_without_moving(
    two: Workspace, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(CLASSES)
    assert list(call("gate", "classes", str(file))[1]["classes"]) == ["low", "high"]
    gate = ("alias", "gate", "hh@champion", "--rules", str(file), "--why", "everybody is served")
    assert call(*gate)[1]["error"]["fix"] == "say which with --class"
    made.report(two, "0abc" * 16, {"hh@2": {"accuracy_low": 0.1}})
    assert call(*gate, "--class", "high")[1]["gate"]["rules"]["risk_class"] == "high"
    assert [one["alias"] for one in call("gate", "list")[1]["gates"]] == ["hh@champion"]
    made.report(two, "ab12" * 16, {"hh@1": {"accuracy_low": 0.64, "n": 80, "fairness": {"worst_gap": 0.2}}})
    status, verdict = call("gate", "check", "hh@champion", "hh@1")
    assert status == 1 and not verdict["passed"]
    assert [(rule["rule"], rule["met"], rule.get("value"), rule.get("n")) for rule in verdict["rules"]] == [
        ("accuracy_low >= 0.6 of 50", True, 0.64, 80),
        ("fairness.worst_gap <= 0.05", False, 0.2, 80),
        ("signed by evaluator", False, None, None),
    ]
    assert call("alias", "list")[1]["aliases"] == []
    assert call("gate", "check", "hh@champion", "hh@1", "--report", "ab12" * 3)[1]["rules"] == verdict["rules"]
    assert call("gate", "check", "hh@champion", "hh@1", "--report", "0abc" * 3)[1]["error"]["code"] == "bad_input"
    assert call("alias", "gate", "hh@champion", "--class", "low")[0] == 2


@pytest.mark.parametrize("words", [("gate", "check"), ("alias", "gate", "--check")])
def test_a_check_of_an_alias_without_a_gate_is_an_error(two: Workspace, call: Call, words: tuple[str, ...]) -> None:
    gates.set_gate(two, "hh@champion", GateRules(signoffs=("evaluator",)), "x")
    asked = (
        ("gate", "check", "hh@champoin", "hh@1")
        if words[0] == "gate"
        else ("alias", "gate", "hh@champoin", "--check", "hh@1")
    )
    status, answer = call(*asked)
    assert (status, answer["error"]["code"]) == (1, "not_found")
    assert answer["error"]["message"] == "no gate is on hh@champoin (nearest: hh@champion)"
    assert "rlhf gate list" in answer["error"]["fix"]
    assert call("alias", "set", "hh@champoin", "hh@1", "--why", "no gate is there")[0] == 0


def test_the_data_set_is_pinned_where_the_gate_is_set(two: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(CLASSES)
    gate = ("alias", "gate", "hh@champion", "--rules", str(file), "--class", "low", "--why", "x")
    said = rlhf_in(two, *gate)
    assert (
        "  caution: it names no data set: the newest evaluation report on any suite or snapshot counts" in said.stdout
    )
    made.report(two, "ab12" * 16, {"hh@1": {"accuracy_low": 0.64, "n": 80}})
    assert "  caution: it names no data set" in rlhf_in(two, "gate", "check", "hh@champion", "hh@1").stdout
    said = rlhf_in(two, *gate, "--snapshot", "suite:bench@1")
    assert said.returncode == 0, said.stderr
    assert "caution" not in said.stdout and "  the newest evaluation report against any on suite:bench@1" in said.stdout
    assert "remark: there is no data set suite:bench@1 yet, and nothing passes without a report on it" in said.stderr
    checked = rlhf_in(two, "gate", "check", "hh@champion", "hh@1")
    assert (
        checked.returncode == 1 and "no evaluation report of hh@1 on the test side of suite:bench@1" in checked.stdout
    )
    assert gates.gate_of(two, "hh@champion").rules.risk_class == "low"  # type: ignore[union-attr]


def test_a_data_set_that_is_there_is_not_remarked(two: Workspace, tmp_path: Path) -> None:
    rows = tmp_path / "bench.jsonl"
    rows.write_text('{"prompt": "Say hello.", "chosen": "Hello, and welcome.", "rejected": "No."}\n')
    assert rlhf_in(two, "suite", "import", "bench", str(rows)).returncode == 0
    file = tmp_path / "gate.yaml"
    file.write_text("report: evaluation\nagainst: any\nsnapshot: suite:bench@2\nrules: [accuracy > 0.6]\n")
    gate = ("alias", "gate", "hh@champion", "--rules", str(file), "--why", "x")
    assert "no data set suite:bench@2 yet (nearest: suite:bench@1)" in rlhf_in(two, *gate).stderr
    said = rlhf_in(two, *gate, "--snapshot", "suite:bench@1")
    assert said.returncode == 0 and said.stderr == "" and "on suite:bench@1" in said.stdout


def test_a_rule_s_figure_is_told_with_interval_and_method_by_the_check_and_by_the_decision(
    two: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("report: evaluation\nagainst: any\nsnapshot: suite@1\nrules: [accuracy_low >= 0.6 of 50, n > 10]\n")
    assert rlhf_in(two, "alias", "gate", "hh@champion", "--rules", str(file), "--why", "x").returncode == 0
    measure = {"value": 0.7, "low": 0.64, "high": 0.76, "n": 180, "level": 0.95, "method": "bootstrap"}
    for version, digest, low in (("hh@1", "ab12", 0.64), ("hh@2", "0abc", 0.5)):
        figures = {"accuracy": 0.7, "accuracy_low": low, "n": 180, "measures": {"accuracy": measure | {"low": low}}}
        made.report(two, digest * 16, {version: figures})
    told = "accuracy_low >= 0.6 of 50: 0.64 (0.64 to 0.76 at 95 %, bootstrap), n = 180"
    assert f"  met      {told}" in rlhf_in(two, "gate", "check", "hh@champion", "hh@1").stdout
    unmet = rlhf_in(two, "gate", "check", "hh@champion", "hh@2").stdout
    assert "(report 0abc0abc0abc); 0.5 (0.5 to 0.76 at 95 %, bootstrap), n = 180" in unmet
    assert rlhf_in(two, "alias", "set", "hh@champion", "hh@1", "--why", "better").returncode == 0
    shown = rlhf_in(two, "decisions", "show", "2").stdout
    assert f"    met: {told}" in shown and "    met: n > 10: 180, n = 180" in shown
    assert "  assumed  on the test side of suite@1" in shown


def test_a_figure_that_is_still_to_come_is_remarked(two: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(CLASSES)
    made.report(two, "0abc" * 16, {"hh@2": {"accuracy_low": 0.1}})
    said = rlhf_in(two, "alias", "gate", "hh@champion", "--rules", str(file), "--class", "high", "--why", "x")
    assert said.returncode == 0, said.stderr
    assert "remark: no evaluation report has fairness.worst_gap yet" in said.stderr
    assert "gate 1 of class high" in said.stdout and "  fairness.worst_gap <= 0.05" in said.stdout


def test_decisions_are_listed_shown_and_taken_back(two: Workspace, call: Call) -> None:
    for version in ("hh@1", "hh@2"):
        assert call("alias", "set", "hh@champion", version, "--why", f"to {version}")[0] == 0
    listed = call("decisions", "list")[1]["decisions"]
    assert [(one["decision"], one["from"], one["to"], one["why"]) for one in listed] == [
        (1, None, "hh@1", "to hh@1"),
        (2, "hh@1", "hh@2", "to hh@2"),
    ]
    assert call("decisions", "review", "--notes", "fine", "--seen", "1")[1]["error"]["code"] == "conflict"
    assert call("decisions", "review", "--notes", "fine")[1]["content"]["up_to"] == 2
    assert call("decisions", "revoke", "2")[0] == 2, "why is wanted"
    status, back = call("decisions", "revoke", "2", "--why", "complaints")
    assert status == 0 and (back["decision"], back["takes_back"], back["revoked"], back["to"]) == (4, 2, 2, "hh@1")
    assert call("alias", "history", "hh@champion")[1]["moves"][-1]["action"] == "rollback"
    assert call("decisions", "list", "--since", "review")[1]["decisions"] == [
        call("decisions", "list")[1]["decisions"][-1]
    ]
    assert call("decisions", "show", "9")[1]["error"]["fix"] == "the last is 4; see: rlhf decisions list"
    assert call("adapter", "retire", "hh@2", "--why", "harm")[0] == 0
    assert call("decisions", "list", "--kind", "retirement")[1]["decisions"][0]["why"] == "harm"


def test_a_decision_reads_as_text(two: Workspace, call: Call) -> None:
    made.report(
        two, "ab12" * 16, {"hh@1": {"accuracy": 0.6, "n": 80}, "hh@2": {"accuracy": 0.7, "n": 80}}, simulated=True
    )
    for version in ("hh@1", "hh@2"):
        call("alias", "set", "hh@champion", version, "--why", "better")
    said = rlhf_in(two, "decisions", "show", "2")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("decision 2 (promotion): hh@champion moves from hh@1 to hh@2")
    assert (
        "accuracy: 0.6 -> 0.7" in said.stdout and "simulated labelers" in said.stdout and "gate     none" in said.stdout
    )
    assert "   1  " in rlhf_in(two, "decisions", "list").stdout


def rlhf_in(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, without --json."""
    command = [sys.executable, "-m", "rlhf.cli", *words, "--workspace", str(workspace.root)]
    return subprocess.run(command, capture_output=True, text=True)
