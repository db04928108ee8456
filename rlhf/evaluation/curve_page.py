"""An over-optimisation curve as a page: does the truth follow the proxy, from where on not, and who says what is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from rlhf.evaluation import judge_agreement
from rlhf.evaluation.charts import Chart
from rlhf.evaluation.comparison_page import judge_words, side_in_words
from rlhf.evaluation.wording import number, percent, value_of
from rlhf.pages import Section, facts, page, plot_grid, table
from rlhf.pages.page import bullets, digest, headline, headline_text
from rlhf.pages.trade_off import Curve, trade_off

_SIMULATED = (
    "labelers: a reward here learnt from judgements that come from a program, not from people. The curves show that the "
    "method works; they say nothing about human preferences."
)
_START = {
    "checkpoints": "the run's own reply to the same prompt at its first measurement, drawn with the same chance",
    "versions": "the bare base's reply to the same prompt",
    "best of n": "one more reply to the same prompt by the same policy",
}


def render(content: Mapping[str, Any]) -> str:
    """The whole HTML page. content: what report.json holds."""
    last = content["points"][-1]
    lead = headline_text([verdict(content)])
    lead += headline(f"{percent(last['truth']['value'])} %", _sentence(content), small=" ".join(_believed(content)))
    sections = [
        Section("Proxy and truth", plot_grid(_charts(content)), _note(content)),
        Section("Points", _points(content), "95 % intervals in brackets, over opening turns."),
        Section("What this rests on", bullets(_assumptions(content))),
        Section("Identity", _identity(content)),
    ]
    simulated = _SIMULATED if content["simulated"] else ""
    return page(content["title"], sections, kicker="Over-optimisation report", lead=lead, simulated=simulated)


def verdict(content: Mapping[str, Any]) -> str:
    """Whether the truth was seen to fall while the proxy rose, in a sentence."""
    proxy, by = content["proxy"]["name"], judge_words(content["judge"])
    fell = content["fall"]
    if fell is None:
        return f"No fall shown: nowhere along the curve is the true win rate, by {by}, lower than before while {proxy} says better."
    return (
        f"Over-optimised from {fell['at']} on: since {fell['from']} {proxy} rose by {number(fell['proxy'], '+%')} points while "
        f"the true win rate, by {by}, fell by {percent(-fell['truth'])} ({percent(-fell['high'])} to {percent(-fell['low'])})."
    )


def _sentence(content: Mapping[str, Any]) -> str:
    last = content["points"][-1]
    return (
        f"of the replies at {last['name']} are truly better than where it began, by {judge_words(content['judge'])}; by the "
        f"proxy {content['proxy']['name']} it is {value_of(last['proxy'], '%')} %."
    )


def _believed(content: Mapping[str, Any]) -> Iterator[str]:
    """Before either judge is believed: how far each agrees with people."""
    for who in (content["judge"], content["proxy"]):
        if said := judge_agreement.in_words(who):
            yield said


def _note(content: Mapping[str, Any]) -> str:
    n = f"{content['n_replies']:,} replies a point to {content['n_groups']:,} opening turns"
    return f"Win rates over {_START[content['of']]}: where it began both are 50 %. {n}. A ring is the best point before a fall."


def _charts(content: Mapping[str, Any]) -> Iterator[Chart]:
    points, of_n = content["points"], content["of"] == "best of n"
    names = [point["name"] for point in points]
    marked = None if content["fall"] is None else names.index(content["fall"]["from"])
    proxy, truth = (_curve(content, key) for key in ("proxy", "judge"))
    bound = "at most, from what was sampled" if of_n else "of its own replies"
    axes = [
        ("root-kl", "Over the root of KL", [p["sqrt_kl"] for p in points], "√KL, √nats a reply"),
        ("kl", "Over KL", [p["kl"]["value"] for p in points], "KL, nats a reply"),
    ]
    if of_n:
        axes[1] = ("n", "Over n", [float(k) for k in range(len(points))], "doublings of n")
    for slug, title, x, label in axes:
        drawn = trade_off(
            slug, x, proxy, truth, x_label=label, y_label="win rate, %", reference=50.0, marked=marked
        )  # fmt: skip
        yield title, drawn, f"Dashed squares: the proxy; solid dots: the truth. KL {bound}."


def _curve(content: Mapping[str, Any], who: str) -> Curve:
    key = "truth" if who == "judge" else "proxy"
    measures = [point[key] for point in content["points"]]
    scaled = {
        end: [None if m[end] is None else m[end] * 100 for m in measures] for end in ("value", "low", "high")
    }  # fmt: skip
    return Curve(f"{key}: {content[who]['name']}", scaled["value"], scaled["low"], scaled["high"])  # type: ignore[arg-type]


def _points(content: Mapping[str, Any]) -> Markup:
    rows = [
        (
            p["name"],
            number(p["kl"]["value"], "2") if p["kl"]["low"] is None else value_of(p["kl"], "2"),
            number(p["sqrt_kl"], "2"),
            value_of(p["proxy"], "%"),
            value_of(p["truth"], "%"),
        )
        for p in content["points"]
    ]
    heads = ("point", "KL, nats a reply", "√KL", "proxy win rate, %", "true win rate, %")
    return table(heads, rows, numeric=(1, 2, 3, 4), wide=True)


def _assumptions(content: Mapping[str, Any]) -> Iterator[str]:
    method, judge = content["method"], content["judge"]
    yield (
        f"What is called true is what {judge_words(judge)} says: another opinion, as good as its agreement with people."
        if judge["kind"] != "people"
        else f"True is what people said: {judge.get('n_judgements', 0):,} judgements of {judge.get('n_labelers', 0):,} named "
        "labelers, who did not see what wrote which."
    )
    yield f"Win rates: {method['win_rate']}; seed {content['seed']}."
    yield f"KL: {method['best_of_n'] if content['of'] == 'best of n' else method['kl']}."
    yield f"A fall: {method['fall']}. Where none is shown there may be one that these prompts are too few to show."


def _identity(content: Mapping[str, Any]) -> Markup:
    rows: list[tuple[str, str | Markup]] = [("Report", digest(content["digest"])), ("Curve of", content["what"])]
    for name, version in content["versions"].items():
        rows.append(("Version", Markup("<strong>{}</strong> {}").format(name, digest(version["digest"]))))
    for what, who in (("Proxy", content["proxy"]), ("Truth", content["judge"])):
        rows.append((what, Markup("{} <strong>{}</strong> {}").format(who["kind"], who["name"], digest(who["digest"]))))
    asked = content["prompts"]
    named = side_in_words(asked["snapshot"]) if asked["snapshot"] else "given" if content["sampling"] else "the watch's"
    rows.append(("Prompts", Markup("{:,}, {} {}").format(asked["n"], named, digest(asked["digest"]))))
    if content["sampling"]:
        said = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in content["sampling"].items())
        rows.append(("Sampling", said))
    rows.append(("Seed", str(content["seed"])))
    return facts(rows)
