from __future__ import annotations

import csv
import gzip
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.measures.agreement import alpha_with_interval, krippendorff_alpha

labels = st.lists(st.lists(st.sampled_from(["a", "b", "tie", None]), max_size=5), max_size=30)


def test_alpha_of_the_published_example() -> None:
    """Krippendorff 2011, section C: nominal data, four observers, twelve units, alpha = 0.743."""
    n = None
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert krippendorff_alpha(list(zip(*observers, strict=True))) == pytest.approx(0.743, abs=5e-4)


@given(labels, st.randoms())
def test_alpha_ignores_order_and_missing_labels(units: list[list[str | None]], r: random.Random) -> None:
    found = krippendorff_alpha(units)
    turned = [[x for x in unit if x is not None] for unit in units]
    for unit in turned:
        r.shuffle(unit)
    r.shuffle(turned)
    again = krippendorff_alpha(turned)
    assert again is None if found is None else again == pytest.approx(found)
    assert found is None or found <= 1.0 + 1e-12


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=30))
def test_full_agreement_is_one_and_a_single_label_is_undefined(values: list[str]) -> None:
    found = krippendorff_alpha([v] * 3 for v in values)
    assert found is None if len(set(values)) == 1 else found == pytest.approx(1.0)


def test_coins_agree_by_chance_only() -> None:
    draw = random.Random(0)
    found = krippendorff_alpha([draw.choice("ab") for _ in range(3)] for _ in range(5000))
    assert found is not None and abs(found) < 0.03


def test_one_label_a_unit_is_undefined() -> None:
    assert krippendorff_alpha([["a"], ["b"], []]) is None


@pytest.mark.shared
def test_alpha_of_pandalm_is_near_the_published_figure(shared_data: Path) -> None:
    rows = json.loads((shared_data / "pandalm.json").read_text("utf-8"))
    found = krippendorff_alpha([row[f"annotator{k}"] for k in (1, 2, 3)] for row in rows)
    assert found == pytest.approx(0.864, abs=0.02)


@pytest.mark.shared
def test_alpha_of_the_convarg_crowd_is_near_the_published_figure(shared_data: Path) -> None:
    votes: dict[str, list[str]] = defaultdict(list)
    with gzip.open(shared_data / "convarg_votes.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            votes[row["pair_id"]].append(row["vote"])
    assert krippendorff_alpha(votes.values()) == pytest.approx(0.267, abs=0.02)


@given(labels)
def test_alpha_with_its_interval_is_alpha(units: list[list[str | None]]) -> None:
    found = alpha_with_interval(units, n_boot=20)
    alone = krippendorff_alpha(units)
    assert (found is None) == (alone is None)
    if found is not None:
        assert found[0] == pytest.approx(alone) and found[1].low <= found[1].high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Two labelers who repeat each other with chance 0.6 and else toss a coin agree at alpha = 0.6."""
    dice, held = random.Random(0), 0
    for _ in range(60):
        units = [("a", "b")[dice.random() < 0.5] for _ in range(150)]
        pairs = [(u, u if dice.random() < 0.6 else dice.choice("ab")) for u in units]
        found = alpha_with_interval(pairs, n_boot=200)
        assert found is not None
        held += 0.6 in found[1]
    assert held >= 51, "95 % of 60 are 57; 51 is over three standard errors away"
