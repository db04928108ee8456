"""People as the judge: a blind job in the labeling queue, first in line, never trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from snapshot_rows import pair_of, put
from written_replies import GOOD, Writer, prompt_of, reply_of, two_policies

from rlhf import labeling, snapshots
from rlhf.errors import BadInput
from rlhf.evaluation import Report, Waiting, compare
from rlhf.feedback import current_judgements, receipts, show_pair, sources
from rlhf.labeling.comparisons import COMPARISON
from rlhf.policy import Prompt, Reply
from rlhf.store import Workspace

N = 8


def ask(workspace: Workspace, *, prompts: list[Prompt] | None = None, **options: Any) -> Report:
    options = {"write": Writer(), **options}
    return compare(
        workspace, "demo@1", "demo@2", judge="people", prompts=prompts or [prompt_of(i) for i in range(N)], **options
    )


def label(workspace: Workspace, n: int, who: str = "ada", choose: Callable[[Any], str] | None = None) -> list[Any]:
    """Answer n tasks of the queue: the side of plain words unless told otherwise."""
    done = []
    for _ in range(n):
        task = labeling.next_task(workspace, who)
        assert task is not None
        plain = "left" if task.left.split()[0].strip(".") in GOOD else "right"
        labeling.answer(workspace, who, task.lease, choose(task) if choose else plain)  # type: ignore[arg-type]
        done.append(task)
    return done


def test_the_first_call_asks_and_the_same_call_again_reads_the_verdicts(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    write = Writer()
    with pytest.raises(Waiting, match="0 of 8 pairs are judged") as waiting:
        ask(workspace, write=write)
    assert "rlhf web" in waiting.value.fix and waiting.value.exit_status == 1
    assert waiting.value.progress()["wanted"] == N
    label(workspace, N - 1)
    with pytest.raises(Waiting, match="7 of 8"):
        ask(workspace, write=write)
    label(workspace, 1)
    report = ask(workspace, write=write)
    assert len(write.asked) == 2, "the texts that were judged are the ones that were written at first"
    f = report.figures["demo@1"]
    assert (f["win_rate"], f["n_wins"], f["n"]) == (1.0, N, N) and f["win_rate_low"] < 1.0
    judge = report.content["judge"]
    assert (judge["n_judgements"], judge["n_labelers"], judge["flatters"]) == (N, 1, [])
    assert ask(workspace).digest == report.digest


def test_asking_again_puts_the_job_in_once(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    for _ in range(2):
        with pytest.raises(Waiting):
            ask(workspace)
    assert [r.state for r in receipts(workspace) if r.source.startswith(COMPARISON)] == ["done"]
    assert list((workspace.root / "cache").glob("*.jsonl")) == []


def test_the_job_comes_before_other_pairs(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    put(workspace, [], bare=[pair_of(1000 + i) for i in range(200)])
    with pytest.raises(Waiting):
        ask(workspace)
    openings = [task.prompt[0].content for task in label(workspace, N)]
    assert all(opening.startswith("Tell me about matter") for opening in openings)
    (after,) = label(workspace, 1, choose=lambda _: "left")
    assert not after.prompt[0].content.startswith("Tell me about matter")


def test_nobody_who_labels_sees_who_wrote_what(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(Waiting) as waiting:
        ask(workspace)
    tasks = label(workspace, N)
    assert 0 < sum(task.left.split()[0].strip(".") in GOOD for task in tasks) < N, "sides are drawn"
    for task in tasks:
        told = str(task.as_json())
        assert "demo" not in told and waiting.value.job not in told
        assert "demo" not in str(show_pair(workspace, task.pair_id)), "the stored pair doesn't tell either"


def test_their_answers_never_come_into_a_training(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(Waiting):
        ask(workspace)
    ids = {task.pair_id for task in label(workspace, N)}
    with workspace.read() as connection:
        said = [j for _, j in current_judgements(connection, pair_ids=sorted(ids))]
    assert len(said) == N and all(j.consent == ("evaluate",) for j in said)
    cut = snapshots.cut(workspace, "later", holdout=0.3)
    assert not ids & {row.pair.id for row in cut.rows("train")}
    other = labeling.next_task(workspace, "ada")
    if other is not None:  # a pair of no comparison keeps its usual consent
        id = labeling.answer(workspace, "ada", other.lease, "left")
        with workspace.read() as connection:
            assert dict(current_judgements(connection, pair_ids=[other.pair_id]))[id].consent == ("evaluate", "train")


def test_a_majority_decides_and_ties_and_skips_are_what_they_are(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(Waiting):
        ask(workspace, prompts=[prompt_of(0), prompt_of(1)])
    label(workspace, 1, "ada", lambda _: "tie")
    label(workspace, 1, "ada", lambda _: "skip")
    with pytest.raises(Waiting, match="1 of 2"):
        ask(workspace, prompts=[prompt_of(0), prompt_of(1)])
    label(workspace, 1, "bob")
    f = ask(workspace, prompts=[prompt_of(0), prompt_of(1)]).figures["demo@1"]
    assert (f["n_ties"], f["n_wins"], f["win_rate"]) == (1, 1, 0.75)


def test_enough_judged_goes_on_and_counts_what_is_left_out(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(Waiting, match="goes on at 3"):
        ask(workspace, min_judged=3)
    label(workspace, 3)
    first = ask(workspace, min_judged=3)
    f = first.figures["demo@1"]
    assert (f["n"], f["n_not_judged"], f["n_prompts"]) == (3, N - 3, N)
    label(workspace, 1)
    assert ask(workspace, min_judged=3).digest != first.digest, "more judgements are another judge's word"


def test_what_nobody_can_be_asked_about_is_a_tie_or_a_coin(workspace: Workspace, tmp_path: Path) -> None:
    """Identical replies, alike once personal data is replaced, and an empty one."""
    two_policies(workspace, tmp_path)
    texts = {
        "demo@1": ("The same.", "Call 212-555-0147 now", "you can", "you can take two steps"),
        "demo@2": ("The same.", "Call 212-555-0199 now", "", "methodology"),
    }

    def write(_: Workspace, version: str, prompts: Any, *rest: Any, **more: Any) -> list[Reply]:
        return [reply_of(prompt, text) for prompt, text in zip(prompts, texts[version], strict=True)]

    prompts = [prompt_of(i) for i in range(4)]
    with pytest.raises(Waiting, match="0 of 1 pairs"):
        ask(workspace, prompts=prompts, write=write)
    label(workspace, 1)
    f = ask(workspace, prompts=prompts, write=write).figures["demo@1"]
    assert (f["n_ties"], f["n_coins"], f["n_wins"], f["n"]) == (1, 2, 1, 4)


def test_personal_data_in_a_reply_is_replaced_and_the_side_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    """Masking may turn the order of the two digests: the win must stay with who wrote it."""
    two_policies(workspace, tmp_path)
    prompts = [prompt_of(i) for i in range(6)]

    def write(_: Workspace, version: str, prompts: Any, *rest: Any, **more: Any) -> list[Reply]:
        word = "you" if version == "demo@1" else "methodology"
        return [reply_of(p, f"{word} {i} write to anna{i}@example.org") for i, p in enumerate(prompts)]

    with pytest.raises(Waiting):
        ask(workspace, prompts=prompts, write=write)
    tasks = label(workspace, 6)
    assert all("example.org" not in task.left + task.right for task in tasks)
    assert ask(workspace, prompts=prompts, write=write).figures["demo@1"]["win_rate"] == 1.0


def test_sources_and_names_of_a_job_tell_nothing_of_the_versions(workspace: Workspace, tmp_path: Path) -> None:
    two_policies(workspace, tmp_path)
    with pytest.raises(Waiting) as waiting:
        ask(workspace)
    assert waiting.value.job in str(sources(workspace)) and "demo" not in waiting.value.job
    with pytest.raises(BadInput):
        compare(workspace, "demo@1", "demo@1", judge="people")
