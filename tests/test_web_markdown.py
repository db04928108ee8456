"""Markdown of a stranger's: words, lists and code come through; nothing that acts does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_web_labeler import XSS

from rlhf.web.markdown import TAGS, Node, nodes_of

PAYLOADS = [
    XSS,
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/pixel.png)",
    "<https://evil.example>",
    "[a]: https://evil.example\n[a]",
    '```js" onload="alert(1)\nx\n```',
    "<div\nonclick=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "| a |\n|:-:|\n| <b onmouseover=alert(1)>x</b> |",
    "<!-- --><style>*{display:none}</style>",
    "# <svg/onload=alert(1)>",
    "`</code><script>alert(1)</script>`",
    "\u202e<script>",
    "<a href='data:text/html;base64,xx'>x</a>",
]


def walked(nodes: list[Node]) -> Iterator[str | list[object]]:
    for node in nodes:
        yield node
        if isinstance(node, list):
            yield from walked(node[1])


def words(nodes: list[Node] | None) -> str:
    assert nodes is not None
    return "".join(node for node in walked(nodes) if isinstance(node, str))


def is_safe(nodes: list[Node] | None) -> bool:
    """Only known tags, and no more to them than a list's first number."""
    assert nodes is not None
    return all(
        isinstance(node, str) or (node[0] in TAGS and (len(node) == 2 or (len(node) == 3 and type(node[2]) is int)))
        for node in walked(nodes)
    )


@pytest.mark.parametrize("text", PAYLOADS)
def test_nothing_acts_and_every_word_is_shown(text: str) -> None:
    nodes = nodes_of(text)
    assert is_safe(nodes)
    for word in ("evil.example", "<script", "javascript:alert(1)", "<img", "onmouseover=alert(1)", "&lt;"):
        assert (word in text) == (word in words(nodes)), "what was written is what is read"


@given(st.text(alphabet="<>\"'&`*_~|#[]()!-\n abcx123.:/=", max_size=200))
def test_no_text_makes_another_tag_or_attribute(text: str) -> None:
    assert is_safe(nodes_of(text))


def test_what_replies_are_made_of_is_rendered() -> None:
    text = "# Title\n\nA **bold** word,\na line.\n\n3. three\n4. four\n\n```python\nif a < b:\n    pass\n```\n\n"
    text += "|x|y|\n|-|-|\n|1|2|\n"
    assert nodes_of(text) == [
        ["h3", ["Title"]],
        ["p", ["A ", ["strong", ["bold"]], " word,", ["br", []], "a line."]],
        ["ol", [["li", ["three"]], ["li", ["four"]]], 3],
        ["pre", [["code", ["if a < b:\n    pass\n"]]]],
        [
            "table",
            [
                ["thead", [["tr", [["th", ["x"]], ["th", ["y"]]]]]],
                ["tbody", [["tr", [["td", ["1"]], ["td", ["2"]]]]]],
            ],
        ],
    ]


def test_a_text_that_is_too_long_is_shown_as_it_is_and_a_deep_one_ends() -> None:
    assert nodes_of("x" * 50_001) is None
    assert is_safe(nodes_of("> " * 5000 + "x"))
