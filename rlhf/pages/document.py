"""A text of paragraphs, lists, facts and tables that is written once and read as a page or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rlhf.pages.page import Section, bullets, facts, table

_MARKS = re.compile(r"([\\`*_|<>\[\]#])")


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """numeric: columns that are aligned to the right."""

    head: tuple[str, ...]
    rows: tuple[Sequence[str], ...]
    numeric: tuple[int, ...] = ()


Block = str | Facts | Bullets | Table  # a text is a paragraph


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


def as_sections(chapters: Iterable[Chapter]) -> list[Section]:
    """For `page`; every text is escaped."""
    return [Section(c.title, Markup("").join(map(_markup, c.blocks))) for c in chapters]


def as_markdown(title: str, chapters: Iterable[Chapter]) -> str:
    """One document; what a text holds of Markdown's marks is escaped."""
    parts = [f"# {_plain(title)}"]
    for chapter in chapters:
        parts += [f"## {_plain(chapter.title)}", *map(_text, chapter.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markup(block: Block) -> Markup:
    if isinstance(block, Facts):
        return facts(block.pairs)
    if isinstance(block, Bullets):
        return bullets(block.items)
    if isinstance(block, Table):
        return table(block.head, block.rows, numeric=block.numeric, wide=True)
    return Markup("<p>{}</p>\n").format(block)


def _text(block: Block) -> str:
    if isinstance(block, Facts):
        return "\n".join(f"- **{_plain(name)}**: {_plain(value)}" for name, value in block.pairs)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_plain(item)}" for item in block.items)
    if isinstance(block, Table):
        ruler = ["---:" if i in block.numeric else "---" for i in range(len(block.head))]
        rows = [[_plain(cell) for cell in row] for row in (block.head, *block.rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ruler, *rows[1:]))
    return _plain(block)


def _plain(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))
