"""Pages: self-contained, and what a person typed never becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from markupsafe import Markup

from rlhf.pages import Section, facts, page, table
from rlhf.pages.page import bullets, digest, folded, headline

EVIL = "<script>alert(1)</script>"
_VOID = {"meta", "br"}


class _Tags(HTMLParser):
    """Opened elements, and whether each was closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> _Tags:
    tags = _Tags()
    tags.feed(html)
    return tags


def whole() -> str:
    content = table((EVIL, "b"), [(EVIL, Markup("<em>ok</em>"))], numeric=(1,), wide=True)
    content += facts([(EVIL, EVIL)]) + bullets([EVIL]) + folded(EVIL, digest(EVIL))
    lead = headline(EVIL, EVIL, small=EVIL)
    return page(EVIL, [Section(EVIL, content, EVIL)], kicker=EVIL, lead=lead, simulated=EVIL)


def test_what_a_person_typed_is_never_markup() -> None:
    tags = read(whole())
    assert "script" not in tags.seen and "em" in tags.seen and not tags.open


def test_a_page_refers_to_nothing_outside() -> None:
    tags = read(whole())
    assert not tags.seen & {"script", "link", "img", "iframe", "object", "base"}
    assert not [value for name, value in tags.attributes if name in ("src", "href", "action", "data")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in tags.attributes
    assert "url(" not in whole() and "@import" not in whole()


def test_a_simulated_page_says_so_before_everything_else() -> None:
    html = whole()
    assert html.index("SIMULATED") < html.index("<h1>")
    assert "SIMULATED" not in page("t", [], kicker="k")
