"""The datasheet of a snapshot (after Gebru et al. 2021, "Datasheets for Datasets"), written from its manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from rlhf.snapshots.tally import LEFT_OUT
from rlhf.store.tables import imports

_MOTIVATION = (
    "Pairwise preferences to train and evaluate reward models. Each row is a prompt, two replies and what labelers "
    "said about them. How judgements become training targets is a setting of each training, not of this snapshot."
)
_CONSENT = (
    "A pair on the training side holds judgements that may be trained on, a held-out pair such that may be used to "
    "evaluate; the others were left out."
)
_TEXTS = (
    "- Texts are as their sources gave them and may offend, err or repeat; `rlhf snapshot check` counts leaks, "
    "contradictions and near-duplicates."
)


def masked_counts(connection: Connection, sources: tuple[str, ...]) -> dict[str, int]:
    """Personal data that was replaced when these sources were imported, by kind: all their imports together."""
    masked: Counter[str] = Counter()
    for details in connection.execute(select(imports.c.details).where(imports.c.source.in_(sources))).scalars():
        masked.update(json.loads(details).get("masked") or {})
    return {kind: masked[kind] for kind in sorted(masked)}


def card_text(manifest: Mapping[str, Any], cut_at: str) -> str:
    """Markdown. Data of simulated labelers is marked as such in the first lines."""
    consents = {scopes or "(none)": n for scopes, n in manifest["consents"].items()}
    sections = {
        "Motivation": _MOTIVATION,
        "Composition": _composition(manifest),
        "Sources": _table("source", "pairs", manifest["sources"]),
        "Labelers and agreement": _labelers(manifest),
        "Consent": _table("scopes", "judgements", consents) + "\n\n" + _CONSENT,
        "Sides": _sides(manifest["rule"]) + _mixed(manifest["rule"].get("mix")),
        "Left out": _left_out(manifest["left_out"]),
        "Anonymisation": _anonymisation(manifest["masked"]),
        "Known limits": _limits(manifest),
    }
    return _head(manifest, cut_at) + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())


def _head(manifest: Mapping[str, Any], cut_at: str) -> str:
    splits, n = manifest["splits"], manifest["judgements"]
    lines = [f"# Datasheet of the snapshot {manifest['name']}@{manifest['number']}", ""]
    if simulated := manifest["kinds"].get("simulated", 0):
        share = f"all {n:,}" if simulated == n else f"{simulated:,} of {n:,}"
        lines += [f"**SIMULATED: {share} judgements come from simulated labelers, not from people.**", ""]
    lines += [
        f"{manifest['pairs']:,} pairs, {n:,} judgements; {splits['train']:,} pairs to train on, {splits['test']:,} held"
        " out.",
        "",
        f"Digest `sha256:{manifest['digest']}`, cut {cut_at}.",
    ]
    return "\n".join(lines) + "\n"


def _composition(manifest: Mapping[str, Any]) -> str:
    kinds = _table("kind", "judgements", manifest["kinds"])
    choices = _table("choice", "judgements", manifest["choices"])
    votes = _table("votes on a pair", "pairs", manifest["votes_per_pair"])
    messages = _table("messages in the prompt", "pairs", manifest["prompt_messages"])
    note = "`a` is the reply with the smaller digest: which side a reply is on tells nothing about it."
    return "\n\n".join((kinds, choices, votes, messages, note))


def _labelers(manifest: Mapping[str, Any]) -> str:
    labelers, agreement = manifest["labelers"], manifest["agreement"]
    known, unknown = labelers["known"], labelers["judgements_of_unknown"]
    lines = [f"{known:,} labelers are known by pseudonym; {unknown:,} judgements come from unknown labelers."]
    if manifest["cohorts"]:
        lines.append(_table("cohort", "judgements", manifest["cohorts"]))
    alpha, n = agreement["krippendorff_alpha"], agreement["pairs"]
    if alpha is not None:
        lines.append(f"Krippendorff's alpha (nominal) is {alpha:.3f} over {n:,} pairs with two or more votes.")
    elif n:
        lines.append(f"Agreement is undefined: the {n:,} pairs with two or more votes hold one choice only.")
    else:
        lines.append("Agreement is unknown: no pair has two votes.")
    if not manifest["guidelines"]:
        lines.append("No judgement names the guideline that its labeler was shown.")
    return "\n\n".join(lines)


def _sides(rule: Mapping[str, Any]) -> str:
    return (
        f"A pair is held out where the hash of (seed {rule['seed']}, group) falls below {rule['holdout']}. Its "
        "group is the conversation's first user turn, case and space folded: no opening turn is on both sides, and a "
        "later cut with this seed and holdout moves no row."
    )


def _mixed(mix: Mapping[str, Any] | None) -> str:
    if mix is None:
        return ""
    return (
        f"\n\nA mix of {mix['of']}: its {mix['new']:,} new train pairs, {mix['replayed']:,} of the {mix['old']:,} that the "
        f"snapshots {', '.join(mix['seen'])} hold on their train sides too ({mix['replay']:g} for each new one, drawn by a "
        f"hash with seed {mix['seed']}), and its whole test side."
    )


def _left_out(left_out: Mapping[str, int]) -> str:
    lines = [f"- {left_out[reason]:,} {meaning}" for reason, meaning in LEFT_OUT.items() if left_out[reason]]
    return "\n".join(lines) or "Nothing."


def _anonymisation(masked: Mapping[str, int]) -> str:
    counted = ", ".join(f"{n:,} {kind}" for kind, n in masked.items()) or "nothing"
    return (
        f"The imports of these sources replaced by pattern: {counted}. Names, and whatever else patterns can't find, "
        "may remain in the texts."
    )


def _limits(manifest: Mapping[str, Any]) -> str:
    lines = [_TEXTS]
    if manifest["splits"]["test"] < 100:
        lines.append(f"- {manifest['splits']['test']} held-out pairs give wide intervals.")
    if manifest["agreement"]["pairs"] == 0:
        lines.append("- With one vote a pair, label noise can't be told from difficulty.")
    if not manifest["cohorts"]:
        lines.append("- Nothing is recorded about who the labelers are; fairness over cohorts can't be measured.")
    return "\n".join(lines)


def _table(head: str, count: str, counts: Mapping[str, int]) -> str:
    """A name is the source's own text: what would break out of its cell is escaped."""
    rows = []
    for key, n in counts.items():
        name = " ".join(key.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| {name} | {n:,} |")
    return "\n".join([f"| {head} | {count} |", "|---|---:|", *rows])
