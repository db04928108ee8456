"""`rlhf policy curve` as a script meets it: real policies on the tiny base, from a run or from versions to the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, copy_of, state
from policies import human, without_page

from rlhf import policy
from rlhf.store import Workspace

SHORT = ("--max-new-tokens", "8", "--n", "6")


@pytest.fixture(scope="module")
def curved_root(policy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policies' workspace with a run that was watched. Copy it; never write to it."""
    root = copy_of(policy_root, tmp_path_factory.mktemp("curved") / "ws")
    workspace = Workspace.open(root, actor="tester")
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        policy.train(workspace, human(watch_steps=1, watch_prompts=4, max_steps=2))
    workspace.close()
    return root


@pytest.fixture
def rlhf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, curved_root: Path
) -> Iterator[CommandLine]:
    yield CommandLine(copy_of(curved_root, tmp_path / "ws"), capsys, monkeypatch)


def run_of(rlhf: CommandLine) -> str:
    return next(str(one["id"]) for one in rlhf.json("run", "list")["runs"] if one["name"] == "p")


def test_a_run_by_its_id_gives_a_point_a_measurement(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("policy", "curve", run_of(rlhf), "--judge", "demo")
    found = rlhf.json(*words, "--out", tmp_path / "out")
    assert (found["state"], found["of"], len(found["points"])) == ("done", "checkpoints", 3)
    assert found["proxy"]["name"] == "r@1" and list(found["versions"]) == ["p@1"]
    assert Path(found["report"]).is_file() and (tmp_path / "out" / "report.html").is_file()
    shown = rlhf(*words)
    assert shown.status == 0 and "step 2" in shown.out and "proxy wins, %" in shown.out
    again = rlhf("report", "show", found["report_digest"])
    assert again.status == 0 and "true wins, %" in again.out


def test_versions_and_best_of_n_are_written_and_judged(rlhf: CommandLine) -> None:
    found = rlhf.json("policy", "curve", "start@1", "p@1", "--judge", "r@2", *SHORT)
    assert [p["name"] for p in found["points"]] == ["base:tiny", "start@1", "p@1"] and found["of"] == "versions"
    assert found["points"][1]["kl"]["value"] != 0.0
    best = rlhf.json("policy", "curve", "start@1", "--judge", "demo", "--best-of", "4", *SHORT)
    assert [p["name"] for p in best["points"]] == ["best of 1", "best of 2", "best of 4"]
    assert best["points"][0]["kl"]["value"] == 0.0 and best["prompts"]["n"] == 6


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("start@1", "--judge", "r@1"), 2, "is the proxy itself"),
        (("start@1", "p@1", "--judge", "demo", "--best-of", "4"), 2, "--best-of is of one version"),
        (("nosuchrun", "--judge", "demo"), 1, "there is no run nosuchrun"),
        (("RUN", "--judge", "demo", "--proxy", "r@2", "--suite", "s"), 2, "--proxy and --suite say nothing of a run"),
        (("start@1", "--judge", "nobody"), 1, "no judge 'nobody'"),
        (("start@1",), 2, "--judge"),
    ],
)
def test_what_has_no_curve_is_refused_and_changes_nothing(
    rlhf: CommandLine, words: tuple[str, ...], status: int, said: str
) -> None:
    assert rlhf.root is not None
    named = [run_of(rlhf) if word == "RUN" else word for word in words]
    before = state(rlhf.root)
    answer = rlhf("policy", "curve", *named, "--json")
    assert answer.status == status and said in answer.error["message"], answer
    assert state(rlhf.root) == before
