"""Marks of what differs: the words that one text has alone, nothing lost, nothing that a text could smuggle in."""

from __future__ import annotations

import re

import pytest

from rlhf.pages.marked import differences


def without_marks(html: str) -> str:
    return re.sub(r"</?(?:ins|del)[^>]*>", "", html)


def test_the_words_of_one_text_alone_are_marked_on_its_side() -> None:
    found = differences("Boil it for seven minutes.", "Boil the egg for six minutes.")
    assert found is not None
    left, right = found
    assert left == 'Boil <del class="only">it</del> for <del class="only">seven</del> minutes.'
    assert right == 'Boil <ins class="only">the egg</ins> for <ins class="only">six</ins> minutes.'


@pytest.mark.parametrize(
    ("one", "other"),
    [("same", "same"), ("A b\n\n c  d", "a b c d e"), ("你好世界", "你好地球"), ("It's 5 > 4 & so", "It's 5 > 3 & so")],
)
def test_nothing_is_lost_or_added(one: str, other: str) -> None:
    from html import unescape

    found = differences(one, other)
    assert found is not None
    assert [unescape(without_marks(text)) for text in found] == [one, other]


def test_case_is_no_difference_and_equal_texts_have_no_mark() -> None:
    for other in ("Hello there", "hello There"):
        found = differences("Hello there", other)
        assert found is not None and "<" not in found[0] + found[1]


def test_texts_with_hardly_a_word_in_common_are_left_unmarked() -> None:
    assert differences("you can take two steps for your plan", "unquestionably methodology notwithstanding") is None


def test_what_a_model_wrote_is_text_inside_a_mark_too() -> None:
    found = differences("go on <script>alert(1)</script> now", "go on <b>then</b> now")
    assert found is not None and "<script" not in found[0] and "<b>" not in found[1]
    assert "&lt;" in found[0]
