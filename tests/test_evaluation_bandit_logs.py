"""Bandit logs and policies from CSV: what can't be read is named, and nothing is left out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rlhf.errors import BadInput
from rlhf.evaluation.bandit_logs import read_log, target_of
from rlhf.measures import off_policy

COLUMNS = {"action": "item", "reward": "click", "propensity": "p"}
ROWS = "item,place,click,p\nx,top,1,0.5\ny,top,0,0.25\nx,low,0,0.5\n"


def written(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_log_is_read_plain_and_gzipped(tmp_path: Path) -> None:
    files = [
        written(tmp_path, b"\xef\xbb\xbf" + ROWS.encode()),
        written(tmp_path, gzip.compress(ROWS.encode()), "a.csv.gz"),
    ]
    for file in files:
        log = read_log(file, **COLUMNS, context="place", unit="item")
        assert (log.actions, log.contexts) == (["x", "y"], ["top", "low"])
        assert log.action_N.tolist() == [0, 1, 0] and log.context_N.tolist() == [0, 0, 1]
        assert log.reward_N.tolist() == [1, 0, 0] and log.propensity_N.tolist() == [0.5, 0.25, 0.5]
        assert log.unit_N is not None and log.unit_N.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("item,click\nx,1\n", "no column p; it has item, click"),
        ("", "no header"),
        ("item,click,p\n", "no rows"),
        ("item,click,p\nx,1,0.5\nx,yes,0.5\n", "line 3: click is 'yes', wanted a number"),
        ("item,click,p\nx,1,0.5\nx,nan,0.5\n", "line 3: click is 'nan'"),
        ("item,click,p\nx,1,1.5\n", "line 2: p is 1.5, wanted a chance"),
        ("item,click,p\nx,1,-0.1\n", "line 2: p is -0.1"),
        ("item,click,p\nx,1,\n", "line 2: p is ''"),
        ("item,click,p\n,1,0.5\n", "line 2: item is empty"),
        ("item,click,p\nx,1,0.5,7\n", "line 2: it has 4 columns where the header has 3"),
        ('item,click,p\n"x,1,0.5\n', "is not CSV"),
        (b"item,click,p\n\xff,1,0.5\n", "is not UTF-8"),
        (gzip.compress(ROWS.encode())[:30], "can't be unpacked"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_log(written(tmp_path, text), **COLUMNS)
    assert said in refused.value.message and refused.value.fix


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can't be read"):
        read_log(tmp_path / "none.csv", **COLUMNS)


def test_a_target_is_a_word_an_action_or_a_file(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, ROWS), **COLUMNS, context="place")
    assert target_of("uniform", log)[1].tolist() == [[0.5, 0.5]] * 2
    assert target_of("y", log)[1].tolist() == [[0, 1]] * 2
    longer, never = target_of("zebra", log)
    assert list(longer.actions) == ["x", "y", "zebra"] and never[:, 2].tolist() == [1, 1]
    everywhere = written(tmp_path, "item,probability\nx,0.25\ny,0.75\n", "t.csv")
    assert target_of(str(everywhere), log, action="item", context="place")[1].tolist() == [[0.25, 0.75]] * 2
    by_place = written(tmp_path, "action,probability,place\nx,1,top\ny,0.5,low\nnew,0.5,low\n", "c.csv")
    longer, target = target_of(str(by_place), log, context="place")
    assert list(longer.actions) == ["x", "y", "new"] and target.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("action,probability\nx,0.5\n", "sum to 0.5, wanted 1"),
        ("action,chance\nx,1\n", "no column probability"),
        ("action,probability\nx,two\n", "line 2: probability is 'two'"),
        ("action,probability,place\nx,1,top\n", "in context low sum to 0"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, text: str, said: str) -> None:
    log = read_log(written(tmp_path, ROWS), **COLUMNS, context="place")
    with pytest.raises(BadInput) as refused:
        target_of(str(written(tmp_path, text, "t.csv")), log, context="place")
    assert said in refused.value.message


@pytest.mark.shared
@pytest.mark.parametrize("context", [None, "position"])
def test_open_bandits_random_policy_is_valued_from_the_other_log_as_published(
    shared_data: Path, context: str | None
) -> None:
    columns = {"action": "item_id", "reward": "click", "propensity": "propensity_score", "context": context}
    bts = read_log(shared_data / "open_bandit_bts_men.csv.gz", **columns)  # type: ignore[arg-type]
    found = off_policy.evaluate(bts, off_policy.uniform(bts))
    assert found.n == 10_000 and found.ess == pytest.approx(656, abs=1) and not found.refused
    assert found.ips and found.snips and found.dr
    assert (found.ips.value, found.snips.value) == pytest.approx((0.0030, 0.0032), abs=5e-5)
    random = read_log(shared_data / "open_bandit_random_men.csv.gz", **columns)  # type: ignore[arg-type]
    own = off_policy.evaluate(random, off_policy.uniform(random))
    assert own.ips and own.ips.value == pytest.approx(0.0046) and own.ess == pytest.approx(10_000)
    for one in (found.ips, found.snips, found.dr):
        assert one.interval.high > own.ips.interval.low and np.isfinite(one.interval.high), "they overlap"
