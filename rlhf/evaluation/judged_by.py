"""Who said which reply is the better, in words: labelers of some kind, whoever wrote the templates, or a file that names nobody.

`labelers`: as a report's JSON has them, kinds of judgements, TEMPLATE or FILE; one that is empty is of an old report.
"""

from __future__ import annotations

from collections.abc import Sequence

TEMPLATE = "template"  # instead of labelers: whoever wrote a template file said which of its replies is the better
FILE = "file"  # of a suite's rows that came without a labeler: nobody knows who judged them
_WHOM = {
    "human": "people",
    "simulated": "the simulated labelers",
    "model": "the judging model",
    "served": "the users",
    TEMPLATE: "whoever wrote the templates",
}
NAMES_NOBODY = "the suite's file, which names nobody"


def as_each_did(labelers: Sequence[str]) -> str:
    """'people did', 'people and the simulated labelers did', 'the suite says'."""
    named = [_WHOM[kind] for kind in labelers if kind != FILE]
    return " and ".join([f"{' and '.join(named)} did"] * bool(named) + ["the suite says"] * (FILE in labelers))


def as_they_did(labelers: Sequence[str]) -> str:
    """The same in short, as a figure's meaning has it: 'as the labelers did', 'as the suite says'."""
    if list(labelers) == [FILE]:
        return "as the suite says"
    if list(labelers) == [TEMPLATE]:
        return f"as {_WHOM[TEMPLATE]} did"
    return "as the labelers did" + (", or where none is named, as the suite says" if FILE in labelers else "")


def the_better(labelers: Sequence[str]) -> str:
    """What the reply that they prefer is called beside its text."""
    if list(labelers) == [FILE]:
        return "the better, as the suite says"
    if list(labelers) == [TEMPLATE]:
        return f"the better, as {_WHOM[TEMPLATE]} said"
    return "preferred by the labelers" + (", or by the suite, which names nobody" if FILE in labelers else "")


def judged_by(labelers: Sequence[str]) -> str:
    """Kinds of labelers as they are called, and the others in words."""
    told = {TEMPLATE: _WHOM[TEMPLATE], FILE: NAMES_NOBODY}
    return ", ".join(told.get(kind, kind) for kind in labelers)


def judge_of_card(labelers: Sequence[str]) -> str:
    """A report's judge where a card lists reports: 'the labelers of the pairs' where there are any."""
    said = ["the labelers of the pairs"] * (not labelers or any(kind not in (TEMPLATE, FILE) for kind in labelers))
    return ", and ".join(said + [judged_by([kind]) for kind in labelers if kind in (TEMPLATE, FILE)])


def limits_of_agreement(labelers: Sequence[str]) -> str:
    """What accuracy is agreement with, and how far that reaches."""
    if list(labelers) == [FILE]:
        return (
            "It is agreement with the suite's file, which names nobody: who judged its pairs, and how often they would agree with "
            "each other, is unknown."
        )
    if list(labelers) == [TEMPLATE]:
        return "It is agreement with whoever wrote the templates, and with nobody else."
    said = "It is agreement with these labelers, who also disagree with each other: 100 % is out of reach."
    return said + (" Some of the pairs come from a file that names no labeler." if FILE in labelers else "")
