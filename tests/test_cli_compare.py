"""`rlhf compare` as a script meets it: a real policy on the tiny base, from training to the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, copy_of, state
from suite_files import seen_suite

from rlhf import labeling
from rlhf.store import Workspace

FAST_DPO = ("method=dpo", "pairs=human", "max_steps=4", "watch_steps=0", "dtype=float32", "learning_rate=0.01")
SHORT = ("--max-new-tokens", "12", "--n", "6")


@pytest.fixture(scope="module")
def compared_root(trained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with a policy in it. Copy it; never write to it."""
    return copy_of(trained_root, tmp_path_factory.mktemp("policy") / "ws")


@pytest.fixture(scope="module", autouse=True)
def policy(compared_root: Path) -> None:
    """demo@1, four fast steps of DPO on the human pairs behind hh@1."""
    from rlhf import config
    from rlhf import policy as room
    from rlhf.policy.settings import PolicySettings

    chosen = config.load(PolicySettings, None, FAST_DPO, name="demo", reward=["hh@1"], base="tiny")
    workspace = Workspace.open(compared_root)
    room.train(workspace, chosen)
    workspace.close()


@pytest.fixture
def rlhf(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compared_root: Path
) -> Iterator[CommandLine]:
    yield CommandLine(copy_of(compared_root, tmp_path / "ws"), capsys, monkeypatch)


def prompts_file(folder: Path, n: int = 6) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(n)), "utf-8")
    return file


def test_a_policy_is_compared_with_its_base_by_the_reward_behind_it(rlhf: CommandLine, tmp_path: Path) -> None:
    found = rlhf.json("compare", "demo@1", "base:tiny", *SHORT, "--out", tmp_path / "out")
    assert list(found["versions"]) == found["between"] == ["demo@1", "base:tiny"]
    policy, base = found["versions"].values()
    assert policy["n"] == base["n"] == 6 and policy["win_rate"] + base["win_rate"] == pytest.approx(1.0)
    assert base["kl"] == 0.0 and policy["kl"] != 0.0 and policy["mean_tokens"] <= 12
    assert found["judge"]["name"] == "hh@1" and found["judge"]["flatters"] == ["demo@1"]
    assert Path(found["report"]).is_file() and (tmp_path / "out" / "report.html").is_file()
    again = rlhf.json("compare", "demo@1", "base:tiny", *SHORT)
    assert again["report_digest"] == found["report_digest"]


def test_a_comparison_on_a_named_snapshot_is_on_its_test_side(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("compare", "demo@1", "base:tiny", "--judge", "demo", *SHORT)
    on = rlhf.json(*words, "--snapshot", "polite@2")
    assert on["prompts"]["snapshot"] == "polite@2" and rlhf.json(*words)["prompts"]["snapshot"] == "polite@1"
    both = rlhf(*words, "--snapshot", "polite@2", "--prompts", prompts_file(tmp_path), "--json")
    assert both.status == 2 and "in two ways" in both.error["message"]
    assert rlhf(*words, "--snapshot", "nosuch", "--json").error["code"] == "not_found"


def test_a_comparison_on_a_suite_is_on_its_prompts_and_refused_where_they_were_trained_on(
    rlhf: CommandLine, tmp_path: Path
) -> None:
    words = ("compare", "demo@1", "base:tiny", "--judge", "demo", *SHORT)
    rlhf.json("suite", "import", "tales", prompts_file(tmp_path))
    on = rlhf.json(*words, "--suite", "tales")
    assert on["prompts"]["snapshot"] == "suite:tales@1" and on["prompts"]["n"] == 6
    workspace = Workspace.open(rlhf.root, actor="tester")
    seen_suite(workspace, tmp_path, "polite@1")
    workspace.close()
    refused = rlhf(*words, "--suite", "seen", "--json")
    assert refused.status == 1 and refused.value["error"]["code"] == "overlap"


def test_people_read_a_table_with_both_sides(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("compare", "demo@1", "base:tiny", "--prompts", prompts_file(tmp_path), "--judge", "demo", *SHORT)
    answer = rlhf(*words)
    assert answer.status == 0 and "wrote" in answer.err
    lines = answer.out.splitlines()
    assert any("6 prompts, judged by rule demo" in line for line in lines)
    for label in ("win rate", "at equal length", "tokens a reply", "KL, nats a reply", "log-likelihood a token"):
        assert any(label in line for line in lines), label
    assert "no win rate at equal length: 6 pairs are fewer" in answer.out
    digest = rlhf.json(*words)["report_digest"]
    shown = rlhf("report", "show", digest)
    assert shown.status == 0 and "judged by rule demo" in shown.out and digest in shown.out
    assert rlhf("report", "diff", digest, digest).status == 0
    other = next(r["digest"] for r in rlhf.json("report", "list")["reports"] if r["kind"] == "evaluation")
    assert rlhf("report", "diff", digest, other, "--json").error["code"] == "bad_input"


def test_people_s_job_waits_with_exit_0_as_a_round_does_and_ends_in_a_report(rlhf: CommandLine, tmp_path: Path) -> None:
    words = ("compare", "demo@1", "base:tiny", "--prompts", prompts_file(tmp_path), "--judge", "people", *SHORT)
    waiting = rlhf(*words, "--json")
    assert waiting.status == 0
    told = waiting.value
    assert told["state"] == "waiting" and told["judged"] == 0 < told["wanted"] and told["report"] is None
    assert "then the same command again" in told["why"] and told["job"] in rlhf(*words).out
    assert rlhf.root is not None
    workspace = Workspace.open(rlhf.root)
    for _ in range(told["wanted"]):
        task = labeling.next_task(workspace, "ada")
        assert task is not None
        labeling.answer(workspace, "ada", task.lease, "left")
    workspace.close()
    found = rlhf.json(*words)
    assert found["state"] == "done"
    assert found["judge"]["n_judgements"] == told["wanted"]
    assert found["versions"]["demo@1"]["n_not_judged"] == 0


def test_until_decided_tells_the_size_before_it_starts_and_people_get_one_batch(
    rlhf: CommandLine, tmp_path: Path
) -> None:
    words = (
        "compare",
        "demo@1",
        "base:tiny",
        "--prompts",
        prompts_file(tmp_path),
        *SHORT,
        "--until-decided",
        "--batch",
        "3",
    )
    answer = rlhf(*words, "--judge", "demo")
    assert answer.status == 0 and "ecided after" in answer.out and "Nobody has checked" not in answer.out
    planned = "a win rate of 60.0 % is found with a chance of 80 % by"
    assert planned in answer.err and answer.err.index(planned) < answer.err.index("wrote")
    found = rlhf.json(*words, "--judge", "demo")
    assert found["sequential"]["batch"] == 3 and found["sequential"]["n_available"] == 6
    waiting = rlhf.json(*words, "--judge", "people")
    assert waiting["state"] == "waiting" and waiting["wanted"] <= 3 and waiting["sequential"]["n_units"] == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("demo@1", "demo@1"), 1, "are one version"),
        (("demo@1", "hh@1"), 1, "hh@1 is a reward, wanted a policy"),
        (("demo@1", "base:nothing"), 1, "nothing"),
        (("demo@1", "demo"), 2, "demo"),
        (("demo@1", "base:tiny", "--judge", "nobody"), 1, "no judge 'nobody'"),
        (("demo@1", "base:tiny", "--judge", "demo@1"), 1, "demo@1 is a policy, wanted a reward"),
        (("demo@1", "base:tiny", "--prompts", "missing.jsonl"), 1, "missing.jsonl"),
        (("demo@1", "base:tiny", "--top-p", "0"), 2, "--top-p"),
        (("demo@1", "base:tiny", "--n", "0"), 2, "--n"),
        (("demo@1", "base:tiny", "--min-judged", "3"), 2, "--min-judged is for --judge people"),
        (("demo@1", "base:tiny", "--margin", "0.1"), 2, "--margin without --until-decided says nothing"),
        (("demo@1", "base:tiny", "--until-decided", "--effect", "0.5"), 2, "--effect is 0.5"),
    ],
)
def test_what_can_not_be_compared_is_refused_and_changes_nothing(
    rlhf: CommandLine, words: tuple[str, ...], status: int, said: str
) -> None:
    assert rlhf.root is not None
    before = state(rlhf.root)
    answer = rlhf("compare", *words, "--json")
    assert answer.status == status and said in answer.error["message"], answer
    assert state(rlhf.root) == before


def test_a_bad_line_of_prompts_is_named(rlhf: CommandLine, tmp_path: Path) -> None:
    file = prompts_file(tmp_path)
    file.write_text(file.read_text("utf-8") + '{"text": "no prompt"}\n', "utf-8")
    assert "line 7" in rlhf("compare", "demo@1", "base:tiny", "--prompts", file, "--json").error["message"]
