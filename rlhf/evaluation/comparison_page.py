"""A comparison as a page: who wins, how sure that is, what it may be owed to, and the replies side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rlhf.evaluation import judge_agreement, sequential_words
from rlhf.evaluation.charts import Chart, estimate_of, methods_of
from rlhf.evaluation.judges import Verdict
from rlhf.evaluation.page import signature
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.evaluation.side_by_side import N_SHOWN, NOTE, replies_beside
from rlhf.evaluation.win_strata import forest
from rlhf.evaluation.wording import lettered, n_of, number, percent, value_of
from rlhf.pages import Section, facts, page, plot_grid, plots, table
from rlhf.pages.page import basis, bullets, digest, headline, headline_text, small

_POINTS = 800
_SIMULATED = (
    "labelers: a reward here learnt from judgements that come from a program, not from people. The figures show that "
    "the method works; they say nothing about human preferences."
)
# figure -> what a reader calls it, how it is written, what it means
_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("win_rate", "Win rate", "%", "percent of the judged pairs; a tie, and two replies that are the same, count half"),
    ("length_controlled_win_rate", "Win rate at equal length", "%", "percent, fitted: see below"),
    ("win_rate_longer", "… where its reply is the longer", "%", "percent"),
    ("win_rate_shorter", "… where its reply is the shorter", "%", "percent"),
    ("mean_score", "Mean score", "+2", "by the judging reward; its zero means nothing"),
    ("mean_tokens", "Length, tokens", "1", "mean a reply"),
    ("mean_characters", "Length, characters", "1", "mean a reply"),
    ("cut_off", "Cut off", "%", "percent of the replies without an end in the tokens allowed"),
    ("repetition", "Repetition", "%", "percent of 4-grams that stood in the reply before"),
    ("refusal", "Refusals", "%", "percent of the replies that begin by declining, in English"),
    ("distinct_1", "Distinct words", "3", "over all replies; near 0 where they are all alike"),
    ("distinct_2", "Distinct bigrams", "3", "the same of pairs of words"),
    ("distinct_3", "Distinct trigrams", "3", "the same of three words"),
    ("kl", "KL to its base", "2", "nats a reply"),
    ("kl_per_token", "KL to its base", "3", "nats a token"),
    ("log_likelihood_base", "Fluency", "2", "log-likelihood under its base, nats a token; higher is plainer"),
)


def render(
    content: Mapping[str, Any],
    pairs: Sequence[ReplyPair],
    verdicts: Sequence[Verdict],
    training: Sequence[Section] = (),
) -> str:
    """The whole HTML page. content: what report.json holds. training: how both sides were trained."""
    a, _ = content["between"]
    f = content["versions"][a]["figures"]
    number_shown = "–" if f["win_rate"] is None else f"{percent(f['win_rate'])} %"
    lead = headline_text([_verdict(content)]) + headline(number_shown, _sentence(content), small=_small(content))
    sections = sequential_words.sections(content)
    sections += [
        Section("Who wins, and is it length?", plot_grid(_charts(content, pairs, verdicts)), _counts(content)),
        Section(
            "Side by side",
            _beside(content),
            (
                "95 % intervals in brackets where one may be read. "
                if "sequential" in content
                else "95 % intervals in brackets. "
            )
            + "The last column is paired: an interval that holds 0 shows no difference.",
        ),
        Section(
            "Replies",
            replies_beside(content, pairs, verdicts),
            f"The pairs that {a} loses and wins most clearly, up to {N_SHOWN} of each. They are extremes, not a sample. "
            f"{NOTE}",
        ),
        *training,
        Section("What this rests on", bullets(_assumptions(content))),
        Section("Identity", _identity(content)),
    ]
    signed = {name: v for name, v in content["versions"].items() if not v["is_base"]}
    sections.append(signature({"versions": signed, "digest": content["digest"]}))
    return page(
        content["title"],
        sections,
        kicker="Comparison report",
        lead=lead,
        simulated=_SIMULATED if content["simulated"] else "",
    )


def _verdict(content: Mapping[str, Any]) -> str:
    """The comparison's answer in a sentence."""
    a, b = content["between"]
    f = content["versions"][a]["figures"]
    by = judge_words(content["judge"])
    if "sequential" in content:
        return sequential_words.verdict(content, by)
    low, high = f["win_rate_low"], f["win_rate_high"]
    if low is None or low <= 0.5 <= high:
        return f"No difference shown between {a} and {b} by {by}."
    return f"{a} writes {'better' if low > 0.5 else 'worse'} replies than {b} by {by}."


def _sentence(content: Mapping[str, Any]) -> str:
    a, b = content["between"]
    f = content["versions"][a]["figures"]
    if f["win_rate"] is None:
        return f"{a} and {b} can't be compared: no pair was judged."
    kind, level = "always-valid " if "sequential" in content else "", f["measures"]["win_rate"]["level"]
    interval = "no interval can be formed"
    if level is not None:
        interval = f"{kind}{level * 100:g} % interval {percent(f['win_rate_low'])} to {percent(f['win_rate_high'])}"
    return (
        f"{a} wins {percent(f['win_rate'])} % of {f['n']:,} pairs of replies against {b} ({interval}): "
        f"{f['n_wins']:,} won, {f['n_losses']:,} lost, {f['n'] - f['n_wins'] - f['n_losses']:,} even."
    )


def _small(content: Mapping[str, Any]) -> str:
    f = content["versions"][content["between"][0]]["figures"]
    if f["length_controlled_win_rate"] is None:
        said = f"No win rate at equal length: {f['length_controlled_why']}."
    else:
        said = f"At equal length: {_value(f['measures']['length_controlled_win_rate'], '%')} %."
    believed = judge_agreement.in_words(content["judge"])
    return " ".join((*([believed] if believed else []), said, *_flattered(content)))


def _flattered(content: Mapping[str, Any]) -> Iterator[str]:
    judge = content["judge"]
    if judge["flatters"]:
        yield (
            f"Caution: {' and '.join(judge['flatters'])} {'was' if len(judge['flatters']) == 1 else 'were'} trained on "
            f"{judge['name']}, and a policy judged by the reward that it was trained on is flattered."
        )


def judge_words(judge: Mapping[str, Any]) -> str:
    words = {
        "reward": f"the reward {judge['name']}",
        "rule": f"the rule '{judge['name']}'",
        "people": "people's judgement",
    }
    return words[judge["kind"]]


def _counts(content: Mapping[str, Any]) -> str:
    f = content["versions"][content["between"][0]]["figures"]
    asked = content["prompts"]
    parts = [f"{f['n_prompts']:,} prompts" + (f" of {asked['n_given']:,}" if asked["n_given"] > asked["n"] else "")]
    parts += [f"{f['n_judged']:,} pairs judged"] if "n_judged" in f else []
    parts += [
        said.format(f[key])
        for key, said in (
            ("n_identical", "{:,} pairs of identical replies (ties)"),
            ("n_coins", "{:,} that the judge could not judge (each counts as a coin)"),
            ("n_not_judged", "{:,} not judged yet (left out of the win rates)"),
        )
        if f[key]
    ]
    return (
        "; ".join(parts) + f". They come from {f['n_groups']:,} different opening turns, which are what is resampled."
    )


def _charts(content: Mapping[str, Any], pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict]) -> Iterator[Chart]:
    a, b = content["between"]
    of_a, of_b = (content["versions"][name]["figures"]["measures"] for name in (a, b))
    if (rates := forest(a, content["versions"][a]["figures"])) is not None:
        yield rates
    points = [
        (p.length_difference, v.difference) for p, v in zip(pairs, verdicts, strict=True) if v.difference is not None
    ]
    if points and content["judge"]["kind"] != "people":
        x, y = zip(*points[:_POINTS], strict=True)
        axis = f"characters, {_brief(a)} − {_brief(b)}"
        drawn = plots.scatter("difference", x, y, x_label=axis, y_label=f"points for {_brief(a)}")
        note = (
            f"{min(len(points), _POINTS):,} of {len(points):,} pairs are drawn; above the line {a} is preferred. "
            f"{basis(len(points), 'scored pairs')}"
        )
        yield "Preference against length", drawn, note
        return
    lengths = [estimate_of(name, m["mean_tokens"]) for name, m in ((a, of_a), (b, of_b))]
    drawn = plots.dots("lengths", lengths, reference=None, label="tokens a reply, mean", percent=False)
    note = f"At most {content['sampling']['max_new_tokens']:,} tokens were allowed. "
    yield "Length", drawn, note + methods_of([of_a["mean_tokens"], of_b["mean_tokens"]])


def _beside(content: Mapping[str, Any]) -> Markup:
    a, b = content["between"]
    of_a, of_b = (content["versions"][name]["figures"]["measures"] for name in (a, b))
    between = content["differences"][0]
    rows: list[tuple[str | Markup, ...]] = []
    marks = lettered(of_a[key]["method"] for key, *_ in _ROWS if key in of_a)
    for key, label, form, meaning in _ROWS:
        if key in of_a:
            said = Markup('{}<br><span class="unit">{}</span>').format(label, meaning)
            gap = value_of(between[key], f"+{form}") if key in between else "–"
            two = (_value(of_a[key], form), _value(of_b[key], form))
            rows.append((said, *two, gap, n_of((of_a[key], of_b[key])), marks[of_a[key]["method"]]))
    notes = Markup("<br>").join(f"{mark}: {method}" for method, mark in marks.items())
    head = ("figure", a, b, f"{a} − {b}", "n", "method")
    return table(head, rows, numeric=(1, 2, 3, 4), wide=True) + small(notes)


def _value(measure: Mapping[str, Any], form: str) -> str:
    return number(measure["value"], form) if measure["low"] is None else value_of(measure, form)


def _assumptions(content: Mapping[str, Any]) -> Iterator[str]:
    """What the figures rest on, and where they end."""
    judge, sampling, method = content["judge"], content["sampling"], content["method"]
    a = content["between"][0]
    f = content["versions"][a]["figures"]
    yield {
        "reward": f"Judged by {judge['name']}, a learnt reward: the figures say what it prefers, which is a guess at what "
        "people do.",
        "rule": f"Judged by the rule '{judge['name']}', a program: the figures are as good as the rule.",
        "people": f"Judged by people: {judge.get('n_judgements', 0):,} judgements of {judge.get('n_labelers', 0):,} named "
        "labelers, who did not see which version wrote what; the majority decides a pair.",
    }[judge["kind"]]
    if believed := judge_agreement.in_words(judge):
        yield believed + (f" {judge['agreement']['method']}." if judge["agreement"]["n"] else "")
    yield from _flattered(content)
    yield from sequential_words.assumption(content)
    yield (
        f"Each side wrote one reply a prompt, at most {sampling['max_new_tokens']:,} tokens at temperature "
        f"{sampling['temperature']:g}, top-p {sampling['top_p']:g}, both with seed {sampling['seed']}. Other samples would "
        "give other wins; the intervals cover that together with which prompts were drawn."
    )
    yield f"Win rate: {method['win_rate']}. Intervals: {method['intervals']}; seed {content['seed']}."
    yield f"Win rate at equal length: {method['length_controlled_win_rate']}." + (
        f" Not given here: {f['length_controlled_why']}." if f["length_controlled_why"] else ""
    )
    tempered = sampling["temperature"] != 1 or sampling["top_p"] != 1
    yield f"KL: {method['kl']}." + (
        " The replies were sampled below temperature 1 or top-p 1, so it is the divergence seen in these replies, not "
        "that of the whole distribution." if tempered else ""
    )  # fmt: skip
    if not content["same_base"]:
        yield (
            "The two stand on different bases: tokens, KL and fluency are each side's own, against its own base, and "
            "can't be compared with each other."
        )
    for name, version in content["versions"].items():
        yield _seen(name, version, f["n_groups"])


def _seen(name: str, version: Mapping[str, Any], n_groups: int) -> str:
    if version["is_base"]:
        return f"{name} is the bare base. What it read in its own training is unknown; it may have met these prompts."
    if version["seen_openings"] is None:
        return (
            f"{name}: not all that it was trained on can be looked into here (a snapshot that is elsewhere, or prompts of a file), "
            "so it may have met these prompts."
        )
    if version["seen_openings"]:
        return (
            f"Caution: {version['seen_openings']:,} of the {n_groups:,} opening turns stand in the train side behind "
            f"{name}: it may have been trained on them."
        )
    return f"None of these opening turns stands in the train side of a snapshot behind {name}."


def _identity(content: Mapping[str, Any]) -> Markup:
    judge, asked, sampling = content["judge"], content["prompts"], content["sampling"]
    rows: list[tuple[str, str | Markup]] = [("Report", digest(content["digest"]))]
    for name, v in content["versions"].items():
        what = "Bare base" if v["is_base"] else "Version"
        rows.append((what, Markup("<strong>{}</strong> {}").format(name, digest(v["digest"]))))
        if not v["is_base"]:
            rows.append(("on base", Markup("{} {}").format(v["base"], digest(v["base_digest"]))))
            rows.append(("trained on reward", ", ".join(v["rewards"]) or "none"))
    name = side_in_words(asked["snapshot"]) if asked["snapshot"] else "given"
    rows += [
        ("Judge", Markup("{} <strong>{}</strong> {}").format(judge["kind"], judge["name"], digest(judge["digest"]))),
        ("Prompts", Markup("{:,}, {} {}").format(asked["n"], name, digest(asked["digest"]))),
        ("Sampling", ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in sampling.items())),
        ("Seed", str(content["seed"])),
    ]
    return facts(rows)


def _brief(name: str) -> str:
    """For an axis: a long name would push the rest off it."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def side_in_words(name: str) -> str:
    """Where a comparison's prompts are from: a snapshot's test side, or a suite."""
    return f"suite {name.removeprefix('suite:')}" if name.startswith("suite:") else f"the test side of {name}"
