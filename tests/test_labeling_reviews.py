"""Disagreement asks for one more opinion up to a limit, then goes to a reviewer; nobody is asked beyond that."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from sqlalchemy import select
from test_labeling_queue import add_pairs, kept

from rlhf import ids, labeling
from rlhf.errors import BadInput
from rlhf.labeling import Task, answer, next_task, opinions, set_rules, undo
from rlhf.labeling.counts import in_force
from rlhf.store import Workspace
from rlhf.store.tables import judgements


def says(workspace: Workspace, who: str, choice: str, *, overlap: int = 2, may_review: bool = False) -> Task | None:
    """The next pair answered with reply a or b, wherever it stands."""
    task = next_task(workspace, who, overlap=overlap, may_review=may_review)
    if task is not None:
        side = choice if choice not in "ab" else "left" if task.shown[0] == choice else "right"
        answer(workspace, who, task.lease, side, seconds=1.0)  # type: ignore[arg-type]
    return task


def test_without_rules_nobody_is_asked_beyond_the_overlap(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    assert says(workspace, "ada", "a") and says(workspace, "bob", "b")
    assert next_task(workspace, "cid", overlap=2) is None
    assert next_task(workspace, "rev", overlap=2, may_review=True) is None
    assert opinions(workspace, overlap=2).left_split == 1


def test_one_more_is_asked_while_people_disagree(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    set_rules(workspace, ["more=2", "review=true"], "hard pairs")
    assert says(workspace, "ada", "a") and says(workspace, "bob", "b")
    assert labeling.progress(workspace, "cid", overlap=2).n_left == 1
    assert labeling.progress(workspace, "ada", overlap=2).n_left == 0, "who has answered isn't asked again"
    third = next_task(workspace, "cid", overlap=2)
    assert third is not None and next_task(workspace, "dan", overlap=2) is None, "one at a time"
    answer(workspace, "cid", third.lease, "tie", seconds=1.0)
    assert opinions(workspace, overlap=2).asking == 1
    assert says(workspace, "dan", "both_bad") and next_task(workspace, "eve", overlap=2) is None
    assert opinions(workspace, overlap=2).at_review == 1
    assert labeling.progress(workspace, "eve", overlap=2).n_left == 0


def test_agreement_ends_the_asking(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    set_rules(workspace, ["more=3", "review=true"], "hard pairs")
    for who, choice in (("ada", "a"), ("bob", "b"), ("cid", "a")):
        assert says(workspace, who, choice)
    assert next_task(workspace, "dan", overlap=2) is None, "two of three is above 0.6"
    assert next_task(workspace, "rev", overlap=2, may_review=True) is None
    assert opinions(workspace, overlap=2).agreed == 1


def test_three_of_five_meet_a_bar_of_three_fifths(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    set_rules(workspace, ["more=3"], "hard pairs")
    for who, choice in (("ada", "a"), ("bob", "b"), ("cid", "tie"), ("dan", "a"), ("eve", "a")):
        assert says(workspace, who, choice)
    assert opinions(workspace, overlap=2).agreed == 1


def test_review_comes_first_to_reviewers_alone_and_says_so_and_no_more(workspace: Workspace) -> None:
    add_pairs(workspace, 3)
    set_rules(workspace, ["review=true"], "a reviewer decides")
    for who, choice in (("ada", "a"), ("bob", "b")):
        for _ in range(3):
            assert says(workspace, who, choice)
    assert next_task(workspace, "cid", overlap=2) is None, "who doesn't review gets none of them"
    assert next_task(workspace, "ada", overlap=2, may_review=True) is None, "nobody reviews their own"
    add_pairs(workspace, 6)
    task = next_task(workspace, "rev", overlap=2, may_review=True)
    assert task is not None and task.kind == "review" and task.as_json()["review"] is True
    assert "ada" not in str(task.as_json()) and "bob" not in str(task.as_json())
    other = next_task(workspace, "rob", overlap=2, may_review=True)
    assert other is not None and other.kind == "review" and other.pair_id != task.pair_id
    plain = next_task(workspace, "cid", overlap=2)
    assert plain is not None and "review" not in plain.as_json()


def test_review_is_one_more_judgement_with_its_mark_and_settles_the_pair(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    set_rules(workspace, ["review=true"], "a reviewer decides")
    assert says(workspace, "ada", "a") and says(workspace, "bob", "b")
    task = next_task(workspace, "rev", overlap=2, may_review=True)
    assert task is not None
    answer(workspace, "rev", task.lease, "tie", seconds=1.0)
    assert [(row["labeler"], row["reason"]) for row in kept(workspace)] == [
        ("ada", None),
        ("bob", None),
        ("rev", "review"),
    ]
    assert opinions(workspace, overlap=2) == labeling.Opinions(0, 0, 0, 1, 0)
    assert next_task(workspace, "rob", overlap=2, may_review=True) is None, "one reviewer, not two"
    again = undo(workspace, "rev", overlap=2)
    assert again.kind == "review" and next_task(workspace, "rob", overlap=2, may_review=True) is None
    answer(workspace, "rev", again.lease, "skip", seconds=1.0, reason="can't tell")
    other = next_task(workspace, "rob", overlap=2, may_review=True)
    assert other is not None and other.kind == "review", "a skip reviews nothing"


def test_nobody_marks_an_answer_as_a_review(workspace: Workspace) -> None:
    add_pairs(workspace, 1)
    task = next_task(workspace, "ada")
    assert task is not None
    with pytest.raises(BadInput, match="mark of the queue"):
        answer(workspace, "ada", task.lease, "tie", reason="review")


@pytest.mark.slow
def test_two_hundred_labelers_over_two_thousand_pairs_ask_no_more_than_wanted(workspace: Workspace) -> None:
    add_pairs(workspace, 2000)
    each_gets_what_it_wants(workspace, labelers=200, pairs=2000)


def each_gets_what_it_wants(workspace: Workspace, labelers: int, pairs: int) -> None:
    """Coins at overlap 2, two more opinions and reviewers: each answer beyond the overlap found those before it split."""
    set_rules(workspace, ["more=2", "review=true"], "coins disagree")
    tosses = ids.chance(0, "coins")
    names = [f"labeler-{i}" for i in range(labelers)]
    lock = threading.Lock()

    def toss() -> str:
        with lock:
            return tosses.choice(["left", "right", "tie"])

    work_off(workspace, names, lambda who, lease: answer(workspace, who, lease, toss(), seconds=1.0), may_review=False)  # type: ignore[arg-type]
    work_off(workspace, ["rev", "rob"], lambda who, lease: answer(workspace, who, lease, "tie"), may_review=True)
    mine = judgements.alias()
    with workspace.read() as connection:
        rows = connection.execute(select(mine).where(in_force(mine)).order_by(mine.c.created_at, mine.c.id)).all()
    given: dict[str, list[str]] = defaultdict(list)
    reviewed = Counter(row.pair_id for row in rows if row.reason == "review")
    for row in rows:
        if row.reason != "review":
            given[row.pair_id].append(row.choice)
    assert len(given) == pairs and max(Counter((row.pair_id, row.labeler) for row in rows).values()) == 1
    for pair_id, choices in given.items():
        split = [max(Counter(choices[:n]).values()) / n < 0.6 for n in range(2, len(choices) + 1)]
        assert len(choices) >= 2 and all(split[:-1]), (choices, "one more was asked than wanted")
        assert (len(choices) == 4 and split[-1]) == (reviewed[pair_id] == 1), (choices, reviewed[pair_id])
        assert len(choices) == 4 or not split[-1], (choices, "one more was wanted")
    assert max(reviewed.values()) == 1


def work_off(workspace: Workspace, names: list[str], give: Callable[[str, str], object], *, may_review: bool) -> None:
    """All names in 12 threads, drawn anew after each answer, until nothing is open to anybody."""
    lock, broken = threading.Lock(), []
    dice = ids.chance(0, "work off")
    queue: list[str] = []

    def work() -> None:
        try:
            while True:
                with lock:
                    if not queue:
                        return
                    who = queue.pop(dice.randrange(len(queue)))
                task = next_task(workspace, who, overlap=2, may_review=may_review)
                if task is None:
                    continue
                give(who, task.lease)
                with lock:
                    queue.append(who)
        except BaseException as error:
            broken.append(error)

    for _ in range(3):  # a pair that was on a screen when somebody left may have come to want one more
        queue[:] = names
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert broken == []
