"""`rlhf policy`: train, settings, generate, as scripts meet them: keys, status, progress, refusals that change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, copy_of, state
from policies import QUICK, without_page

from rlhf.engine.tiny import write_tiny_base
from rlhf.policy.settings import PolicySettings

WORDS = [f"{key}={value}" for key, value in QUICK.items() if key not in ("reward", "base")]
TRAIN = ("policy", "train", "p", "--reward", "r@1", "--base", "tiny")


@pytest.fixture
def rlhf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy_root: Path
) -> CommandLine:
    return CommandLine(copy_of(policy_root, tmp_path / "ws"), capsys, monkeypatch)


def test_train_answers_with_version_run_and_metrics(rlhf: CommandLine) -> None:
    answer = rlhf(*TRAIN, "--method", "dpo", "--pairs", "human", *WORDS, "--json")
    assert answer.status == 0, answer.err
    value = answer.value
    assert {"version", "digest", "run", "metrics"} <= set(value)
    assert value["version"] == "p@1" and len(value["digest"]) == 64 and value["metrics"]["steps"] == 3
    assert "3/3" in answer.err and "policy p" in answer.err, "step/steps, though standard error is no terminal"
    assert rlhf.root is not None
    folder = rlhf.root / "runs" / value["run"]
    assert {"config.yaml", "metrics.jsonl", "report.json", "report.html"} <= {f.name for f in folder.iterdir()}
    shown = rlhf.json("adapter", "lineage", "p@1")
    assert "r@1" in json.dumps(shown)


def test_train_by_the_run_s_own_config_is_the_same_version(rlhf: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in the file's first lines, with nothing but the file."""
    without_page(monkeypatch)
    first = rlhf.json(*TRAIN, "--method", "grpo", *WORDS, "beta=0.2")
    assert rlhf.root is not None
    config = rlhf.root / "runs" / first["run"] / "config.yaml"
    again = rlhf.json("policy", "train", "p", "--config", config)
    assert (again["version"], again["digest"], again["new"]) == (first["version"], first["digest"], False)
    assert f"rlhf policy train p --config runs/{first['run']}/config.yaml" in config.read_text("utf-8")
    other = rlhf.json("policy", "train", "p", "--config", config, "seed=1")
    assert other["new"] and other["version"] == "p@2"


def test_train_says_what_it_did_in_words(rlhf: CommandLine, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "One?"}\n{"prompt": "Two?"}\n')
    answer = rlhf(*TRAIN, "--method", "dpo", "--prompts", prompts, "--from", "start@1", *WORDS, "max_steps=1")
    assert answer.status == 0, answer.err
    assert "published p@1  sha256:" in answer.out and "report: " in answer.out
    assert (
        "2 prompts" in answer.err and "2 used" in answer.err and "sampled and scored 2 replies to 2 of 2" in answer.err
    )


def lasting(root: Path) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Rows and files, but for the note in `cache` that a base was read whole."""
    rows, files = state(root)
    return rows, {name: of for name, of in files.items() if not name.startswith("cache/")}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--reward", "nobody@1", "--base", "tiny", "--method", "dpo"], 1, "nobody"),
        (["--reward", "r", "--base", "tiny", "--method", "dpo"], 2, "r"),
        (["--reward", "start@1", "--base", "tiny", "--method", "dpo"], 1, "policy"),
        (["--reward", "r@1", "--base", "narrow", "--method", "dpo"], 1, "stands on the base tiny, not on narrow"),
        (["--reward", "r@1", "--base", "huge", "--method", "dpo"], 1, "huge"),
        (["--reward", "r@1", "--base", "tiny", "--method", "grpo", "--pairs", "human"], 2, "pairs=human is for dpo"),
        (["--reward", "r@1", "--base", "tiny", "--method", "ppo"], 2, "method"),
        (["--reward", "r@1", "--base", "tiny"], 2, "method"),
        (["--base", "tiny", "--method", "dpo"], 2, "reward"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "--prompts", "none.jsonl"], 1, "no prompts file"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "speed=3"], 2, "speed"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "samples=1"], 2, "samples"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "guard_length=[2,4]"], 2, "guard_length"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "--from", "r@1"], 1, "reward"),
        (["--reward", "r@1", "--base", "tiny", "--method", "dpo", "--resume"], 1, "no run of 'p'"),
    ],
)
def test_train_refuses_in_one_line_and_changes_nothing(
    rlhf: CommandLine, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    if "narrow" in words:
        rlhf.json("base", "add", "narrow", "--dir", write_tiny_base(tmp_path / "narrow", hidden=32))
    assert rlhf.root is not None
    before = lasting(rlhf.root)
    answer = rlhf("policy", "train", "p", *words, "--json")
    assert answer.status == status and said in answer.error["message"], answer
    assert lasting(rlhf.root) == before


def test_settings_lists_every_setting_with_its_help(rlhf: CommandLine) -> None:
    found = rlhf.json("policy", "settings")
    assert set(found) == set(PolicySettings.model_fields) and all(one["help"] for one in found.values())
    words = rlhf("policy", "settings")
    assert words.status == 0 and all(name in words.out for name in PolicySettings.model_fields)


ROWS: list[dict[str, Any]] = [
    {"prompt": "Why?", "id": 7},
    {"prompt": "Question 3 about red and blue and green?", "id": "x"},
    {"prompt": "Hi?"},
    {"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "So?"}], "id": "7.0"},
]
FEW = ("--max-new-tokens", "6", "--seed", "3")


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def generated(rlhf: CommandLine, *words: object, stdin: str = "") -> list[dict[str, Any]]:
    answer = rlhf("policy", "generate", *words, *FEW, stdin=stdin.encode())
    assert answer.status == 0, answer.err
    return [json.loads(line) for line in answer.out.split("\n") if line]


def test_generate_keeps_the_order_and_the_ids_as_given(rlhf: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(jsonl(ROWS))
    found = generated(rlhf, "start@1", file)
    assert [row["id"] for row in found[:2]] == [7, "x"] and found[3]["id"] == "7.0"
    assert isinstance(found[0]["id"], int) and len(found[2]["id"]) == 64
    digest = rlhf.json("adapter", "show", "start@1")["digest"]
    for row in found:
        assert set(row) >= {"id", "reply", "version"} and row["version"] == "start@1" and row["digest"] == digest
        assert 1 <= row["tokens"] <= 6 and "score" not in row
    assert generated(rlhf, "start@1", "-", stdin=jsonl(ROWS)) == found
    turned = generated(rlhf, "start@1", "-", stdin=jsonl(ROWS[::-1]))
    assert turned == found[::-1]


def test_generate_by_alias_digest_and_base_names_what_wrote(rlhf: CommandLine) -> None:
    rlhf.json("alias", "set", "start@champion", "start@1", "--why", "first")
    digest = rlhf.json("adapter", "show", "start@1")["digest"]
    stdin = jsonl(ROWS[:2])
    by_number = generated(rlhf, "start@1", "-", stdin=stdin)
    assert generated(rlhf, "start@champion", "-", stdin=stdin) == by_number
    assert generated(rlhf, f"sha256:{digest[:12]}", "-", stdin=stdin) == by_number
    bare = generated(rlhf, "base:tiny", "-", stdin=stdin)
    assert {row["version"] for row in bare} == {"base:tiny"}
    assert [row["reply"] for row in bare] != [row["reply"] for row in by_number]


def test_generate_keeps_the_best_of_n(rlhf: CommandLine) -> None:
    stdin = jsonl(ROWS)
    best = generated(rlhf, "start@1", "-", "--best-of", "4", "--reward", "r@1", stdin=stdin)
    items = [{"id": i, "prompt": row["prompt"], "reply": best[i]["reply"]} for i, row in enumerate(ROWS)]
    scored = rlhf("reward", "score", "r@1", "-", stdin=jsonl(items).encode())
    assert [row["score"] for row in best] == pytest.approx(
        [json.loads(line)["score"] for line in scored.out.split("\n") if line], abs=1e-4
    )


@pytest.mark.parametrize(
    ("words", "stdin", "status", "said"),
    [
        (["start@9", "-"], jsonl(ROWS), 1, "start@9"),
        (["start", "-"], jsonl(ROWS), 2, "start"),
        (["r@1", "-"], jsonl(ROWS), 1, "reward"),
        (["base:huge", "-"], jsonl(ROWS), 1, "huge"),
        (["start@1", "none.jsonl"], "", 1, "no prompts file"),
        (["start@1", "-"], "", 1, "no prompt"),
        (["start@1", "-"], jsonl(ROWS) + "oops\n", 1, "standard input line 5"),
        (["start@1", "-"], jsonl([ROWS[0], ROWS[0]]), 1, "'7' twice"),
        (["start@1", "-", "--best-of", "3"], jsonl(ROWS), 2, "best-of"),
        (["start@1", "-", "--reward", "r@1"], jsonl(ROWS), 2, "best-of"),
        (["start@1", "-", "--best-of", "3", "--reward", "nobody@1"], jsonl(ROWS), 1, "nobody"),
        (["start@1", "-", "--dtype", "int8"], jsonl(ROWS), 2, "int8"),
        (["start@1", "-"], jsonl([{"prompt": "x" * 9000}]), 1, "too long"),
    ],
)
def test_generate_refuses_in_one_line(rlhf: CommandLine, words: list[str], stdin: str, status: int, said: str) -> None:
    answer = rlhf("policy", "generate", *words, "--json", stdin=stdin.encode())
    assert answer.status == status and said in answer.error["message"], answer
