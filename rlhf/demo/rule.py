"""The known rule: what makes one reply better than another in the demo, so that a learnt reward has a truth to meet.

`quality` is a weighted sum of parts, each between 0 and 1 and each visible in the text, as a plain reader would ask
of a short answer:

- topic:    it takes up the question's own content words (three are enough), within its first forty words;
- reader:   it speaks to the reader ("you", "your": one word in 17 is enough), not of itself ("I" undoes half a "you");
- concrete: it names numbers or examples (one word in 25 is enough);
- plain:    its words are short (4.0 letters on average gives 1, 5.6 gives 0);
- direct:   it comes to the point: no "Sure!", no "As an AI", no praise of the question in its opening words;
- complete: it ends with a finished sentence.

Each part is a rate, a share of a fixed window, or a property of one end of the text, never a count over the whole: so
a longer reply isn't better for being longer. `write_preferences` measures what length explains nevertheless. The rule
is not a judgement of truth or taste; it is one that a small model can learn from some hundred pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rlhf.records import Message


@dataclass(frozen=True, slots=True)
class Weights:
    """Points of each part; together 10, so that `quality` runs from 0 to 10."""

    topic: float = 2.0
    reader: float = 3.0
    concrete: float = 2.0
    plain: float = 1.0
    direct: float = 1.5
    complete: float = 0.5


WEIGHTS = Weights()
OPENING_WORDS = 40  # the window that `topic` reads, so that a longer reply has no more chances
GREETING_WORDS = 12  # the window that `direct` reads

_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_READER = frozenset(("you", "your", "yours", "yourself", "you're", "you'll", "you've", "you'd", "let's"))
_ITSELF = frozenset(("i", "i'm", "i'd", "i'll", "i've", "me", "my", "mine", "myself"))
_CONCRETE = re.compile(
    r"\d+|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|hundred"
    r"|for example|for instance|such as|like)\b",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"\b(?:sure|certainly|absolutely|of course|as an? ai|i'?m an? ai|i am an? ai|ai assistant|smollm|hugging face"
    r"|happy to|glad to|great (?:question|idea|choice)|what a (?:great|wonderful|lovely)|i'?m (?:sorry|here)|i am here"
    r"|thank you for|daunting|here(?:'s| is| are))\b",
    re.IGNORECASE,
)
_FINISHED = re.compile(r"[.!?][\"'”’)*]*\s*$")
_ASKING = """
    a about advice after again all also am an and any are as asked at be been before begin best better brief
    briefly but by can can't cannot checklist choose compare complete decide did difference do does don't draft
    easiest else everyday example explain few five for friendly from get getting give good had handle has have
    help here how i ideas if in into is it its keep kind list long looking main make many me mistake more most
    my name need no not of on one or our out over people plan please prepare say sentences short should simple
    some special start steps still suggest take tell than that the their them there these they thing things
    think this three tip tips to too took tools tried try two up use used want was way we week well what when
    where which who why will with word words would write you your
"""
_ASKING_WORDS = frozenset(_ASKING.split())  # function words and those of a request itself: no topic


def quality(prompt: Sequence[Message], reply: str) -> float:
    """Points from 0 to 10: the weighted sum of `parts`."""
    weights = asdict(WEIGHTS)
    return sum(weights[name] * value for name, value in parts(prompt, reply).items())


def true_preference(prompt: Sequence[Message], reply_a: str, reply_b: str) -> float:
    """Points by which the rule prefers `reply_a`; negative where it prefers `reply_b`."""
    return quality(prompt, reply_a) - quality(prompt, reply_b)


def parts(prompt: Sequence[Message], reply: str) -> Mapping[str, float]:
    """Each part of the rule by its name in `Weights`, in [0, 1]."""
    words = [word.lower().replace("’", "'") for word in _WORD.findall(reply)]
    n_words = len(words) + 15  # as if fifteen neutral words came first: else one word decides a short reply's rate
    return {
        "topic": _topic(prompt, words[:OPENING_WORDS]),
        "reader": _clip(0.3 + 12.0 * sum(word in _READER for word in words) / n_words
                        - 6.0 * sum(word in _ITSELF for word in words) / n_words),
        "concrete": _clip(25.0 * len(_CONCRETE.findall(reply)) / n_words),
        "plain": _clip((5.6 - sum(map(len, words)) / len(words)) / 1.6) if words else 0.0,
        "direct": float(not _PREAMBLE.search(" ".join(reply.split()[:GREETING_WORDS]))),
        "complete": float(bool(_FINISHED.search(reply))),
    }  # fmt: skip


def _topic(prompt: Sequence[Message], opening: Sequence[str]) -> float:
    """Share of the users' content words (three are enough) among the reply's opening words; 1.0 where nothing is asked.

    Words are compared by their first five letters, so "plants" meets "plant".
    """
    asked = [word.lower().replace("’", "'") for m in prompt if m.role == "user" for word in _WORD.findall(m.content)]
    stems = {word[:5] for word in asked if word not in _ASKING_WORDS}
    if not stems:
        return 1.0
    return min(1.0, len(stems & {word[:5] for word in opening}) / min(3, len(stems)))


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
