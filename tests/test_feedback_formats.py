"""Each format makes drafts of what it knows and says why it doesn't take the rest."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from rlhf.feedback.drafts import KeyedVote, PairDraft, Rating, Rejected
from rlhf.feedback.formats import available
from rlhf.feedback.formats.votes import debate_prompt

SYSTEM, HI, YES, NO = (
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes"},
    {"role": "assistant", "content": "no"},
)


def pair(form: str, record: dict[str, Any]) -> PairDraft:
    draft = available()[form].read(record)
    assert isinstance(draft, PairDraft)
    return draft


def told(draft: PairDraft) -> tuple[list[tuple[str, str]], str, str, list[str]]:
    return [(m.role, m.content) for m in draft.prompt], draft.first, draft.second, [v.side for v in draft.votes]


def test_every_format_is_found_by_its_entry_point() -> None:
    assert set(available()) >= {"hh", "trl", "votes", "pandalm", "ratings", "events"}


def test_hh_splits_turns_and_keeps_human_inside_text() -> None:
    start = "\n\nHuman: who? Human: me\n\nAssistant: a\n\nb\n\nHuman: ok\n\nAssistant:"
    draft = pair("hh", {"chosen": start + " Human: fine", "rejected": start + " no"})
    assert told(draft) == (
        [("user", "who? Human: me"), ("assistant", "a\n\nb"), ("user", "ok")],
        "Human: fine",
        "no",
        ["first"],
    )


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("\n\nAssistant: a", "\n\nHuman: h\n\nAssistant: b", "doesn't start with Human"),
        ("\n\nHuman: h\n\nAssistant: a\n\nHuman: x", "\n\nHuman: h\n\nAssistant: b\n\nHuman: y", "ends with Human"),
        ("\n\nHuman: h\n\nAssistant: a\n\nAssistant: b", "\n\nHuman: h\n\nAssistant: b", "roles out of order: turn 3"),
        ("\n\nHuman: h\n\nAssistant: a", "\n\nHuman: other\n\nAssistant: b", "turn 1 differs"),
        (
            "\n\nHuman: h\n\nAssistant: a",
            "\n\nHuman: h\n\nAssistant: b\n\nHuman: i\n\nAssistant: c",
            "2 turns and 'rejected' 4",
        ),
        ("\n\nHuman: h\n\nAssistant:  ", "\n\nHuman: h\n\nAssistant: b", "turn 2 (Assistant) is empty"),
        ("just text", "\n\nHuman: h\n\nAssistant: b", "no transcript"),
        (7, "\n\nHuman: h\n\nAssistant: b", "'chosen' is a number, not text"),
    ],
)
def test_hh_rejects_what_doesnt_parse_with_the_reason(chosen: Any, rejected: str, reason: str) -> None:
    with pytest.raises(Rejected) as verdict:
        pair("hh", {"chosen": chosen, "rejected": rejected})
    assert reason in str(verdict.value)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "hi", "chosen": "yes", "rejected": "no"}, [("user", "hi")]),
        ({"prompt": [SYSTEM, HI], "chosen": [YES], "rejected": [NO]}, [("system", "be kind"), ("user", "hi")]),
        ({"chosen": [HI, YES], "rejected": [HI, NO]}, [("user", "hi")]),
        ({"prompt": "hi", "chosen": [HI, YES], "rejected": [HI, NO]}, [("user", "hi")]),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"}, [("user", "hi")]),
        ({"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": "yes", "rejected": "no"}, [("user", "hi")]),
        ({"chosen": "yes", "rejected": "no"}, []),
        ({"chosen": "hi yes", "rejected": "hi no"}, [("user", "hi")]),
    ],
)
def test_trl_takes_explicit_and_implicit_prompts(record: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert told(pair("trl", record)) == (expected, "yes", "no", ["first"])


def test_trl_cuts_an_implicit_prompt_at_a_space_and_leaves_both_replies_words() -> None:
    assert told(pair("trl", {"chosen": "the cat sat", "rejected": "the car"}))[:3] == (
        [("user", "the")],
        "cat sat",
        "car",
    )
    assert told(pair("trl", {"chosen": "a b", "rejected": "a b c"}))[:3] == ([("user", "a")], "b", "b c")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "hi", "chosen": "yes"}, "'rejected' is missing"),
        ({"prompt": "hi", "chosen": "yes", "rejected": None}, "'rejected' is null"),
        ({"prompt": "hi", "chosen": " ", "rejected": "no"}, "'chosen' is blank"),
        ({"prompt": "", "chosen": "yes", "rejected": "no"}, "'prompt' is empty"),
        ({"prompt": "h\x00i", "chosen": "yes", "rejected": "no"}, "NUL"),
        ({"prompt": "hi", "chosen": "yes \ud800", "rejected": "no"}, "lone surrogate"),
        ({"prompt": "hi", "chosen": "é" * 500_001, "rejected": "no"}, "over the limit"),
        ({"prompt": [YES], "chosen": [YES], "rejected": [NO]}, "roles out of order"),
        ({"prompt": [HI, HI], "chosen": [YES], "rejected": [NO]}, "roles out of order: message 2 is user"),
        ({"prompt": [HI, YES], "chosen": [YES], "rejected": [NO]}, "ends with assistant"),
        ({"prompt": [HI], "chosen": [HI], "rejected": [NO]}, "one assistant message is wanted"),
        ({"chosen": [HI, YES, HI, YES], "rejected": [HI, NO]}, "one assistant message is wanted"),
        ({"prompt": "other", "chosen": [HI, YES], "rejected": [HI, NO]}, "'prompt' differs"),
        ({"prompt": [{"role": "boss", "content": "x"}], "chosen": [YES], "rejected": [NO]}, "the role 'boss'"),
        ({"prompt": [HI], "chosen": [YES], "rejected": "no"}, "different shapes"),
        ({"prompt": "hi", "chosen": "yes", "rejected": "no", "consent": "train,sell"}, "'sell'"),
        ({"prompt": "hi", "chosen": "yes", "rejected": "no", "labeler": "x" * 201}, "over the limit of 200"),
    ],
)
def test_trl_rejects_with_a_precise_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected) as verdict:
        pair("trl", record)
    assert reason in str(verdict.value)


def test_trl_honours_what_a_row_tells_of_its_labeler() -> None:
    draft = pair(
        "trl",
        {
            "prompt": "hi",
            "chosen": "yes",
            "rejected": "no",
            "labeler": 7,
            "source": "s",
            "kind": "simulated",
            "strength": 2,
            "margin": 0.5,
            "split": "test",
            "shown": "ba",
            "consent": "train",
        },
    )
    vote = draft.votes[0]
    assert (vote.labeler, vote.source, vote.kind, vote.strength, vote.shown_first, vote.consent) == (
        "7",
        "s",
        "simulated",
        2,
        "second",
        ("train",),
    )
    assert draft.details == {"margin": 0.5, "split": "test"}


@pytest.mark.parametrize(
    ("word", "side"), [("a", "first"), ("B", "second"), ("tie", "tie"), ("both_bad", "both_bad"), ("skip", "skip")]
)
def test_votes_are_read_by_their_words(word: str, side: str) -> None:
    draft = pair("votes", {"prompt": "hi", "a": "yes", "b": "no", "labeler": "u1", "vote": word, "seconds": "3.5"})
    assert told(draft)[1:] == ("yes", "no", [side]) and draft.votes[0].seconds == 3.5


@pytest.mark.parametrize("word", ["left", 1, "1", 0, None, True, ""])
def test_an_ambiguous_vote_is_rejected(word: Any) -> None:
    with pytest.raises(Rejected, match="'vote' is"):
        pair("votes", {"prompt": "hi", "a": "yes", "b": "no", "vote": word})


def test_digits_are_votes_where_the_replies_are_numbered() -> None:
    assert pair("votes", {"prompt": "hi", "reply_1": "yes", "reply_2": "no", "vote": "2"}).votes[0].side == "second"


def test_gold_is_a_detail_and_never_a_vote() -> None:
    record = {"pair_id": "t/1", "topic": "ban-it_no-bad-idea", "title": "Ban it", "a": "x", "b": "y", "gold": "a"}
    draft = pair("votes", record)
    assert draft.votes == () and draft.details["gold"] == "a" and draft.key == "t/1"
    assert draft.prompt[0].content == 'Give one convincing argument on the topic "Ban it". Stance: no, bad idea.'
    vote = available()["votes"].read({"pair_id": "t/1", "labeler": "u1", "vote": "b", "cohort": "", "seconds": "12"})
    assert isinstance(vote, KeyedVote) and vote.key == "t/1" and vote.vote.cohort is None


def test_a_debate_prompt_reads_naturally_without_a_stance() -> None:
    assert debate_prompt("Tea?", "") == 'Give one convincing argument on the topic "Tea?".'


def test_pandalm_gives_a_judgement_for_each_annotator() -> None:
    draft = pair(
        "pandalm",
        {
            "instruction": "do",
            "input": "this",
            "response1": "x",
            "response2": "y",
            "annotator1": 1,
            "annotator2": "2",
            "annotator3": 0,
            "annotator4": None,
        },
    )
    assert told(draft) == ([("user", "do\n\nthis")], "x", "y", ["first", "second", "tie"])
    assert [vote.labeler for vote in draft.votes] == ["annotator1", "annotator2", "annotator3"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response1": True}, "'response1' is true or false"),
        ({"annotator1": 3}, "'annotator1' is 3"),
        ({"annotator1": None}, "no annotator"),
    ],
)
def test_pandalm_rejects_with_a_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        pair(
            "pandalm", {"instruction": "do", "input": "", "response1": "x", "response2": "y", "annotator1": 1} | change
        )


@pytest.mark.parametrize(
    ("form", "record", "signal", "value"),
    [
        ("ratings", {"prompt": "hi", "response": "yes", "rating": "4", "labeler": "u"}, "rating", 4.0),
        ("ratings", {"prompt": "hi", "reply": "yes", "rating": "6", "scale": "1-7"}, "rating:1-7", 6.0),
        ("ratings", {"prompt": "hi", "reply": "yes", "rating": "Strongly agree"}, "rating:1-5", 5.0),
        ("events", {"prompt": "hi", "reply": "yes", "user": "u", "thumb": "up"}, "thumb", 1.0),
        ("events", {"prompt": "hi", "reply": "yes", "event": "thumbs_down"}, "thumb", -1.0),
        ("events", {"prompt": "hi", "reply": "yes", "event": "thumb", "value": -1}, "thumb", -1.0),
        ("events", {"prompt": "hi", "reply": "yes", "event": "rating", "value": 3}, "rating", 3.0),
        ("events", {"prompt": "hi", "reply": "yes", "comment": "nice"}, "text", None),
    ],
)
def test_ratings_and_events_are_read(form: str, record: dict[str, Any], signal: str, value: float | None) -> None:
    draft = available()[form].read(record)
    assert isinstance(draft, Rating) and (draft.signal, draft.value) == (signal, value)


def test_a_rating_outside_its_scale_is_rejected() -> None:
    with pytest.raises(Rejected, match="outside the scale 1 to 5"):
        available()["ratings"].read({"prompt": "hi", "reply": "yes", "rating": "6", "scale": "5"})


ODD = [
    None,
    True,
    0,
    -1,
    7.5,
    10**400,
    "",
    " ",
    "x" * 300,
    "\ud800",
    "a\x00",
    [],
    {},
    [None],
    [{}],
    [[]],
    [{"role": [], "content": {}}],
    {"role": "user"},
    [{"role": "user", "content": 3}],
    "1",
    "a",
    "[{",
    '[{"role": "user"}]',
]
WHOLE: Mapping[str, dict[str, Any]] = {
    "hh": {"chosen": "\n\nHuman: h\n\nAssistant: a", "rejected": "\n\nHuman: h\n\nAssistant: b"},
    "trl": {
        "prompt": "q",
        "chosen": "x",
        "rejected": "y",
        "labeler": "u",
        "source": "s",
        "kind": "human",
        "strength": 1,
        "margin": 1.0,
        "split": "train",
        "seconds": 1,
        "shown": "ab",
        "note": "n",
        "reason": "r",
        "cohort": "c",
        "submitted_at": "t",
        "consent": "train",
        "subject": "p",
    },
    "votes": {
        "pair_id": "p",
        "topic": "t_x",
        "title": "T",
        "a": "x",
        "b": "y",
        "vote": "a",
        "labeler": "u",
        "gold": "a",
        "prompt": "q",
    },
    "pandalm": {
        "instruction": "i",
        "input": "j",
        "response1": "x",
        "response2": "y",
        "annotator1": 1,
        "idx": 3,
        "cmp_key": "k",
    },
    "ratings": {"prompt": "q", "reply": "r", "rating": 3, "scale": "1-5", "labeler": "u", "comment": "c"},
    "events": {"prompt": "q", "reply": "r", "event": "rating", "value": 3, "user": "u", "comment": "c"},
}


@pytest.mark.parametrize("form", WHOLE)
def test_no_record_however_odd_is_more_than_rejected(form: str) -> None:
    draw = random.Random(form)
    for _ in range(1500):
        record = dict(WHOLE[form])
        for name in draw.sample(sorted(record), draw.randint(1, min(3, len(record)))):
            if draw.random() < 0.2:
                del record[name]
            else:
                record[name] = draw.choice(ODD)
        available()[form].sniff(record)
        available()[form].key(record)
        try:
            available()[form].read(record)
        except Rejected as verdict:
            assert str(verdict).encode("utf-8") and len(str(verdict)) < 1500
