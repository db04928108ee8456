"""Reports in a real Chromium, their policy taken away: whatever a text holds, no report acts, asks or grows an element of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import DESK, opened_browser, watched
from payloads import PAYLOADS, acted
from test_evaluation_page import content, pair
from test_pages_policy_report import WATCH
from test_pages_policy_report import report as policy_report
from test_pages_run_report import FIGURES, METRICS
from written_replies import Writer, pairs_of, prompt_of, score_plain, two_policies, verdicts_of

from rlhf.evaluation import compare, comparison_page
from rlhf.evaluation import page as evaluation_page
from rlhf.pages.calibration_report import render_calibration
from rlhf.pages.policy_report import render_policy
from rlhf.pages.run_report import render_run
from rlhf.rounds import decision_page
from rlhf.store import Workspace

pytestmark = pytest.mark.browser
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n')
_NUMBERS = {"log_loss": 0.6, "brier": 0.2, "ece": 0.1, "calibration_p": 0.2, "spiegelhalter_z": 0.3, "accuracy": 0.7}
_BEFORE = {**_NUMBERS, "n": 80, "n_groups": 70, "ece_if_perfect": {"mean": 0.05, "p95": 0.1}, "reliability": []}
_MEASURED = {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "n_decided": 70}


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page that reads files of this machine, as a report does that somebody opened."""
    with opened_browser() as browser:
        yield browser.new_context(viewport=DESK).new_page()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a comparison's report.json holds."""
    folder = tmp_path_factory.mktemp("compared")
    workspace = Workspace.create(folder / "ws", actor="tester")
    two_policies(workspace, folder)
    made = compare(
        workspace, "demo@1", "demo@2", write=Writer(), score=score_plain, prompts=[prompt_of(i) for i in range(24)]
    )
    workspace.close()
    return dict(made.content)


def poisoned(value: Any, payload: str, keys: Collection[str] = (), keep: Collection[str] = ()) -> Any:
    """The value with the payload before every text in it, but for the words in `keep`, which decide something; as a key it stands
    before those in `keys`."""
    if isinstance(value, str):
        return value if value in keep else payload + value
    if isinstance(value, dict):
        return {
            poisoned(key, payload) if key in keys else key: poisoned(inner, payload, keys, keep)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [poisoned(inner, payload, keys, keep) for inner in value]
    return value


def run_page(payload: str) -> str:
    facts = {f"{payload} name": payload, "settings": {payload: payload}}
    return render_run(title=payload, facts=facts, metrics=METRICS[:1], figures={**FIGURES, payload: 1.0})


def policy_page(payload: str) -> str:
    report = policy_report(stopped="by", steps=[], watch=WATCH[:1])  # plots of one curve say nothing that anybody wrote
    return render_policy(title=payload, report=poisoned(report, payload, keys=("version", "<b>")))


def calibration_page(payload: str) -> str:
    bins = [{"predicted": 0.6, "observed": 0.7, "n": 9, "band_low": 0.5, "band_high": 0.8}]
    after = {**_BEFORE, "reliability": bins}
    limit = {"exists": False, "target": 0.8, "confidence": 0.9, "n": 70, "method": "exact"}
    part = {"before": _BEFORE, "after": after, "gain": {}}
    report = {
        **part, "version": "hh@2", "parent": "hh@1", "digest": "d", "snapshot": "s@1", "run": "r", "seed": 0, "temperature": 1.2,
        "fold_temperatures": [1.2], "threshold": limit, "method": {"interval": "bootstrap"}, "simulated": True,
        "set_aside": {"share": 0.1, "pairs": 80, "seen_by_ancestors": 0, "test_seen": 0}, "test": {"n": 0, "why": "no test side"},
    }  # fmt: skip
    return render_calibration(poisoned(report, payload, keys=("interval",)))


def evaluated_page(payload: str) -> str:
    texts = {"prompt": payload, "chosen": payload, "rejected": f"x {payload}", "source": payload}
    scored = [pair(i, 1.0 if i % 3 else -1.0, **texts) for i in range(12)]
    made = poisoned(content(scored), payload, keys=("hh@1",), keep=("human", "longer", "shorter", "test"))
    return evaluation_page.render(made, {f"{payload}hh@1": scored})


def comparison(payload: str, compared: dict[str, Any]) -> str:
    pairs = pairs_of([(f"{payload} one", f"other {payload}")] * 4, group=payload)
    made = poisoned(compared, payload, keys=("demo@1", "demo@2"), keep=("reward", "rule", "people"))
    return comparison_page.render(made, pairs, verdicts_of([1.0, 0.0, 0.5, 1.0]))


def decision(payload: str) -> str:
    said = {
        "alias": "hh@champion",
        "candidate": "hh@2",
        "digest": "d",
        "preposition": "for",
        "reasons": ["no sign-off"],
    }
    figure = {"figure": "accuracy", "value": 0.7, "above": 0.6, "n": 70}
    gate = {"figures": [figure], "signoffs": [{"role": "evaluator", "who": "eve"}]}
    verdicts = [{**said, "outcome": word, "gate": gate} for word in ("proposed", "promoted")]
    won = {"n": 24, "win_rate": 0.6, "win_rate_low": 0.5, "win_rate_high": 0.7, "kl": 1.0, "mean_tokens": 9.0}
    against = {
        "judge": {"name": "hh@1", "flatters": ["demo@1"]},
        "figures": {"demo@1": won},
        "other": "demo@2",
        "report": "d",
    }
    record = {
        "title": "Round of hh", "actor": "ann", "verdicts": verdicts, "needed": ["sign it"], "simulated": True,
        "rewards": {"newest": {"snapshot": "s@1", "figures": {"hh@2": _MEASURED}, "change": None, "report": "d"}},
        "policies": [against], "settles": "d", "trained_on": {"snapshot": "s@1", "why": "new"}, "phase": {"phase": "x", "why": "y"},
        "snapshot": {"name": "s@1", "digest": "d", "frozen": "f@1", "frozen_digest": "d"}, "asked": {"pairs": 3},
        "round": {"id": "r", "runs": {"reward": "r1"}}, "judgements": {"new": 3, "since": "s@0"},
    }  # fmt: skip
    return decision_page.render(poisoned(record, payload, keys=("hh@2", "demo@1", "newest"), keep=("promoted",)))


def harmless(page: Any, file: Path, html: str, payload: str) -> None:
    """Open the report without its policy: nothing acts, nothing is asked for, and the text stands there as it was written."""
    bare, n_policies = _POLICY.subn("", html, count=1)
    assert n_policies == 1, "a report brings its own policy; without it the text must be harmless by itself"
    file.write_text(bare, "utf-8")
    problems = watched(page, file.as_uri())
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    assert acted(page) == [] and problems == [], file.name
    assert page.inner_text("body").count(payload.split()[0]) >= 3, file.name


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_text_acts_in_the_report_of_a_training_or_of_a_round(page: Any, tmp_path: Path, name: str) -> None:
    for render in (run_page, policy_page, decision):
        harmless(page, tmp_path / f"{render.__name__}.html", render(PAYLOADS[name]), PAYLOADS[name])


@pytest.mark.parametrize("chunk", range(4))
def test_no_text_acts_in_a_report_with_plots(page: Any, tmp_path: Path, compared: dict[str, Any], chunk: int) -> None:
    """Several payloads in one text, as their plots take seconds to draw."""
    payload = "\n".join([*PAYLOADS.values()][chunk::4])
    for render in (calibration_page, evaluated_page):
        harmless(page, tmp_path / f"{render.__name__}.html", render(payload), payload)
    harmless(page, tmp_path / "comparison.html", comparison(payload, compared), payload)


@pytest.mark.parametrize(
    "name", ["script", "image", "outside", "svg", "mathml", "form", "style", "nested", "dangling", "no script"]
)
def test_what_acts_would_be_found(page: Any, tmp_path: Path, name: str) -> None:
    """The same texts in a page that takes them for markup."""
    file = tmp_path / "careless.html"
    file.write_text(f"<!doctype html><html lang=en><title>x</title><body><p>{PAYLOADS[name]}<p title=''>", "utf-8")
    problems = watched(page, file.as_uri())
    page.goto(file.as_uri(), wait_until="commit")
    assert acted(page) or problems
