"""A comparison that stops when it is decided, in words: where it stopped, after how many looks, and which interval may be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.evaluation.wording import percent
from rlhf.pages import Section, plot_grid, plots, table
from rlhf.pages.page import basis


def verdict(content: Mapping[str, Any], by: str) -> str:
    """The answer in a sentence. by: who judged."""
    (a, b), s = content["between"], content["sequential"]
    points = f"{percent(s['margin'])} points of the win rate"
    over = "" if s["margin"] == 0 else f" by more than {points}"
    after = f"decided after {s['n_units']:,} opening turns, at look {len(s['looks'])}"
    if s["decision"] == "neither":
        return f"{a} and {b} differ by no more than {points} by {by}: {after}."
    if s["decision"] is None:
        n = f"{s['n_units']:,} of {s['n_available']:,} opening turns"
        return f"Not decided after {n}: whether {a} or {b} writes better{over} by {by} is open."
    better = "better" if s["decision"] == "a" else "worse"
    return f"{a} writes {better} replies than {b}{over} by {by}: {after}."


def planned(s: Mapping[str, Any]) -> str:
    """The sample size of the stated effect, for before the start and for the page. s: as in report.json."""
    beyond = "" if s["margin"] == 0 else f", {percent(s['effect'] - s['margin'])} points beyond the margin,"
    fixed, looks = s["planned"]["fixed"], s["planned"]["looks"]
    return (
        f"a win rate of {percent(0.5 + s['effect'])} %{beyond} is found with a chance of 80 % by {fixed:,} opening turns "
        f"of a fixed number, and by about {looks:,} where each batch is looked at"
    )


def assumption(content: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of the interval; nothing for a comparison of a fixed number."""
    if (s := content.get("sequential")) is None:
        return
    yield (
        f"It stopped when it was decided, or where the prompts ended: looked at after every {s['batch']:,} opening turns, "
        f"{len(s['looks']):,} looks in all, margin {percent(s['margin'])} points, alpha {s['alpha']:g}. The win rate is the "
        f"mean over opening turns and its interval is {s['method']}: it holds the truth at all looks at once with a chance "
        f"of {(1 - s['alpha']) * 100:g} %. An interval for a fixed number of prompts would be too narrow here and is not to "
        "be read, so none is given; the win rates at equal length and by length have none for the same reason."
    )
    yield f"Planned: {planned(s)}."


def sections(content: Mapping[str, Any]) -> list[Section]:
    """The interval at each look, as a plot and a table; nothing for a comparison of a fixed number."""
    s = content.get("sequential")
    if s is None or not s["looks"]:
        return []
    looks = s["looks"]
    x = [look["n_units"] for look in looks]
    lines = [
        plots.Line("win rate", x, [look["win_rate"] * 100 for look in looks]),
        plots.Line("interval, low", x, [look["low"] * 100 for look in looks], faint=True),
        plots.Line("interval, high", x, [look["high"] * 100 for look in looks], faint=True),
    ]
    label = f"won by {content['between'][0]}, %"
    drawn = plots.curves("looks", lines, x_label="opening turns judged", y_label=label, reference=50.0)
    rows = [_row(look) for look in looks]
    heads = ("opening turns", "pairs", "win rate, %", "always-valid interval, %")
    resting = basis(looks[-1]["n_units"], "opening turns", method=s["method"])
    shown = f"Dashed: a coin. The interval holds at all looks at once. {resting}"
    grid = plot_grid([("Win rate so far", drawn, shown)])
    return [Section("Look by look", grid + table(heads, rows, numeric=(0, 1, 2, 3)), f"Planned: {planned(s)}.")]


def _row(look: Mapping[str, Any]) -> tuple[str, str, str, str]:
    interval = f"{percent(look['low'])} to {percent(look['high'])}"
    return f"{look['n_units']:,}", f"{look['n_pairs']:,}", percent(look["win_rate"]), interval
