"""Cohorts: what they choose and how far they agree; small ones hidden, so that no total gives them away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.errors import BadInput, NotFound
from rlhf.feedback import import_files
from rlhf.ids import chance
from rlhf.labeling import cohorts
from rlhf.labeling.cohorts import hidden_of, read_target
from rlhf.store import Workspace


@pytest.mark.parametrize(
    ("people", "hidden"),
    [
        ({"x": 9, "y": 7, "z": 5}, set()),
        ({"x": 9, "y": 7, "z": 4}, {"z", "y"}),  # 20 people in all and x = 9, y = 7 would give z away
        ({"x": 9, "y": 7, "z": 1, "w": 1}, {"z", "w", "y"}),  # two people together are still too few
        ({"x": 9, "y": 3, "z": 4}, {"y", "z"}),
        ({"x": 9, "y": 2}, {"x", "y"}),
        ({}, set()),
    ],
)
def test_what_is_hidden_cannot_be_computed_from_the_totals(people: dict[str, int], hidden: set[str]) -> None:
    assert hidden_of(people) == hidden


def test_hiding_holds_for_any_sizes() -> None:
    dice = chance(0, "cohort sizes")
    for _ in range(500):
        people = {f"c{i}": dice.randint(1, 12) for i in range(dice.randint(1, 7))}
        hidden = hidden_of(people)
        assert all(name in hidden for name, n in people.items() if n < 5)
        if hidden and hidden != people.keys():
            assert len(hidden) >= 2 and sum(people[name] for name in hidden) >= 5


def votes(workspace: Workspace, file: Path, sizes: dict[str, int]) -> None:
    """One pair; all of a cohort vote for its first letter's side: those of 'a…' a, those of 'b…' b."""
    lines = [
        {"prompt": "q?", "a": "one", "b": "two", "labeler": f"{name}{i}", "vote": name[0], "cohort": name}
        for name, n in sizes.items()
        for i in range(n)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    import_files(workspace, [file], source="crowd")


def test_agreement_is_told_within_and_across(workspace: Workspace, tmp_path: Path) -> None:
    votes(workspace, tmp_path / "votes.jsonl", {"alpha": 12, "beta": 8})
    found = cohorts(workspace, "crowd", target={"alpha": 0.6, "beta": 0.2, "gamma": 0.2})
    alpha, beta = found.cohorts
    assert (alpha.n_people, alpha.within, alpha.across) == (12, 1.0, 0.0)
    assert (beta.n_people, beta.within, beta.across) == (8, 1.0, 0.0)
    assert alpha.within_interval is not None and alpha.within_interval[0] < 1.0, "12 of 12 are no certainty"
    assert alpha.share == 0.6 and not alpha.is_off and found.absent == ("gamma",)
    assert beta.share_interval is not None and beta.share_interval[0] > 0.2 and beta.is_off
    assert found.as_json()["cohorts"][1]["off_target"] is True


def test_small_cohort_is_hidden_with_the_next_smallest(workspace: Workspace, tmp_path: Path) -> None:
    votes(workspace, tmp_path / "votes.jsonl", {"alpha": 12, "beta": 8, "ax": 2})
    found = cohorts(workspace, "crowd")
    assert [one.name for one in found.cohorts] == ["alpha"] and found.hidden == ("ax", "beta")
    assert found.n_people == 22 and "ax0" not in json.dumps(found.as_json())


def test_nobody_and_few_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nobody of the source"):
        cohorts(workspace, "crowd")
    votes(workspace, tmp_path / "votes.jsonl", {"alpha": 3})
    with pytest.raises(NotFound, match="fewer than 5 people"):
        cohorts(workspace, "crowd")


def test_target_is_shares_that_add_up(tmp_path: Path) -> None:
    file = tmp_path / "target.yaml"
    file.write_text("women: 0.5\nmen: 0.5\n", "utf-8")
    assert read_target(file) == {"women": 0.5, "men": 0.5}
    for text in ("women: 0.5\n", "women: half\n", "[1, 2]\n", "", "women: true\n"):
        file.write_text(text, "utf-8")
        with pytest.raises(BadInput):
            read_target(file)
    with pytest.raises(BadInput, match="no file at "):
        read_target(tmp_path / "missing.yaml")


def test_convarg_people_agree_with_those_of_other_stances_as_with_their_own(
    workspace: Workspace, shared_data: Path
) -> None:
    """Its cohorts are the voters' own stances on a debate: same, opposite, none."""
    import_files(workspace, [shared_data / "convarg_pairs.jsonl.gz", shared_data / "convarg_votes.csv.gz"])
    found = cohorts(workspace, "convarg_votes", target={"same": 0.4, "opposite": 0.3, "none": 0.3})
    by_name = {one.name: one for one in found.cohorts}
    assert by_name.keys() >= {"same", "opposite", "none"} and found.hidden == ()
    for one in by_name.values():
        assert one.n_people > 500 and one.within is not None and one.across is not None
        assert 0.4 < one.within < 0.7 and abs(one.within - one.across) < 0.1
        assert sum(one.choices.values()) == pytest.approx(1)
