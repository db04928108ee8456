"""DESIGN.md, 'The commands': exit 0, `--json` gives one object with the promised keys on standard output and nothing else there."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import FAST, REAL, REPLIES, CommandLine, copy_of, state
from preferences import write_polite

from rlhf import cli

READS = {
    "base list": {"bases"},
    "feedback list": {"pairs", "sources"},
    "feedback show PAIR": {"id", "judgements", "prompt", "reply_a", "reply_b", "sources"},
    "feedback receipts": {"imports"},
    "feedback receipts IMPORT": {"imports"},
    "feedback formats": {"formats"},
    "snapshot list": {"snapshots"},
    "snapshot show polite": {"digest", "ref", "card", "splits"},
    "snapshot check polite": {"snapshot", "leaks", "contradictions", "copies", "too_long"},
    "snapshot check polite@1 --base tiny --max-tokens 40": {"snapshot", "too_long"},
    "snapshot diff polite@1 polite@2": {"a", "b", "same", "unchanged", "added", "removed"},
    "reward settings": {"max_steps", "save_steps", "seed", "epochs", "learning_rate", "pairs_per_step"},
    "adapter list": {"versions"},
    "adapter list --role policy": {"versions"},
    "adapter show hh@champion": {"version", "digest", "metrics", "manifest", "signoffs"},
    "adapter lineage hh@1": {"version", "base", "ancestors", "snapshots", "descendants"},
    "adapter lineage --snapshot polite@1": {"snapshot", "descendants"},
    "adapter card hh@champion": {"version", "digest", "details", "data", "reports", "signoffs", "limits", "lineage"},
    "adapter diff hh@1 hh@2": {"a", "b", "tensors", "metrics"},
    "adapter verify": {"ok", "files", "versions", "problems"},
    "adapter verify hh@1": {"ok", "files", "versions", "problems"},
    "alias list": {"aliases"},
    "alias history hh@champion": {"alias", "moves"},
    "gate list": {"gates"},
    "decisions list": {"decisions"},
    "decisions list --overdue --since review": {"decisions"},
    "decisions show 1": {"decision", "kind", "from", "to", "who", "why", "content", "review_at"},
    "report list": {"reports"},
    "report show REPORT": {"versions", "report", "report_digest"},
    "report diff REPORT REPORT": {"a", "b", "same_pairs", "figures"},
    "rollout status": {"rollouts"},
    "run list": {"runs"},
    "run show RUN": {"id", "kind", "state", "folder", "settings"},
    "people list": {"tokens"},
    "label status": {"labelers", "open_pairs", "opinions"},
    "label rules": {"seq", "more", "review", "gold_rate", "in_words"},
    "label gold list": {"gold"},
    "label paused": {"paused"},
    "label appeals": {"paused"},
    "doctor": {"python", "placement", "torch", "workspace", "database", "bases"},
    "init": {"workspace", "made"},
    "gc --dry-run": {"dry_run", "kinds", "n_bytes", "unused_bases"},
}


def words_of(rlhf: CommandLine, command: str) -> list[str]:
    """The command's words, with the ids that stand for PAIR, IMPORT, REPORT and RUN."""
    ids = {
        "PAIR": lambda: rlhf.json("feedback", "list")["pairs"][0]["id"],
        "IMPORT": lambda: rlhf.json("feedback", "receipts")["imports"][0]["import"],
        "REPORT": lambda: rlhf.json("report", "list")["reports"][0]["digest"],
        "RUN": lambda: rlhf.json("run", "list")["runs"][0]["id"],
    }
    return [ids[word]() if word in ids else word for word in command.split()]


@pytest.mark.parametrize("command", READS)
def test_a_question_has_one_answer_and_changes_nothing(rlhf: CommandLine, command: str) -> None:
    assert rlhf.root is not None
    words = words_of(rlhf, command)
    before = state(rlhf.root)
    answer = rlhf(*words, "--json")
    assert answer.status == 0 and answer.err == ""
    assert READS[command] <= answer.value.keys()
    for_people = rlhf(*words)
    assert (for_people.status, for_people.err) == (0, "") and for_people.out.strip()
    assert not for_people.out.startswith("{") or words[0] == "run"
    assert state(rlhf.root) == before


def test_the_main_job_answers_with_the_promised_keys(rlhf: CommandLine, tmp_path: Path, tiny_folder: Path) -> None:
    new = rlhf.at(tmp_path / "new")
    assert new.json("init") == {"workspace": str(tmp_path / "new"), "made": True}
    file = write_polite(tmp_path / "polite.jsonl", 30)
    file.write_text(file.read_text("utf-8") * 2 + "no json\n", "utf-8")
    receipt = new.json("feedback", "import", file, "--source", "süß 源")
    counts = {key: receipt[key] for key in ("rows", "accepted", "duplicates", "rejected")}
    assert counts == {"rows": 61, "accepted": 30, "duplicates": 30, "rejected": 1}
    (bad,) = receipt["errors"]
    assert bad["file"] == str(file) and bad["line"] == 61 and "JSON" in bad["reason"]
    cut = new.json("snapshot", "cut", "polite", "--holdout", "0.3", "--source", "süß 源")
    assert (cut["name"], cut["pairs"]) == ("polite", 30) and len(cut["digest"]) == 64
    assert set(cut["splits"]) == {"train", "test"} and sum(cut["splits"].values()) == 30
    assert {"name", "digest"} <= new.json("base", "add", "tiny", "--dir", tiny_folder).keys()
    answer = new("reward", "train", "hh", "--snapshot", "polite", "--base", "tiny", "--json", *FAST)
    trained = answer.value
    assert answer.status == 0 and trained["version"] == "hh@1" and len(trained["digest"]) == 64
    assert new.json("run", "show", trained["run"])["state"] == "done" and 0 <= trained["metrics"]["accuracy"] <= 1
    assert "0/2" in answer.err and "2/2" in answer.err  # progress, though standard error is no terminal
    run_folder = tmp_path / "new" / "runs" / trained["run"]
    assert all((run_folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "report.json", "report.html"))
    answer = new("evaluate", "hh@1", "--snapshot", "polite", "--out", tmp_path / "page", "--json")
    figures = answer.value["versions"]["hh@1"]
    assert {"n", "accuracy", "accuracy_low", "accuracy_high", "log_loss", "ece"} <= figures.keys()
    assert figures["n"] == cut["splits"]["test"] and Path(answer.value["report"]).is_file() and "scored" in answer.err
    assert {file.name for file in (tmp_path / "page").iterdir()} == {"report.json", "report.html"}


def test_an_alias_moves_and_returns_with_names_and_seconds(rlhf: CommandLine) -> None:
    back = rlhf.json("alias", "rollback", "hh@champion", "--why", "worse in the field")
    assert (back["alias"], back["from"], back["to"]) == ("hh@champion", "hh@2", "hh@1") and 0 <= back["seconds"] < 5
    new = rlhf.json("alias", "set", "hh@next", "sha256:" + back["to_digest"][:12], "--why", "a trial")
    assert (new["alias"], new["from"], new["to"]) == ("hh@next", None, "hh@1") and new["seconds"] >= 0
    assert rlhf.json("alias", "rollback", "hh@champion", "--to", "hh@2", "--why", "it was good")["to"] == "hh@2"


def test_a_version_goes_out_comes_back_is_signed_and_retired(
    rlhf: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = rlhf.json("adapter", "export", "hh@1", tmp_path / "out")
    assert Path(out["folder"]).is_dir() and out["version"] == "hh@1"
    (tmp_path / "out" / "manifest.json").unlink()  # as a stranger's PEFT folder
    back = rlhf.json("adapter", "import", tmp_path / "out")
    assert back["version"] == "hh@1" and {"digest", "run", "metrics"} <= back.keys()
    (report,) = rlhf.json("report", "list")["reports"]
    words = ("adapter", "sign", "hh@1", "--report", report["digest"][:12], "--as", "evaluator")
    monkeypatch.setenv("RLHF_ACTOR", rlhf.json("adapter", "show", "hh@1")["actor"])
    assert rlhf(*words, "--json").error["code"] == "forbidden", "who trained it doesn't sign it"
    monkeypatch.setenv("RLHF_ACTOR", "eva")
    signed = rlhf.json(*words)
    assert (signed["role"], signed["report_digest"]) == ("evaluator", report["digest"])
    assert rlhf.json("adapter", "retire", "hh@1")["retired_at"]


def test_exports_are_trl_rows(rlhf: CommandLine, tmp_path: Path) -> None:
    cut = rlhf.json("snapshot", "export", "polite@1", tmp_path / "cut.jsonl.gz")
    packed = (tmp_path / "cut.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    assert len(rows) == cut["rows"] == 60
    assert {"prompt", "chosen", "rejected", "split", "labeler", "source"} <= rows[0].keys()
    all_of_it = rlhf.json("feedback", "export", tmp_path / "all.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == all_of_it["decided"] == 60
    assert {"prompt", "chosen", "rejected", "labeler", "source"} <= rows[0].keys()
    again = rlhf.json("feedback", "import", tmp_path / "all.jsonl", "--source", "polite")
    assert (again["accepted"], again["duplicates"]) == (0, 60)  # who is unknown stays unknown


def test_scores_are_one_object_a_line_in_the_order_of_the_file(rlhf: CommandLine, tmp_path: Path) -> None:
    item = {"prompt": [{"role": "user", "content": "Question?"}], "reply": "Yes thanks"}
    lines = [REPLIES.strip(), "", json.dumps(item), json.dumps({**item, "id": [1], "reply": "z" * 9000})]
    file = tmp_path / "replies.jsonl"
    file.write_text("\ufeff" + "\n".join(lines), "utf-8")
    answer = rlhf("reward", "score", "hh@champion", file)
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert answer.status == 0 and all({"id", "score", "version"} <= row.keys() for row in rows)
    assert [row["id"] for row in rows] == ["x", 3, [1]] and {row["version"] for row in rows} == {"hh@2"}
    assert rows[0]["score"] == pytest.approx(rows[1]["score"], abs=1e-5)  # a text is one turn of the user
    assert rows[2]["score"] is None and rows[2]["unscored"] == "too_long"
    assert rlhf("reward", "score", "hh@champion", "-", "--json", stdin=file.read_bytes()).out == answer.out


def test_a_token_is_made_and_revoked(rlhf: CommandLine) -> None:
    made = rlhf.json("people", "token", "bob", "--scope", "evaluate", "--days", "3")
    assert made["actor"] == "bob" and made["token"] not in json.dumps(rlhf.json("people", "list"))
    assert len(rlhf.json("people", "revoke", "bob")["revoked"]) == 1


def test_the_workspace_comes_from_the_option_else_the_environment_else_the_folder(
    rlhf: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = rlhf.at(None)
    monkeypatch.setenv("RLHF_WORKSPACE", str(rlhf.root))
    assert len(bare.json("adapter", "list")["versions"]) == 2
    monkeypatch.setenv("RLHF_WORKSPACE", str(tmp_path / "absent"))
    assert bare("adapter", "list", "--json").error["code"] == "not_found"
    assert len(rlhf.json("adapter", "list")["versions"]) == 2  # the option wins
    monkeypatch.delenv("RLHF_WORKSPACE")
    monkeypatch.chdir(tmp_path)
    assert "absent" not in bare("adapter", "list", "--json").error["message"]
    (tmp_path / "ws").rename(tmp_path / "workspace")
    assert len(bare.json("adapter", "list")["versions"]) == 2


def test_options_stand_before_or_after_the_arguments(rlhf: CommandLine) -> None:
    bare, at = rlhf.at(None), ("--workspace", rlhf.root)
    orders = (
        ("adapter", "show", "hh@1", *at, "--json"),
        ("adapter", "show", "--json", *at, "hh@1"),
        ("adapter", "show", "--json", *at, "--", "hh@1"),
    )
    assert len({bare(*words).out for words in orders}) == 1
    assert bare("alias", "set", "--why", "a trial", *at, "hh@x", "--json", "hh@1").value["to"] == "hh@1"


def test_a_missing_workspace_is_made_by_what_brings_something_in_and_by_nothing_else(
    rlhf: CommandLine, tmp_path: Path
) -> None:
    new = rlhf.at(tmp_path / "new")
    assert new("adapter", "list", "--json").error["code"] == "not_found" and not (tmp_path / "new").exists()
    answer = new("feedback", "import", write_polite(tmp_path / "polite.jsonl"), "--json")
    assert answer.value["accepted"] == 60 and answer.err.startswith("made a workspace at")


@pytest.mark.parametrize("words", [(), ("feedback",), ("adapter",), ("people",)])
def test_a_group_alone_is_wrong_usage_that_shows_its_commands(rlhf: CommandLine, words: tuple[str, ...]) -> None:
    answer = rlhf.at(None)(*words)
    assert answer.status == 2 and answer.out == "" and "Commands:" in answer.err


def test_the_command_tree_is_the_same_however_often_it_is_built() -> None:
    def verbs(group: Any) -> int:
        return len(group.registered_commands) + sum(verbs(g.typer_instance) for g in group.registered_groups)

    assert verbs(cli.build()) == verbs(cli.build())


def test_help_is_an_answer(rlhf: CommandLine) -> None:
    for words in (("--help",), ("feedback", "--help"), ("reward", "train", "--help")):
        answer = rlhf.at(None)(*words)
        assert answer.status == 0 and answer.out.startswith("Usage: rlhf") and answer.err == ""
    assert all(option in answer.out for option in ("--workspace", "--json", "--resume", "RLHF_WORKSPACE"))


def test_a_script_reads_one_object_from_a_real_process(trained_root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*REAL, "adapter", "verify", "--json"],
        env={**os.environ, "RLHF_WORKSPACE": str(copy_of(trained_root, tmp_path / "ws"))},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["ok"] and done.stdout.count(b"\n") == 1 and done.stderr == b""


def test_web_says_in_one_object_where_it_listens(tmp_path: Path) -> None:
    words = [*REAL, "web", "--port", "0", "--json", "--workspace", str(tmp_path / "ws")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=30)
    assert said["login"] == said["address"] + "/login" and said["link"].startswith(said["address"] + "/invite#code=")
    assert (server.returncode, rest) == (0, b"")


def test_a_copied_workspace_is_as_good_as_the_first(rlhf: CommandLine, tmp_path: Path) -> None:
    """Nothing in a workspace says where it lies: the copy works when the first is gone."""
    assert rlhf.root is not None
    other = rlhf.at(copy_of(rlhf.root, tmp_path / "elsewhere"))
    shutil.rmtree(rlhf.root)
    assert other.json("adapter", "verify")["ok"]
    score = other("reward", "score", "hh@2", "-", stdin=REPLIES.encode())
    assert score.status == 0 and json.loads(score.out)["version"] == "hh@2"
    assert str(rlhf.root).encode() not in (tmp_path / "elsewhere" / "rlhf.db").read_bytes()
