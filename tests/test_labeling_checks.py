"""Checks: known answers and repeats, blind, apart from the data, and a pause that bad luck doesn't bring."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from test_labeling_queue import add_pairs, kept

from rlhf import feedback, ids, labeling, snapshots
from rlhf.errors import Conflict, Forbidden, NotFound
from rlhf.labeling import Paused, Task, answer, gold, next_task, quality, said_before, set_rules, undo
from rlhf.store import Workspace, audit
from rlhf.store.tables import checks, judgements


def write_gold(file: Path, n: int) -> Path:
    """Pairs whose first reply is right in all of them."""
    lines = [{"prompt": f"known {i}?", "a": f"right {i}", "b": f"wrong {i}", "gold": "a"} for i in range(n)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def side(task: Task, word: str) -> labeling.Answer:
    return "left" if task.left.startswith(word) else "right"


def rows(workspace: Workspace) -> list[dict[str, object]]:
    with workspace.read() as connection:
        return [dict(row._mapping) for row in connection.execute(select(checks).order_by(checks.c.at))]


def labels(workspace: Workspace, who: str, n: int, *, right: float = 1.0, overlap: int = 9) -> None:
    """n pairs; a known one is answered right with that chance, others left."""
    dice = ids.chance(0, "labels", who)
    for _ in range(n):
        task = next_task(workspace, who, overlap=overlap)
        assert task is not None
        word = side(task, "right" if dice.random() < right else "wrong") if task.kind == "gold" else "left"
        answer(workspace, who, task.lease, word, seconds=3.0)


def test_gold_comes_up_at_its_rate_blind_and_is_no_judgement(workspace: Workspace, tmp_path: Path) -> None:
    add_pairs(workspace, 150)
    receipt, added = gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 60))
    assert (receipt.pairs, added) == (60, 60)
    set_rules(workspace, ["gold_rate=0.3"], "often, for a test")
    assert labeling.progress(workspace, "ada").n_left == 150, "gold pairs are in no queue"
    seen = []
    for _ in range(100):
        task = next_task(workspace, "ada")
        assert task is not None and next_task(workspace, "ada") == task
        assert task.as_json().keys() == {"lease", "prompt", "left", "right", "expires_at"}
        seen.append(task.kind)
        made = answer(workspace, "ada", task.lease, side(task, "right"), seconds=2.0)
        assert len(made) == 26 and answer(workspace, "ada", task.lease, side(task, "right")) == made
    n_gold = seen.count("gold")
    assert 30 - 4 * 4.6 < n_gold < 30 + 4 * 4.6  # four standard deviations
    assert len(kept(workspace)) == 100 - n_gold and len(rows(workspace)) == n_gold
    assert all(row["was_right"] == 1 and row["seconds"] == 2.0 for row in rows(workspace))
    progress = labeling.progress(workspace, "ada")
    assert (progress.n_done, progress.n_left) == (100, 50 + n_gold), "a check counts as done"
    assert progress.as_json()["n_left"] == 50


def test_no_count_that_a_labeler_sees_tells_a_check_from_a_pair(workspace: Workspace, tmp_path: Path) -> None:
    """Answered, skipped or undone: what is left and what was done move alike, until a single pair is left."""
    add_pairs(workspace, 40)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 12))
    set_rules(
        workspace, ["gold_rate=0.3", "repeat_rate=0.2", "repeat_gap=5", "gold_bar=0", "repeat_bar=0"], "for a test"
    )
    moves: dict[str, set[tuple[str, int, int, int]]] = {"label": set(), "gold": set(), "repeat": set()}

    def seen() -> tuple[int, int, int]:
        told = labeling.progress(workspace, "ada").as_json()
        assert told.keys() == {"n_done_today", "n_done", "n_skipped", "n_left"}
        return told["n_done"], told["n_skipped"], told["n_left"]

    def step(kind: str, deed: str, before: tuple[int, int, int]) -> tuple[int, int, int]:
        after = seen()
        if before[2] > 1:
            moves[kind].add((deed, *(b - a for a, b in zip(before, after, strict=True))))
        return after

    now = seen()
    for i in range(45):
        task = next_task(workspace, "ada")
        if task is None:
            break
        answer(workspace, "ada", task.lease, "skip" if i % 7 == 3 else "left", seconds=2.0)
        now = step(task.kind, "skip" if i % 7 == 3 else "left", now)
        if i % 5 == 4:
            back = labeling.undo(workspace, "ada")
            now = step(task.kind, "undo of a skip" if i % 7 == 3 else "undo", now)
            answer(workspace, "ada", back.lease, "left", seconds=2.0)
            now = step(task.kind, "left", now)
    alike = {("left", 1, 0, -1), ("skip", 0, 1, -1), ("undo", -1, 0, 1), ("undo of a skip", 0, -1, 1)}
    assert all(("left", 1, 0, -1) in moved and moved <= alike for moved in moves.values()), moves


def test_nobody_gets_a_gold_pair_twice_and_two_may_have_it_at_once(workspace: Workspace, tmp_path: Path) -> None:
    add_pairs(workspace, 80)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 3))
    set_rules(workspace, ["gold_rate=0.5"], "often, for a test")
    for who in ("ada", "bob"):
        labels(workspace, who, 30, overlap=2)
    assert sorted((row["labeler"], row["pair_id"]) for row in rows(workspace)) == sorted(
        (who, one.pair_id) for who in ("ada", "bob") for one in gold.list_gold(workspace)
    )
    assert [(one.n, one.n_right) for one in gold.list_gold(workspace)] == [(2, 2)] * 3


def test_checks_are_in_no_export_no_snapshot_and_no_count_of_answers(workspace: Workspace, tmp_path: Path) -> None:
    add_pairs(workspace, 60)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 20))
    set_rules(workspace, ["gold_rate=0.3", "repeat_rate=0.3", "repeat_gap=5"], "often, for a test")
    labels(workspace, "ada", 60)
    kinds = {row["kind"] for row in rows(workspace)}
    n_judged = len(kept(workspace))
    assert kinds == {"gold", "repeat"} and n_judged == 60 - len(rows(workspace))
    feedback.export(workspace, tmp_path / "out.jsonl")
    assert "right " not in (tmp_path / "out.jsonl").read_text("utf-8")
    cut = snapshots.cut(workspace, "all")
    assert cut.n_pairs == n_judged
    [count] = labeling.by_labeler(workspace)
    assert count.n_done == n_judged
    assert quality(workspace).n_answers == n_judged


def test_repeat_swaps_the_sides_waits_and_supersedes_nothing(workspace: Workspace) -> None:
    add_pairs(workspace, 60)
    set_rules(workspace, ["repeat_rate=0.4", "repeat_gap=8", "repeat_bar=0"], "often, and nobody is paused, for a test")
    shown: list[tuple[str, str]] = []
    n_repeats = 0
    for _ in range(50):
        task = next_task(workspace, "ada")
        assert task is not None
        if task.kind == "repeat":
            n_repeats += 1
            places = [i for i, (pair_id, _) in enumerate(shown) if pair_id == task.pair_id]
            assert len(places) == 1, "a pair comes back once"
            assert len(shown) - places[0] > 8 and task.shown == shown[places[0]][1][::-1]
        else:
            shown.append((task.pair_id, task.shown))
        answer(workspace, "ada", task.lease, "left", seconds=1.0)
    assert n_repeats > 5 and len(kept(workspace)) == 50 - n_repeats
    assert all(row["supersedes"] is None for row in kept(workspace))
    assert {row["was_right"] for row in rows(workspace)} == {0}, "who always takes the left is never consistent"


def test_repeat_on_a_screen_takes_the_pair_from_nobody(workspace: Workspace) -> None:
    add_pairs(workspace, 12)
    set_rules(workspace, ["repeat_rate=0.5", "repeat_gap=1"], "often, for a test")
    task = next_task(workspace, "ada", overlap=2)
    while task is not None and task.kind != "repeat":
        answer(workspace, "ada", task.lease, "left", seconds=1.0)
        task = next_task(workspace, "ada", overlap=2)
    assert task is not None
    set_rules(workspace, ["repeat_rate=0"], "no more")
    seen = set()
    while (other := next_task(workspace, "bob", overlap=2)) is not None:
        seen.add(other.pair_id)
        answer(workspace, "bob", other.lease, "left", seconds=1.0)
    assert task.pair_id in seen


def test_undo_takes_back_a_check_like_any_other_answer(workspace: Workspace, tmp_path: Path) -> None:
    add_pairs(workspace, 40)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 20))
    set_rules(workspace, ["gold_rate=0.5"], "often, for a test")
    task = next_task(workspace, "ada")
    before = None
    while task is not None and (task.kind != "gold" or before is None):
        answer(workspace, "ada", task.lease, "left", seconds=1.0, note="as any other", strength=3)
        before, task = task, next_task(workspace, "ada")
    assert task is not None and before is not None
    n_done = labeling.progress(workspace, "ada").n_done
    answer(workspace, "ada", task.lease, side(task, "wrong"), seconds=1.0, note="of a check")
    with pytest.raises(Conflict, match="other answer"):
        answer(workspace, "ada", task.lease, side(task, "right"), seconds=1.0)
    back = undo(workspace, "ada")
    assert (back.pair_id, back.left, back.kind) == (task.pair_id, task.left, "gold") and back.lease != task.lease
    assert back.n_done == n_done
    further = undo(workspace, "ada")
    assert further.pair_id == before.pair_id, "undoing again goes further back"
    with workspace.read() as connection:
        of_check = said_before(connection, "ada", back)
        of_other = said_before(connection, "ada", further)
        of_none = said_before(connection, "bob", further)
    assert of_check and of_check.as_json() == {"lease": task.lease, "note": "of a check"}
    assert of_other and of_other.as_json() == {"lease": before.lease, "note": "as any other"}, (
        "nothing tells them apart"
    )
    assert of_none is None
    answer(workspace, "ada", further.lease, "left", seconds=1.0)
    again = next_task(workspace, "ada")
    assert again is not None and again.pair_id == task.pair_id
    answer(workspace, "ada", again.lease, side(again, "right"), seconds=1.0)
    [one] = [one for one in gold.list_gold(workspace) if one.pair_id == task.pair_id]
    assert (one.n, one.n_right) == (1, 1)


def test_gold_is_turned_onto_the_pairs_own_sides_and_kept_as_a_log(workspace: Workspace, tmp_path: Path) -> None:
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 30))
    listed = gold.list_gold(workspace)
    assert {one.choice for one in listed} == {"a", "b"}
    for one in listed:
        text = feedback.show_pair(workspace, one.pair_id).pair
        assert (text.reply_a if one.choice == "a" else text.reply_b).startswith("right")
    assert gold.add_file(workspace, tmp_path / "gold.jsonl")[1] == 0
    gone = gold.remove(workspace, listed[0].pair_id[:12])
    assert gone == listed[0].pair_id and len(gold.list_gold(workspace)) == 29
    assert labeling.progress(workspace, "ada").n_left == 1, "it is a pair like any other again"
    with pytest.raises(NotFound, match="no gold pair"):
        gold.remove(workspace, gone)
    with pytest.raises(NotFound, match="has a gold answer"):
        gold.add_source(workspace, "nothing")


def test_who_is_under_the_bar_is_paused_with_figures_and_resumed_by_another(
    workspace: Workspace, tmp_path: Path
) -> None:
    add_pairs(workspace, 300)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 120))
    set_rules(workspace, ["gold_rate=0.5"], "often, for a test")
    with pytest.raises(
        Paused, match=r"of \d+ pairs whose answer is known, \d+ were answered that way \(\d+ %|%;"
    ) as stop:
        labels(workspace, "mal", 300, right=0.3)
    assert "70 % are wanted" in stop.value.message.replace("70%", "70 %") and "appeal" in stop.value.fix
    assert (stop.value.code, stop.value.http_status) == ("paused", 403)
    n_kept = len(kept(workspace))
    with pytest.raises(Paused):
        undo(workspace, "mal")
    assert len(kept(workspace)) == n_kept, "earlier answers stay"
    [one] = [one for one in quality(workspace).labelers if one.labeler == "mal"]
    assert one.state == "paused" and one.gold_accuracy is not None and one.gold_interval is not None
    assert one.gold_interval[0] <= one.gold_accuracy <= one.gold_interval[1] < 0.7
    labeling.appeal(workspace, "mal", "  I mixed up the keys, write to mal@example.com  ")
    with pytest.raises(Conflict, match="no appeal can follow"):
        labeling.appeal(workspace, "mal", "again")
    [log] = labeling.paused(workspace)
    assert [entry.action for entry in log] == ["pause", "appeal"]
    assert "mixed up" in log[-1].why and "example.com" not in log[-1].why
    with pytest.raises(Forbidden, match="their own pause"):
        labeling.decide(workspace.as_actor("mal"), "mal", "resume", "I am fine")
    labeling.decide(workspace, "mal", "resume", "keys explained")
    labels(workspace, "mal", 40, right=1.0)
    assert labeling.paused(workspace) == []
    with workspace.read() as connection:
        done = [entry["action"] for entry in audit.entries(connection, subject="mal")]
        audit.verify(connection)
    assert done == ["label.pause", "label.appeal", "label.resume"]


def test_upheld_pause_says_why_and_can_still_be_ended(workspace: Workspace) -> None:
    from rlhf import people

    add_pairs(workspace, 2)
    with pytest.raises(NotFound, match="nobody here"):
        labeling.pause(workspace, "ada", "to see")
    people.add(workspace, "ada", ["labeler"])
    labeling.pause(workspace, "ada", "answers look copied")
    with pytest.raises(Conflict):
        labeling.pause(workspace, "ada", "twice")
    eva = workspace.as_actor("eva")
    with pytest.raises(Conflict, match="no uphold can follow"):
        labeling.decide(eva, "ada", "uphold", "before she could say a word")
    labeling.appeal(workspace, "ada", "they are mine")
    with pytest.raises(Forbidden, match="who paused"):
        labeling.decide(workspace, "ada", "uphold", "as I said")
    labeling.decide(eva, "ada", "uphold", "they are the first reply's words")
    with pytest.raises(Paused) as stop:
        next_task(workspace, "ada")
    assert "answers look copied" in stop.value.message and "first reply's words" in stop.value.fix
    labeling.decide(workspace, "ada", "resume", "looked again")
    assert next_task(workspace, "ada") is not None
    with pytest.raises(Conflict, match="at work"):
        labeling.decide(workspace, "ada", "resume", "again")


def test_bad_luck_pauses_hardly_anybody_and_coins_do_not_pass() -> None:
    """Looked at after every check up to 100: of people who are right at the bar itself, fewer than 5 of 100 are ever paused."""
    from rlhf.labeling.checks import is_under

    def paused(right: float) -> float:
        dice, ended = ids.chance(0, "luck", str(right)), 0
        for _ in range(400):
            n_right = 0
            for n in range(1, 101):
                n_right += dice.random() < right
                if n >= 20 and is_under(n_right, n, 0.7):
                    ended += 1
                    break
        return ended / 400

    assert paused(0.7) < 0.05 and paused(0.8) < 0.005 and paused(0.5) > 0.8


def test_rules_are_a_log_and_say_what_they_mean(workspace: Workspace) -> None:
    from rlhf.errors import BadInput, BadUsage
    from rlhf.labeling import history, in_words, rules_of

    assert rules_of(workspace).seq == 0 and in_words(rules_of(workspace).rules, 1).startswith(
        "Each pair is judged by one person."
    )
    set_rules(workspace, ["more=2"], "hard pairs")
    set_rules(workspace, ["review=true", "gold_rate=0.1"], "and a reviewer")
    assert set_rules(workspace, ["more=2"], "the same").seq == 2
    now = rules_of(workspace)
    assert (now.rules.more, now.rules.review, now.rules.gold_rate, now.who) == (2, True, 0.1, "tester")
    assert [entry.why for entry in history(workspace)] == ["hard pairs", "and a reviewer"]
    told = in_words(now.rules, 2)
    assert "judged by 2 people" in told and "up to 2 more" in told and "a reviewer decides" in told and "10%" in told
    for words, error in ((["mroe=2"], BadUsage), (["more=-1"], BadUsage), (["gold_rate=2"], BadUsage)):
        with pytest.raises(error):
            set_rules(workspace, words, "wrong")
    with pytest.raises(BadInput, match="why"):
        set_rules(workspace, ["more=1"], " ")
    with workspace.read() as connection:
        assert len(audit.entries(connection, action="label.rules")) == 2


def test_judgements_have_no_row_of_a_check(workspace: Workspace, tmp_path: Path) -> None:
    add_pairs(workspace, 30)
    gold.add_file(workspace, write_gold(tmp_path / "gold.jsonl", 10))
    set_rules(workspace, ["gold_rate=0.5"], "often, for a test")
    labels(workspace, "ada", 25)
    known = {one.pair_id for one in gold.list_gold(workspace)}
    with workspace.read() as connection:
        assert not known & set(connection.scalars(select(judgements.c.pair_id)))
    assert len(rows(workspace)) > 3
