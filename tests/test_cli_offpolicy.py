"""`rlhf offpolicy` as scripts meet it: a log in, three estimates or a refusal out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import served
from command_line import CommandLine
from served import ALIAS, serve

from rlhf.serving import Router
from rlhf.store import Workspace

KEYS = {"refused", "reason", "n", "ess", "max_weight", "mean_weight", "ips", "snips", "dr"}


@pytest.fixture
def rlhf(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Where no workspace is: a file of one's own needs none."""
    return CommandLine(tmp_path / "none", capsys, monkeypatch)


def _log(folder: Path, n: int, rate: float = 0.8) -> Path:
    draw = random.Random(1)
    lines = ["arm,won,chance"]
    for _ in range(n):
        arm = "b" if draw.random() < rate else "a"
        lines.append(
            f"{arm},{int(draw.random() < (0.6 if arm == 'b' else 0.3))},{rate if arm == 'b' else round(1 - rate, 6)}"
        )
    file = folder / "log.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_log_is_valued_without_a_workspace(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("offpolicy", _log(tmp_path, 3000), "--action", "arm", "--reward", "won", "--propensity", "chance")
    found = rlhf.json(*words, "--target", "uniform")
    assert found.keys() >= KEYS and not found["refused"] and found["reason"] is None and found["n"] == 3000
    for name in ("ips", "snips", "dr"):
        value, low, high = found[name]
        assert low < value < high and low < 0.45 < high
    assert rlhf.json(*words, "--target", "b")["snips"][0] == pytest.approx(0.6, abs=0.03)
    text = rlhf(*words).out
    assert "doubly robust" in text and "[" in text


def test_a_refusal_to_estimate_is_an_answer(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("offpolicy", _log(tmp_path, 90), "--action", "arm", "--reward", "won", "--propensity", "chance")
    found = rlhf.json(*words)
    assert found["refused"] and "effective sample size" in found["reason"] and 0 < found["ess"] < 100
    assert found["ips"] is found["snips"] is found["dr"] is None
    assert "never shows" in rlhf.json(*words, "--target", "zebra")["reason"]
    assert rlhf(*words).out.startswith("no estimate of uniform: the effective sample size")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "either a log or --rollout"),
        (("none.csv",), 1, "can't be read"),
        (("log.csv",), 1, "no column action, reward, propensity"),
        (("log.csv", "--rollout", "a@b"), 2, "either a log or --rollout"),
        (("--rollout", "a@b", "--action", "arm"), 2, "no columns"),
    ],
)
def test_wrong_words_are_named(
    rlhf: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int, said: str
) -> None:
    _log(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    answer = rlhf("offpolicy", *words, "--json")
    assert answer.status == status and said in answer.error["message"]


def test_a_rollouts_own_replies_are_valued(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the arm b earns is what it earned: its chance was logged, and the weights undo it."""
    served.with_versions(workspace, tmp_path)
    served.started(workspace, "ab", arms={"b": {"version": "hh@2", "share": 20}})
    router = Router(workspace, follow=False)
    rows = serve(workspace, router, 1500, lambda arm, chance: {"reward": chance.gauss(1.0 if arm == "b" else 0.0, 1)})
    router.close()
    rlhf = CommandLine(workspace.root, capsys, monkeypatch)
    own = [row.reward or 0.0 for row in rows if row.arm == "b"]
    found = rlhf.json("offpolicy", "--rollout", ALIAS, "--reward", "reward", "--target", "b")
    assert found["snips"][0] == pytest.approx(sum(own) / len(own)) and found["n"] == 1500 and not found["refused"]
    even = rlhf.json("offpolicy", "--rollout", ALIAS, "--target", "uniform")
    assert even["ips"][1] < 0.5 < even["ips"][2] and even["alias"] == ALIAS
    assert rlhf("offpolicy", "--rollout", ALIAS, "--target", "c", "--json").status == 2
    assert rlhf("offpolicy", "--rollout", ALIAS, "--reward", "click", "--json").status == 2
    none = rlhf("offpolicy", "--rollout", ALIAS, "--reward", "satisfaction", "--json")
    assert none.status == 1 and "had a thumb" in none.error["message"]
