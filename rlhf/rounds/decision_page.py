"""The decision as a page: what was decided first, then the figures with sizes and intervals, then what it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from rlhf.pages.page import Section, bullets, digest, facts, headline_text, page, table
from rlhf.registry.gate_rules import WORD_OF
from rlhf.rounds.outcome import said

_SIMULATED = "labelers: judgements behind these figures come from a program, not from people."


def render(content: Mapping[str, Any]) -> str:
    """The whole HTML page. content: what report.json holds."""
    return page(
        content["title"],
        list(_sections(content)),
        kicker=f"decision of {content['actor']}",
        lead=headline_text(f"{said(verdict)}." for verdict in content["verdicts"]),
        simulated=_SIMULATED if content["simulated"] else "",
    )


def _sections(content: Mapping[str, Any]) -> Iterator[Section]:
    if content["needed"]:
        yield Section("What is needed", bullets(content["needed"]))
    if "rewards" in content:
        yield Section(
            "The reward",
            _rewards(content["rewards"]),
            "Accuracy on held-out pairs. The frozen suite is the same in every round: a fall there is what was forgotten.",
        )
    if content.get("policies"):
        yield Section(
            "The policy",
            _policies(content["policies"]),
            "Replies to the same held-out prompts: of the newest test side, or of the snapshot that the gate names.",
        )
    yield Section("What the gates found", _gates(content["verdicts"]))
    yield Section("What it stands on", _stands_on(content))


def _rewards(rewards: Mapping[str, Any]) -> Markup:
    rows: list[list[str | Markup]] = []
    for side, measured in rewards.items():
        for name, f in measured["figures"].items():
            value = _with_interval(f["accuracy"], f["accuracy_low"], f["accuracy_high"])
            rows.append([f"{side} ({measured['snapshot']})", name, str(f["n_decided"]), value])
        change = measured["change"]
        if change is not None:
            value = _with_interval(change["value"], change["low"], change["high"], sign="+")
            rows.append([f"{side} ({measured['snapshot']})", "new minus champion", str(change["n"]), value])
    return table(("suite", "version", "pairs", "accuracy (95 % interval)"), rows, numeric=(2, 3), wide=True)


def _policies(policies: list[Mapping[str, Any]]) -> Markup:
    rows: list[list[str | Markup]] = []
    for compared in policies:
        judge = compared["judge"]
        flattered = f", which trained {', '.join(judge['flatters'])}" if judge["flatters"] else ""
        for name, f in compared["figures"].items():
            won = _with_interval(f["win_rate"], f["win_rate_low"], f["win_rate_high"])
            kl = "–" if f["kl"] is None else f"{f['kl']:.2f}"
            rows.append([name, str(f["n"]), won, kl, f"{f['mean_tokens']:.1f}", f"{judge['name']}{flattered}"])
    head = ("writer", "prompts", "win rate (95 % interval)", "KL, nats a reply", "tokens", "judged by")
    return table(head, rows, numeric=(1, 2, 3, 4), wide=True)


def _gates(verdicts: list[Mapping[str, Any]]) -> Markup:
    rows: list[list[str | Markup]] = []
    for verdict in verdicts:
        gate = verdict["gate"]
        figures = "; ".join(_rule(f) for f in gate.get("figures", ())) or ("–" if gate else "no gate")
        signed = ", ".join(f"{s['role']}: {s['who']}" for s in gate.get("signoffs", ())) or "–"
        rows.append([verdict["alias"], verdict["candidate"], figures, signed, "; ".join(verdict["reasons"]) or "–"])
    return table(("alias", "candidate", "figures", "signed by", "not met"), rows, wide=True)


def _rule(figure: Mapping[str, Any]) -> str:
    bounds = [f"{words} {figure[name]:g}" for name, words in WORD_OF.items() if figure.get(name) is not None]
    value = "none" if figure.get("value") is None else f"{figure['value']:.3f}"
    return f"{figure['figure']} {value} (wanted {' and '.join(bounds)}; n = {figure.get('n')})"


def _stands_on(content: Mapping[str, Any]) -> Markup:
    snapshot = content["snapshot"]
    entries: list[tuple[str, str | Markup]] = [
        ("round", content["round"]["id"]),
        ("snapshot", f"{snapshot['name']}"),
        ("its digest", digest(snapshot["digest"])),
        ("frozen suite", snapshot["frozen"]),
        ("its digest", digest(snapshot["frozen_digest"])),
        *((v["candidate"], digest(v["digest"])) for v in content["verdicts"]),
    ]
    if "settles" in content:
        entries.append(("settles the decision", digest(content["settles"])))
    if "trained_on" in content:
        new = content["judgements"]
        entries.append(("why now", f"{new.get('new')} new judgements since {new.get('since') or 'the beginning'}"))
        entries.append(("trained on", f"{content['trained_on']['snapshot']}: {content['trained_on']['why']}"))
        entries += [(f"run of the {role}", run) for role, run in content["round"]["runs"].items()]
        entries.append(("phase", f"{content['phase']['phase']}: {content['phase']['why']}"))
        entries.append(("asked people about", f"{content['asked']['pairs']} reply pairs"))
        entries += [(f"report on {side}", digest(m["report"])) for side, m in content["rewards"].items()]
        entries += [(f"comparison with {c['other']}", digest(c["report"])) for c in content["policies"]]
    entries += [(f"to take {v['candidate']} back", _back(v)) for v in content["verdicts"] if v["outcome"] == "promoted"]
    return facts(entries)


def _back(verdict: Mapping[str, Any]) -> Markup:
    return Markup("<code>rlhf alias rollback {} --why TEXT</code>").format(verdict["alias"])


def _with_interval(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.3f}" + (" (no interval)" if low is None else f" ({low:{sign}.3f} to {high:{sign}.3f})")
