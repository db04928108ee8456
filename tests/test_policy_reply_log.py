"""Every reply of a run with its scores and what wrote it, once; two runs side by side never share any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies import log_of, manifest, parts, settings, without_page

from rlhf import policy
from rlhf.policy.reply_log import ReplyLog, adapter_digest, rows_of
from rlhf.policy.scored import Drawn, Scored
from rlhf.records import Message
from rlhf.store import Workspace
from rlhf.store.tensors import tensors_digest

ASKED = (Message("user", "?"),)
KEYS = {"step", "phase", "prompt", "reply", "tokens", "cut_off", "points", "scores", "adapter"}


@pytest.mark.parametrize("method", ["dpo", "grpo", "rloo"])
def test_every_reply_has_its_points_and_the_adapter_that_wrote_it(
    policies: Workspace, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_page(monkeypatch)
    chosen = settings(method=method, reward=["r@1", "r@2"], watch_steps=3, watch_prompts=2, length_penalty=0.1)
    trained = policy.train(policies, chosen)
    rows = log_of(trained)
    assert all(set(row) >= KEYS and len(row["scores"]) == 2 and len(row["adapter"]) == 64 for row in rows)
    for row in rows:
        assert row["points"] == pytest.approx(sum(row["scores"]) - 0.1 * row["tokens"], abs=1e-5)
        assert 1 <= row["tokens"] <= 8 and (row["tokens"] == 8 or not row["cut_off"])
    drawn = log_of(trained, "train", "ranked")
    assert len(drawn) == 3 * 4 * 2, "steps x prompts x samples"
    last = {row["adapter"] for row in log_of(trained, "watch") if row["step"] == 3}
    first = {row["adapter"] for row in log_of(trained, "watch") if row["step"] == 0}
    assert last == {manifest(policies, trained.version)["weights_digest"]} != first
    by_step = {row["step"]: row["adapter"] for row in drawn}
    assert by_step[0] in first
    assert list(by_step) == ([0] if method == "dpo" else [0, 1, 2])
    assert len(set(by_step.values())) == len(by_step), "each step's replies are another adapter's"


def test_the_adapter_s_digest_is_that_of_its_saved_file(policies: Workspace, tmp_path: Path) -> None:
    _, setup = parts(policies, tmp_path / "run", settings(from_version="start@1"))
    assert adapter_digest(setup.model) == manifest(policies, "start@1")["weights_digest"]
    for name, parameter in setup.model.named_parameters():
        if ".default." in name:
            parameter.data.add_(1e-7)
            break
    changed = adapter_digest(setup.model)
    assert changed != manifest(policies, "start@1")["weights_digest"]
    setup.model.save_pretrained(tmp_path / "saved", selected_adapters=["default"])
    assert tensors_digest([tmp_path / "saved" / "adapter_model.safetensors"]) == changed


def log_with(folder: Path, *rows: tuple[str, int], measured: tuple[int, ...] = ()) -> ReplyLog:
    """A log of one reply a row, and metrics.jsonl with these measurements."""
    log = ReplyLog(folder)
    for phase, step in rows:
        log.append(rows_of(step, phase, ["p"], [Drawn(ASKED, "yes", 1, False)], [Scored(1.0, (1.0,))], "a" * 64))
    with open(folder / "metrics.jsonl", "w") as file:
        file.writelines(json.dumps({"step": step, "watch": {}}) + "\n" for step in measured)
    return log


def kept(log: ReplyLog) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in log.path.read_text("utf-8").split("\n") if line]
    return [(row["phase"], row["step"]) for row in rows]


def test_a_resumed_run_keeps_what_it_does_not_write_again(tmp_path: Path) -> None:
    """At step 4: rollouts of steps 0 to 3 and measurements to 4 are done; the rollouts that begin at 4 come again."""
    rows = [("watch", 0), ("train", 0), ("train", 3), ("watch", 4), ("train", 4), ("train", 5), ("watch", 6)]
    log = log_with(tmp_path, *rows, measured=(0, 4, 6))
    log.cut_back(4)
    assert kept(log) == rows[:4]


def test_a_run_that_starts_over_keeps_its_first_measurement_if_it_was_noted(tmp_path: Path) -> None:
    log = log_with(tmp_path, ("watch", 0), ("train", 0), measured=(0,))
    log.cut_back(-1)
    assert kept(log) == [("watch", 0)]
    log = log_with(tmp_path)
    log.cut_back(-1)
    assert kept(log) == [], "it is measured again"


def test_odd_texts_come_back_as_they_were(tmp_path: Path) -> None:
    """A byte-level policy writes every character there is, line separators too."""
    texts = ["one\u2028two", "\x85", "a\nb\r\n", "\x0b\x0c\x1c", "\ufffd", '"}\\', ""]
    log = ReplyLog(tmp_path)
    scored = [Scored(None, (None,))] * len(texts)
    log.append(rows_of(1, "train", texts, [Drawn(ASKED, text, 1, True) for text in texts], scored, "a"))
    log.cut_back(2)
    rows = [json.loads(line) for line in log.path.read_text("utf-8").split("\n") if line]
    assert [row["reply"] for row in rows] == texts and [row["prompt"] for row in rows] == texts
    assert {row["points"] for row in rows} == {None}
