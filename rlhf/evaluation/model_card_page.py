"""The model card as a page and as Markdown, under the headings of Mitchell et al. 2019."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation.judged_by import judge_of_card
from rlhf.evaluation.learning import training_section
from rlhf.evaluation.model_card_data import data_blocks
from rlhf.evaluation.page import ROWS
from rlhf.evaluation.wording import caution_of, number, percent, range_of, value_of
from rlhf.pages import Section, page
from rlhf.pages.document import Block, Bullets, Chapter, Facts, Table, as_markdown, as_sections
from rlhf.pages.run_report import write_page
from rlhf.store import Workspace

_SIMULATED = "labelers: judgements behind this version come from a program, not from people."
_USE = {
    "reward": (
        "To tell which of two replies to the same prompt its labelers would prefer: to rank, filter and measure replies, and to "
        "train policies. It speaks for prompts like those that it was trained on.",
        "Not for scores across prompts (only differences within one mean something), not for judging people or what they wrote "
        "about themselves, not as a safety filter, and not beyond the languages and topics of its data.",
    ),
    "policy": (
        "To answer prompts like those that it was trained on, in a research or a supervised setting.",
        "Not for advice that somebody relies on unchecked (medicine, law, money), not for decisions about people, and not beyond "
        "the languages and topics of its data. A higher reward is not truth.",
    ),
}
# Of a comparison: figure -> what a reader calls it, how it is written.
_COMPARED = {
    "win_rate": ("Win rate", "%"),
    "length_controlled_win_rate": ("Win rate at equal length", "%"),
    "refusal": ("Refusals", "%"),
    "kl": ("KL to its base, nats a reply", "2"),
    "mean_tokens": ("Length, tokens", "1"),
    "repetition": ("Repetition", "%"),
    "distinct_2": ("Distinct bigrams", "3"),
}
_ETHICS = (
    "The texts behind it are as their sources gave them: they may offend, err, or hold what masking by patterns can't find. What "
    "labelers prefer is not what is right, and what a few prefer is not what all do. Deploying it is a decision of people who sign."
)


def as_html(card: Mapping[str, Any], training: Sequence[Section] = ()) -> str:
    """One self-contained page. training: how it was trained, as curves."""
    sections = as_sections(_chapters(card))
    place = next(i for i, section in enumerate(sections) if section.title == "Quantitative analyses")
    return page(
        _title(card),
        [*sections[:place], *training, *sections[place:]],
        kicker="Model card",
        simulated=_SIMULATED if card["details"]["simulated"] else "",
    )


def as_text(card: Mapping[str, Any]) -> str:
    """Markdown. Simulated data is said in the first lines; curves are in the page alone."""
    chapters = list(_chapters(card))
    if card["details"]["simulated"]:
        chapters.insert(0, Chapter("SIMULATED", (f"SIMULATED {_SIMULATED}",)))
    return as_markdown(_title(card), chapters)


def write(workspace: Workspace, card: Mapping[str, Any], file: Path) -> None:
    """Write it as what the file's ending says, whole or not at all. Raises BadUsage for another ending, BadInput for a folder."""
    if file.suffix.lower() not in _ENDINGS:
        raise BadUsage(
            f"{file} ends in '{file.suffix}'; a card is written as {_NAMED}", fix="for instance --out card.html"
        )
    if file.is_dir():
        raise BadInput(f"{file} is a folder; wanted a file", fix="for instance --out card.html")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_page(file, _ENDINGS[file.suffix.lower()](workspace, card))


def _page(workspace: Workspace, card: Mapping[str, Any]) -> str:
    from rlhf import registry

    ref = registry.resolve(workspace, f"sha256:{card['details']['digest']}")
    return as_html(card, [training_section(workspace, ref, "t0", "How it was trained")])


_ENDINGS: Mapping[str, Callable[[Workspace, Mapping[str, Any]], str]] = {
    ".html": _page,
    ".md": lambda _, card: as_text(card),
    ".json": lambda _, card: json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
}
_NAMED = ", ".join(_ENDINGS)


def _title(card: Mapping[str, Any]) -> str:
    return f"Model card of {card['version']}"


def _chapters(card: Mapping[str, Any]) -> Iterator[Chapter]:
    yield Chapter("Model details", (Facts(tuple(_identity(card))),))
    yield Chapter("Intended use", tuple(_use(card)))
    yield Chapter("Factors", tuple(_factors(card)))
    yield Chapter("Metrics and evaluation data", tuple(_measured(card)))
    yield Chapter("Training data", tuple(data_blocks(card["data"])))
    yield Chapter("Quantitative analyses", tuple(_figures(card)))
    yield Chapter("Ethical considerations", tuple(_ethics(card)))
    yield Chapter("Caveats and limits", (Bullets(tuple(card["limits"])),))
    yield Chapter("Sign-offs, aliases and decisions", tuple(_governance(card)))
    yield Chapter("What it stands on", tuple(_lineage(card)))


def _identity(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    d = card["details"]
    kinds = {
        "lora": "a LoRA adapter" + (" with a score head" if d["role"] == "reward" else ""),
        "head": "a linear head on its base's inner states",
        "ensemble": "an ensemble, without weights of its own",
    }
    yield "Version", f"{card['version']}, sha256:{d['digest']}"
    yield "What it is", f"a {d['role']}: {kinds[d['kind']]}"
    yield "Base", f"{d['base']['name']}, sha256:{d['base']['digest']}"
    if d["imported_from"]:
        yield "Came from", f"a folder named {d['imported_from']}; it was not trained in this workspace"
    yield "Published", f"by {d['published_by']} at {d['published_at']}"
    if d["retired_at"]:
        yield "Retired", f"at {d['retired_at']}: not to be promoted any more"
    yield "Settings", _listed(d["settings"]) or "none recorded"
    yield "Seeds", _listed(d["seeds"]) or "none recorded"
    yield (
        "Licence",
        "none is recorded for the version, its base or its data: look at each of them before you pass it on",
    )
    yield "Card", f"sha256:{card['digest']}"


def _use(card: Mapping[str, Any]) -> Iterator[Block]:
    use, misuse = _USE[card["details"]["role"]]
    yield f"Nobody recorded what it is for. What holds for any {card['details']['role']}:"
    yield use
    yield misuse


def _factors(card: Mapping[str, Any]) -> Iterator[Block]:
    if not any(one["by_cohort"] or one["by_group"] or one["reward_gap"] for one in card["reports"]):
        yield "No report shows figures by cohort of labelers or by group of prompts; see the limits."
    for one in _newest(card):
        of = f"report {one['report'][:12]}"
        if one["by_cohort"]:
            yield _cautioned(f"Agreement with cohorts of labelers, {of}", one)
            yield _shares("cohort", "agreement, %", one["by_cohort"])
        for attribute, groups in one["by_group"].items():
            yield _cautioned(f"Accuracy by {attribute}, {of}", one)
            yield _shares(attribute, "accuracy, %", groups)
        if gap := one["reward_gap"]:
            yield (
                f"Largest gap in score where only the group's words differ, {of}: {value_of(gap, '3')} nats, {gap['of']} "
                f"({gap['method']})."
            )


def _shares(what: str, figure: str, measures: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple(
        (name, number(m["value"], "%"), range_of(m, "%"), f"{m['n']:,}", m["method"]) for name, m in measures.items()
    )
    return Table((what, figure, "95 % interval", "pairs", "method"), rows, (1, 2, 3))


def _measured(card: Mapping[str, Any]) -> Iterator[Block]:
    if not card["reports"]:
        yield "Not evaluated: no report in this workspace names it."
        return
    yield (
        "What it was measured on, report by report; each is found with: rlhf report show R. Of several on one thing the figures "
        "of the newest are told, and of those that were signed."
    )
    yield Table(
        ("report", "what", "judged by", "of these openings in its training"),
        tuple((one["report"][:12], one["title"], _judge(one), _seen(one)) for one in card["reports"]),
        (3,),
    )


def _newest(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The last report under each title, and those that were signed; card: its reports are in the order of time."""
    last = {one["title"]: one["report"] for one in card["reports"]}
    signed = {sign["report"] for sign in card["signoffs"]}
    return [one for one in card["reports"] if one["report"] == last[one["title"]] or one["report"] in signed]


def _judge(one: Mapping[str, Any]) -> str:
    if one["judge"] is None:
        return judge_of_card(one["labelers"]) if one["kind"] == "evaluation" else "–"
    return f"{one['judge']['kind']} {one['judge']['name']}" + (", which it was trained on" if one["flatters"] else "")


def _seen(one: Mapping[str, Any]) -> str:
    if one["kind"] not in ("evaluation", "comparison"):
        return "–"
    return "not known" if one["seen_openings"] is None else f"{one['seen_openings']:,}"


def _figures(card: Mapping[str, Any]) -> Iterator[Block]:
    figures = card["details"]["figures_at_publication"]
    if not card["reports"]:
        yield "At publication, by its own training (a quick look, to be replaced by a report):"
        yield (
            Facts(tuple((name.replace("_", " "), _value(value)) for name, value in figures.items()))
            if figures
            else "none"
        )
    for one in _newest(card):
        rows = tuple(_rows_of(one))
        if rows:
            yield _cautioned(f"{one['title']}, report {one['report']}", one)
            yield Table(("figure", "value", "95 % interval", "n", "method"), rows, (1, 2, 3))


def _cautioned(what: str, one: Mapping[str, Any]) -> str:
    """A table's line of introduction, with why its figures may be too good."""
    said = caution_of(one["split"], one["seen_openings"])
    return f"{what}. {said}" if said else f"{what}:"


def _rows_of(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    names = _COMPARED if one["kind"] == "comparison" else {key: (label, form) for key, label, form, _ in ROWS}
    for key, (label, form) in names.items():
        if (m := one["measures"].get(key)) is not None and m["value"] is not None:
            said = label.format(side=one["length_guess_side"])
            unit = ", %" if form.endswith("%") else ""
            yield f"{said}{unit}", number(m["value"], form), range_of(m, form), f"{m['n']:,}", m["method"]


def _ethics(card: Mapping[str, Any]) -> Iterator[Block]:
    yield _ETHICS
    gaps = [(one["report"][:12], one["worst_gap"]) for one in card["reports"] if one["worst_gap"] is not None]
    if gaps:
        said = (
            "The largest difference of accuracy between two groups is {} points (report {}, with its interval there)."
        )
        yield Bullets(tuple(said.format(percent(gap), report) for report, gap in gaps))


def _governance(card: Mapping[str, Any]) -> Iterator[Block]:
    yield f"Aliases on it now: {', '.join(card['aliases']) or 'none'}."
    if card["signoffs"]:
        rows = tuple((s["who"], s["role"], s["at"], s["report"][:12]) for s in card["signoffs"])
        yield Table(("signed by", "as", "at", "on report"), rows)
    else:
        yield "Nobody has signed it."
    if card["decisions"]:
        decided = tuple(
            (f"{one['decision']}", one["title"], one["who"], one["at"], "yes" if one["in_force"] else "no", one["why"])
            for one in card["decisions"]
        )
        yield Table(("decision", "what", "who", "at", "in force", "why"), decided, (0,))
    else:
        yield "Nothing was decided about it yet."


def _lineage(card: Mapping[str, Any]) -> Iterator[Block]:
    line = card["lineage"]
    items = [f"{one['relation']} of {one['of']}: {one['version']}, sha256:{one['digest']}" for one in line["ancestors"]]
    items += [
        f"{one['relation']} of {one['of']}: sha256:{one['digest']}, not in this workspace" for one in line["absent"]
    ]
    yield Bullets(tuple(items)) if items else "No version is recorded behind it: it stands on its base alone."
    if line["descendants"]:
        yield "What came of it:"
        yield Bullets(tuple(f"{one['version']} ({one['relation']})" for one in line["descendants"]))


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in sorted(values.items()))


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list):
        return "+".join(map(str, value)) or "none"
    return str(value)
