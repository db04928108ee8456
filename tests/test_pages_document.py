"""One text, a page and Markdown: both hold every word, and neither lets a word become a mark."""

from __future__ import annotations

from rlhf.pages.document import Bullets, Chapter, Facts, Table, as_markdown, as_sections

EVIL = "a|b <img src=x> *c* [d](e)\n# f"
CHAPTERS = (
    Chapter("First & last", (EVIL, Bullets(("one", EVIL)), Facts((("name", EVIL),)))),
    Chapter("Rows", (Table(("what", "n"), (("x", "1"), (EVIL, "2")), numeric=(1,)),)),
)


def test_the_page_holds_every_block_escaped() -> None:
    first, rows = as_sections(CHAPTERS)
    assert (
        first.title == "First & last" and first.content.count("&lt;img src=x&gt;") == 3 and "<img" not in first.content
    )
    assert "<li>one</li>" in first.content and "<dt>name</dt>" in first.content
    assert '<td class="num" data-label="n">1</td>' in rows.content


def test_markdown_keeps_a_row_a_row_and_a_text_a_text() -> None:
    text = as_markdown("A <title>", CHAPTERS)
    lines = text.splitlines()
    assert lines[0] == r"# A \<title\>" and "## Rows" in lines
    assert "| --- | ---: |" in lines and "| x | 1 |" in lines
    assert sum(line.startswith("#") for line in lines) == 3, "a text's own # is no heading"
    row = next(line for line in lines if line.endswith("| 2 |"))
    assert r"a\|b \<img src=x\> \*c\* \[d\](e) \# f" in row
    assert text.endswith("\n") and not text.endswith("\n\n")
