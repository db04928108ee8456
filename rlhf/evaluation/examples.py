"""The pairs that a version is surest of, right and wrong, as escaped text."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rlhf.evaluation.judged_by import the_better
from rlhf.evaluation.scored import ScoredPair
from rlhf.evaluation.wording import number
from rlhf.measures.ranking import p_better

N_SHOWN = 5
_EXAMPLE = Markup(
    '<article class="example" data-pair="{id}">'
    '<p class="meta">score difference <strong>{margin}</strong>, P(preferred is better) <strong>{p}</strong> · {source} · '
    "{chosen_length:,} and {rejected_length:,} characters · pair {short}</p>"
    '<blockquote dir="auto"><span class="who">prompt</span>{prompt}</blockquote>'
    '<blockquote class="chosen" dir="auto"><span class="who">{the_better}, score {score_chosen}</span>'
    "{chosen}</blockquote>"
    '<blockquote class="rejected" dir="auto"><span class="who">the other, score {score_rejected}</span>'
    "{rejected}</blockquote></article>\n"
)


def surest(scored: Sequence[ScoredPair], n: int = N_SHOWN) -> tuple[list[ScoredPair], list[ScoredPair]]:
    """The n most confident right and the n most confident wrong decided pairs, the surest first."""
    ranked = sorted((p for p in scored if p.margin and not p.is_tie), key=lambda p: (-abs(p.margin or 0.0), p.pair_id))
    return [p for p in ranked if (p.margin or 0.0) > 0][:n], [p for p in ranked if (p.margin or 0.0) < 0][:n]


def examples(scored: Sequence[ScoredPair], labelers: Sequence[str]) -> Markup:
    """Both lists, each pair with its prompt's end and its replies' beginnings."""
    right, wrong = surest(scored)
    return Markup("<h3>Surest and wrong</h3>\n{}<h3>Surest and right</h3>\n{}").format(
        _listed(wrong, labelers), _listed(right, labelers)
    )


def _listed(pairs: Sequence[ScoredPair], labelers: Sequence[str]) -> Markup:
    if not pairs:
        return Markup("<p>None.</p>\n")
    return Markup("").join(
        _EXAMPLE.format(
            id=p.pair_id,
            short=p.pair_id[:12],
            margin=number(p.margin, "+2"),
            p=number(p_better(p.margin or 0.0, 0.0), "2"),
            source=p.source or "source not named",
            chosen_length=p.chosen_length,
            rejected_length=p.rejected_length,
            the_better=the_better(labelers),
            prompt=p.prompt,
            chosen=p.chosen,
            rejected=p.rejected,
            score_chosen=number(p.score_chosen, "2"),
            score_rejected=number(p.score_rejected, "2"),
        )
        for p in pairs
    )
