"""A version's card: what the store knows, nothing that nobody said, the same for the same state."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import adapter_folders as made
import pytest
from command_line import CommandLine
from snapshot_rows import judged, pair_of, put
from test_evaluation_comparison import run as compare_two
from test_evaluation_held_out import Scorer
from test_suites_counterfactual import EXAMPLE
from written_replies import two_policies

from rlhf import erasure, people, registry, snapshots, suites
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.evaluation import evaluate
from rlhf.evaluation.model_card import model_card
from rlhf.evaluation.model_card_page import as_html, as_text, write
from rlhf.ids import digest_text
from rlhf.records import PAGE_SOURCE
from rlhf.registry import aliases
from rlhf.store import Workspace

HEADINGS = (
    "Model details", "Intended use", "Factors", "Metrics and evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and limits", "Sign-offs, aliases and decisions", "What it stands on",
)  # fmt: skip


def learnt(workspace: Workspace, scratch: Path, **votes: Any) -> None:
    """hh@1 on s@1: 60 pairs of one vote each."""
    rows = [judged(pair_of(i), "a" if i % 3 else "b", **{key: of(i) for key, of in votes.items()}) for i in range(60)]
    put(workspace, rows)
    cut = snapshots.cut(workspace, "s", holdout=0.5)
    made.published(workspace, scratch, snapshot_digest=cut.digest)


def test_every_heading_stands_on_the_page_and_in_markdown(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    card = model_card(workspace, "hh@1")
    html, text = as_html(card), as_text(card)
    for heading in HEADINGS:
        assert f"<h2>{heading}</h2>" in html and f"\n## {heading}\n" in text
    assert card["digest"] in html and card["details"]["digest"] in text
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html


def test_the_same_state_gives_the_same_card_and_another_state_another(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    first = model_card(workspace, "hh@1")
    assert model_card(workspace, f"sha256:{first['details']['digest']}") == first
    report = evaluate(workspace, ["hh@1"], "s", score=Scorer())
    second = model_card(workspace, "hh@1")
    assert second["digest"] != first["digest"] and [one["report"] for one in second["reports"]] == [report.digest]


def test_a_version_that_nobody_measured_is_said_to_be_so(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    limits = " ".join(model_card(workspace, "hh@1")["limits"])
    assert "no report names it" in limits and "Nobody has signed it" in limits
    assert "Fairness was not measured" in limits and "Nothing is recorded about who the labelers are" in limits
    assert "Nothing is recorded about who the labelers are; fairness" in snapshots.open_snapshot(workspace, "s").card


def test_each_report_gives_its_figures_with_n_interval_and_method(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    report = evaluate(workspace, ["hh@1"], "s", score=Scorer())
    card = model_card(workspace, "hh@1")
    (one,) = card["reports"]
    measure = report.figures["hh@1"]["measures"]["accuracy"]
    assert one["measures"]["accuracy"] == measure
    html = as_html(card)
    row = re.search(r"<tr><td[^>]*>Accuracy, %</td>.*?</tr>", html)
    assert row and f"{measure['value'] * 100:.1f}" in row[0] and f">{measure['n']}<" in row[0]
    assert measure["method"] in row[0] and f"{measure['low'] * 100:.1f} to" in row[0]
    assert "no report names it" not in html


def test_a_policys_card_holds_its_comparison_its_judge_and_the_data_of_its_reward(
    workspace: Workspace, tmp_path: Path
) -> None:
    two_policies(workspace, tmp_path)
    compare_two(workspace)
    card = model_card(workspace, "demo@1")
    (one,) = card["reports"]
    assert (one["judge"]["name"], one["flatters"], one["against"]) == ("hh@1", True, ["demo@2"])
    assert any("flatters it" in limit for limit in card["limits"])
    assert [data["name"] for data in card["data"]] == ["s@1"] and card["lineage"]["ancestors"][0]["version"] == "hh@1"
    assert "Win rate, %" in as_text(card)


def test_a_reason_of_an_aliass_move_is_told_with_the_decision_and_is_no_purpose(
    workspace: Workspace, tmp_path: Path
) -> None:
    learnt(workspace, tmp_path)
    aliases.move(workspace, "hh@champion", "hh@1", why="to rank replies of the <b>help desk</b>")
    card = model_card(workspace, "hh@1")
    assert card["aliases"] == ["hh@champion"] and card["decisions"][0]["in_force"]
    html, text = as_html(card), as_text(card)
    assert "to rank replies of the &lt;b&gt;help desk&lt;/b&gt;" in html and r"\<b\>help desk" in text
    use = html[html.index("<h2>Intended use</h2>") : html.index("<h2>Factors</h2>")]
    assert "Nobody recorded what it is for. What holds for any reward:" in use and "help desk" not in use
    decided = html[html.index("<h2>Sign-offs, aliases and decisions</h2>") :]
    assert "help desk" in decided


@pytest.mark.parametrize(("split", "is_told"), [("train", True), ("test", False)])
def test_figures_on_what_it_was_trained_on_have_their_caution_beside_them(
    workspace: Workspace, tmp_path: Path, split: str, is_told: bool
) -> None:
    learnt(
        workspace,
        tmp_path,
        labeler=lambda i: f"p{i % 12}",
        cohort=lambda i: "north",
    )
    report = evaluate(workspace, ["hh@1"], "s", split=split, score=Scorer())
    card = model_card(workspace, "hh@1")
    n = card["reports"][0]["seen_openings"]
    assert bool(n) is is_told
    caution = (
        f". Caution: measured on the train side of a snapshot, which is not held out; {n} of these opening turns were in its "
        "training, so these figures are too good."
    )
    html = as_html(card)
    assert (f"report {report.digest}{caution}" in html) is is_told
    assert ("Caution: measured" in " ".join(card["limits"])) is is_told
    if card["reports"][0]["by_cohort"]:
        assert (f"Agreement with cohorts of labelers, report {report.digest[:12]}{caution}" in html) is is_told
    assert bool(card["reports"][0]["by_cohort"]) or not is_told


def test_a_report_from_before_labelers_and_splits_were_kept_is_on_the_card(
    workspace: Workspace, tmp_path: Path
) -> None:
    learnt(workspace, tmp_path)
    evaluate(workspace, ["hh@1"], "s", score=Scorer())
    card = model_card(workspace, "hh@1")
    (one,) = card["reports"]
    old = {**card, "reports": [{**one, "labelers": [], "split": None, "seen_openings": None}]}
    assert "the labelers of the pairs" in as_text(old) and "Caution" not in as_text(old)


def test_of_several_reports_on_one_thing_the_newest_and_the_signed_are_told(
    workspace: Workspace, tmp_path: Path
) -> None:
    learnt(workspace, tmp_path)
    first, second, third = (evaluate(workspace, ["hh@1"], "s", score=Scorer(), seed=seed).digest for seed in range(3))
    registry.sign(workspace, "hh@1", first, "evaluator")
    text = as_text(model_card(workspace, "hh@1"))
    told = text[text.index("## Quantitative analyses") : text.index("## Ethical considerations")]
    assert first in told and third in told and second not in told
    assert all(one[:12] in text for one in (first, second, third)), "the list has all"


def test_groups_and_the_gap_on_templates_stand_on_the_card(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    suites.generate(workspace, "swaps", [EXAMPLE])
    evaluate(workspace, ["hh@1"], suite="swaps", score=Scorer())
    (one,) = model_card(workspace, "hh@1")["reports"]
    assert set(one["by_group"]["gender"]) == {"women", "men", "unsaid"} and one["reward_gap"]["n"] > 0
    text = as_text(model_card(workspace, "hh@1"))
    factors = text[text.index("## Factors") : text.index("## Metrics")]
    assert (
        "Accuracy by gender, report" in factors
        and "| women |" in factors
        and "only the group's words differ" in factors
    )


def test_sign_offs_stand_on_the_card(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path)
    report = evaluate(workspace, ["hh@1"], "s", score=Scorer())
    registry.sign(workspace, "hh@1", report.digest, "evaluator")
    card = model_card(workspace, "hh@1")
    assert [(s["who"], s["role"], s["report"]) for s in card["signoffs"]] == [("tester", "evaluator", report.digest)]
    assert not any("Nobody has signed" in limit for limit in card["limits"])


def test_small_cohorts_are_hidden_and_large_ones_have_people(workspace: Workspace, tmp_path: Path) -> None:
    cohort = lambda i: "north" if i < 30 else "south" if i < 56 else "hamlet"  # noqa: E731
    learnt(workspace, tmp_path, labeler=lambda i: f"p{i % 12}" if i < 56 else "alone", cohort=cohort)
    found = model_card(workspace, "hh@1")["data"][0]["cohorts"]
    assert found["hidden"] >= 2 and "hamlet" not in found["shown"], "one hidden cohort alone could be reckoned back"
    html = as_html(model_card(workspace, "hh@1"))
    assert "hamlet" not in html and "Not shown:" in html
    assert all(n["people"] >= 5 for n in found["shown"].values())


def test_what_was_taken_back_and_erased_is_counted(workspace: Workspace, tmp_path: Path) -> None:
    learnt(
        workspace,
        tmp_path,
        source=lambda i: PAGE_SOURCE if i < 20 else "s",
        labeler=lambda i: "ann" if i < 20 else "bo",
    )
    people.add(workspace, "ann", ["labeler"])
    guideline, consent = people.current_texts(workspace)
    people.agree(workspace, "ann", guideline.digest, consent.digest)
    (data,) = model_card(workspace, "hh@1")["data"]
    assert data["judgements_taken_back"] == 0 and [(t["people"], t["basis"]) for t in data["consent_texts"]] == [
        (1, "consent")
    ]
    people.withdraw(workspace, "ann")
    (data,) = model_card(workspace, "hh@1")["data"]
    assert data["judgements_taken_back"] == 20 and data["consent_texts"] == []
    assert "20 judgements were taken back" in as_text(model_card(workspace, "hh@1"))


def test_an_imported_version_says_what_is_not_known_of_it(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, snapshot_digest=digest_text("elsewhere"), details={"imported_from": "stranger"})
    card = model_card(workspace, "hh@1")
    assert card["data"] == [{"digest": digest_text("elsewhere"), "of": ["hh@1"], "name": None}]
    text = as_text(card)
    assert "a folder named stranger" in text and "not in this workspace" in text and "can't be ruled out" in text
    made.published(workspace, tmp_path, 1)
    assert any("is not recorded" in limit for limit in model_card(workspace, "hh@2")["limits"])


def test_simulated_data_is_said_first(workspace: Workspace, tmp_path: Path) -> None:
    made.published(workspace, tmp_path, simulated=True)
    card = model_card(workspace, "hh@1")
    assert "SIMULATED" in as_html(card).split("<main>")[0] and "SIMULATED" in as_text(card).split("##")[1]
    assert card["limits"][0].startswith("SIMULATED")


@pytest.mark.parametrize(("name", "refusal"), [("card.pdf", BadUsage), ("folder.html", BadInput)])
def test_a_file_that_can_be_no_card_is_refused(
    workspace: Workspace, tmp_path: Path, name: str, refusal: type[Exception]
) -> None:
    made.published(workspace, tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(refusal):
        write(workspace, model_card(workspace, "hh@1"), tmp_path / name)
    with pytest.raises(NotFound):
        model_card(workspace, "hh@9")


def test_the_command_writes_each_kind_of_file_and_prints_markdown(rlhf: CommandLine, tmp_path: Path) -> None:
    shown = rlhf("adapter", "card", "hh@champion")
    assert (
        shown.status == 0 and shown.out.startswith("# Model card of hh@2\n") and "hh@2 is the best so far" in shown.out
    )
    told = rlhf.json("adapter", "card", "hh@2")
    for ending in ("html", "md", "json"):
        answer = rlhf.json("adapter", "card", "hh@2", "--out", tmp_path / "cards" / f"card.{ending}")
        assert answer["digest"] == told["digest"] and (tmp_path / "cards" / f"card.{ending}").read_text("utf-8")
    assert json.loads((tmp_path / "cards" / "card.json").read_text("utf-8")) == told
    html = (tmp_path / "cards" / "card.html").read_text("utf-8")
    assert "How it was trained" in html and "<svg" in html, "two logged steps are a curve"
    assert rlhf("adapter", "card", "hh@2", "--out", "card.pdf").status == 2


def test_a_card_of_erased_words_counts_the_rows(workspace: Workspace, tmp_path: Path) -> None:
    learnt(workspace, tmp_path, labeler=lambda i: f"p{i % 12}")
    assert model_card(workspace, "hh@1")["data"][0]["erased_rows"] == 0
    erasure.erase(workspace, "pair", pair_of(1).id)
    card = model_card(workspace, "hh@1")
    assert card["data"][0]["erased_rows"] == 1 and "1 rows were erased" in as_text(card)
