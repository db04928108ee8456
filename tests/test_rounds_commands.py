"""`rlhf loop`: written settings run; each refusal is one line with its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import CommandLine

from rlhf.rounds.settings import described

ALONE = {
    "name": "try",
    "base": "tiny",
    "min_new_judgements": 10,
    "holdout": 0.2,
    "reward_gate": "none",
    "processes": "own",
}
QUICK = {"max_steps": 1, "dtype": "float32", "pairs_per_step": 8}


def write(rlhf: CommandLine, **more: object) -> Path:
    assert rlhf.root is not None
    file = rlhf.root / "loop.yaml"
    file.write_text(yaml.safe_dump({**ALONE, "reward": QUICK, **more}))
    return file


def test_init_writes_every_setting_and_names_the_gates_that_are_wanted(rlhf: CommandLine) -> None:
    made = rlhf.json("loop", "init", "try", "--base", "tiny")
    assert made["gates_wanted"] == ["try-reward@champion", "try@champion"]
    text = Path(made["file"]).read_text("utf-8")
    assert yaml.safe_load(text)["policy"]["method"] == "dpo" and "# weight of the KL to the reference" in text
    again = rlhf("loop", "init", "try", "--base", "tiny", "--json")
    assert (again.status, again.error["code"]) == (1, "conflict")
    refused = rlhf("loop", "run", "--json")  # as written, it waits for its gates
    assert refused.status == 1 and "rlhf alias gate try-reward@champion" in refused.error["fix"]
    alone = rlhf.json(
        "loop", "init", "try", "--base", "tiny", "--rewards-alone", "--config", str(rlhf.root) + "/alone.yaml"
    )
    assert alone["gates_wanted"] == ["try-reward@champion"]


def test_a_round_by_command_and_its_decision_by_report_show(rlhf: CommandLine) -> None:
    file = write(rlhf)
    idle = rlhf("loop", "run", "--once", "min_new_judgements=1000")
    assert idle.status == 0 and "more judgements are missing" in idle.out
    done = rlhf.json("loop", "run", "--config", file, "reward.lora_r=4")
    kept = json.loads((file.parent / "runs" / done["round"] / "state.json").read_text("utf-8"))
    assert kept["again"] == f"rlhf loop run --config {file} reward.lora_r=4"
    assert (done["state"], done["verdicts"][0]["candidate"]) == ("done", "try-reward@1")
    shown = rlhf("report", "show", done["decision"])
    assert "try-reward@1 proposed for try-reward@champion" in shown.out and "decided by" in shown.out
    assert Path(done["report"]).is_file()
    assert rlhf.json("loop", "run")["missing"] == 10
    listed = rlhf.json("run", "list")["runs"]
    assert [(row["kind"], row["state"]) for row in listed[-2:]] == [("loop", "done"), ("reward", "done")]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 1, "no loop settings at"),
        (("--once", "--watch"), 2, "--once and --watch exclude each other"),
        (("--config", "nowhere.yaml"), 2, "no settings file"),
    ],
)
def test_refusals(rlhf: CommandLine, words: tuple[str, ...], status: int, said: str) -> None:
    answer = rlhf("loop", "run", *words, "--json")
    assert answer.status == status and said in answer.error["message"]


def test_a_bad_setting_is_wrong_usage(rlhf: CommandLine) -> None:
    write(rlhf, replay=-1)
    answer = rlhf("loop", "run", "polisy=3", "--json")
    assert answer.status == 2
    assert "'replay' = -1" in answer.error["message"] and "unknown setting 'polisy'" in answer.error["message"]


def test_settings_prints_every_setting(rlhf: CommandLine) -> None:
    assert list(rlhf.json("loop", "settings")) == [name for name, _, _ in described()]
    assert "policy.beta" in rlhf("loop", "settings").out
