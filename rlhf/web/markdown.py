"""Markdown as replies use it, to a tree of words that a page can build from: no HTML of its author's, no link, picture or style.

A link could tell a stranger who is labeling, a picture could ask them; so both stay as they were written, and every character that
was written can be read. A node is a text, or [tag, nodes], for a list that starts elsewhere [tag, nodes, first number].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from rlhf.people import Text

TAGS = (
    "p", "br", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "h3",
    "table", "thead", "tbody", "tr", "th", "td",
)  # fmt: skip
_TAG_OF = {
    "paragraph": "p", "em": "em", "strong": "strong", "s": "s", "blockquote": "blockquote", "bullet_list": "ul",
    "ordered_list": "ol", "list_item": "li", "heading": "h3", "table": "table", "thead": "thead", "tbody": "tbody",
    "tr": "tr", "th": "th", "td": "td",
}  # fmt: skip
_MAX_CHARACTERS = 50_000  # a longer text is shown as it is: parsing it would keep the others waiting
Node = str | list[Any]


def nodes_of(text: str) -> list[Node] | None:
    """The text as nodes; None = show it as it is, for it is too long."""
    if len(text) > _MAX_CHARACTERS:
        return None
    return list(_nodes(SyntaxTreeNode(_PARSER.parse(text))))


def readable(text: Text) -> dict[str, Any]:
    """A text that labelers agree to, with its body as nodes."""
    return {**text.as_json(), "nodes": nodes_of(text.body)}


def _nodes(parent: SyntaxTreeNode) -> Iterator[Node]:
    for node in parent.children:
        kind = node.type
        if kind in ("softbreak", "hardbreak"):
            yield ["br", []]
        elif kind == "hr":
            yield ["hr", []]
        elif kind == "code_inline":
            yield ["code", [node.content]]
        elif kind in ("fence", "code_block"):
            yield ["pre", [["code", [node.content]]]]
        elif kind in _TAG_OF and not node.hidden:
            start = node.attrs.get("start")
            yield [_TAG_OF[kind], list(_nodes(node)), *([] if start is None else [int(start)])]
        elif node.children:  # the inline part of a block, or a paragraph of a tight list
            yield from _nodes(node)
        else:
            yield node.content


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    return parser.disable(["link", "image", "autolink", "reference", "html_inline", "html_block", "entity"])


_PARSER = _parser()
