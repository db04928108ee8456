"""The replies of a comparison side by side: the pairs that a side loses and wins most clearly, with the differing words marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from rlhf.evaluation.judges import Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.evaluation.scored import beginning, ending
from rlhf.evaluation.wording import number
from rlhf.pages.marked import differences
from rlhf.pages.page import folded

N_SHOWN = 20  # of the losses, and of the wins
NOTE = (
    "Underlined, in del and ins for screen readers: words that the other reply doesn't have, where the two share enough words for "
    "marks to tell anything."
)
_REPLY = Markup(
    '<article class="example" data-pair="{id}"><p class="meta">{said} · prompt {prompt_id}</p>'
    '<blockquote dir="auto"><span class="who">prompt</span>{prompt}</blockquote>'
    '<div class="beside">{a}{b}</div></article>\n'
)
_ONE = Markup('<blockquote{marked} dir="auto"><span class="who">{who}</span>{text}</blockquote>')


def replies_beside(content: Mapping[str, Any], pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict]) -> Markup:
    a, _ = content["between"]
    both = list(zip(pairs, verdicts, strict=True))
    found = Markup("")
    for win, word in ((0.0, "loses"), (1.0, "wins")):
        chosen = [(p, v) for p, v in both if v.win == win]
        chosen.sort(key=lambda one: (-abs(one[1].difference or 0.0), one[0].pair.id))
        shown = chosen[:N_SHOWN]
        listed = Markup("").join(_reply(content, pair, verdict) for pair, verdict in shown)
        title = f"{a} {word}: {len(shown):,} of {len(chosen):,} pairs (replies are a model's, unchecked)"
        found += folded(title, listed) if shown else Markup("<p>{}</p>\n").format(f"{a} {word} no pair.")
    return found


def _reply(content: Mapping[str, Any], pair: ReplyPair, verdict: Verdict) -> Markup:
    a, b = content["between"]
    said = f"{a if verdict.win == 1 else b} is better"
    if verdict.difference is not None:
        said += f" by {number(abs(verdict.difference), '2')} points"
    if verdict.p_a is not None:
        said += f" (P = {number(max(verdict.p_a, 1 - verdict.p_a), '2')})"
    texts = beginning(pair.a.text) or "(nothing)", beginning(pair.b.text) or "(nothing)"
    shown = differences(*texts) or tuple(map(escape, texts))
    one = [
        _ONE.format(
            marked=Markup(' class="{}"').format("chosen" if won else "rejected"),
            who=f"{name}{' · better' if won else ''} · {reply.n_tokens:,} tokens"
            + (", cut off" if reply.cut_off else "")
            + (f" · score {number(score, '2')}" if score is not None else ""),
            text=text,
        )
        for name, reply, score, won, text in (
            (a, pair.a, verdict.score_a, verdict.win == 1, shown[0]),
            (b, pair.b, verdict.score_b, verdict.win == 0, shown[1]),
        )
    ]
    prompt = ending(pair.prompt.messages)
    return _REPLY.format(id=pair.pair.id, said=said, prompt_id=pair.prompt.id[:12], prompt=prompt, a=one[0], b=one[1])
