"""One self-contained page: a title, sections, tables, plots. What a person typed is always escaped (markupsafe).

No script, no link, no image: a strict content policy stands in the page itself, so that a report stays a report
wherever it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PAGE = Markup(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    "<title>{title}</title>\n<style>\n{css}</style>\n</head>\n<body>\n{banner}<main>\n"
    '<header><p class="kicker">{kicker}</p>\n<h1>{title}</h1>\n{lead}</header>\n{body}\n</main>\n</body>\n</html>\n'
)
_BANNER = Markup('<aside class="banner" aria-label="Simulated"><strong>SIMULATED</strong> {text}</aside>\n')


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, an introduction of a sentence or two (may be empty), and its content."""

    title: str
    content: Markup
    intro: str = ""


def page(title: str, sections: Iterable[Section], *, kicker: str, lead: Markup = Markup(), simulated: str = "") -> str:
    """The whole HTML document. kicker: the small line above the title. lead: the headline. simulated: the banner's
    text."""
    body = Markup("\n").join(_section(section) for section in sections)
    banner = _BANNER.format(text=simulated) if simulated else Markup()
    return str(
        _PAGE.format(
            policy=_POLICY, title=title, css=Markup(_css()), kicker=kicker, lead=lead, body=body, banner=banner
        )
    )


def headline(number: str, words: Markup | str, *, small: str = "") -> Markup:
    """The one number that matters, and what it means in a sentence."""
    return Markup('<div class="headline"><p class="number">{}</p><p class="words">{}</p>{}</div>\n').format(
        number, words, Markup('<p class="small">{}</p>').format(small) if small else ""
    )


def headline_text(sentences: Iterable[str]) -> Markup:
    """What comes before every number: a paragraph each, in the headline's size; nothing of none."""
    return Markup("").join(Markup('<p class="words verdict">{}</p>\n').format(said) for said in sentences)


def table(
    head: Sequence[str], rows: Iterable[Sequence[str | Markup]], *, numeric: Sequence[int] = (), wide: bool = False
) -> Markup:
    """A table; on a phone each cell of a `wide` one carries its column's name and the rows stack. numeric:
    right-aligned columns."""

    def cells(tag: str, row: Sequence[str | Markup]) -> Markup:
        return Markup("").join(
            Markup("<{tag}{cls}{label}>{value}</{tag}>").format(
                tag=tag,
                value=value,
                cls=Markup(' class="num"') if i in numeric else "",
                label=Markup(' data-label="{}"').format(head[i]) if tag == "td" else "",
            )
            for i, value in enumerate(row)
        )

    body = Markup("\n").join(Markup("<tr>{}</tr>").format(cells("td", row)) for row in rows)
    return Markup('<div class="scroll"><table{}><thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table></div>\n').format(
        Markup(' class="stack"') if wide else "", cells("th", head), body
    )


def facts(pairs: Iterable[tuple[str, str | Markup]]) -> Markup:
    """Names and values, such as an identity block."""
    return Markup('<dl class="facts">{}</dl>\n').format(
        Markup("").join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in pairs)
    )


def plot_grid(plots: Iterable[tuple[str, Markup, str]]) -> Markup:
    """Plots side by side where there is room: (title, svg, what it shows and how to read it)."""
    return Markup('<div class="plots">{}</div>\n').format(
        Markup("").join(
            Markup("<figure><figcaption><strong>{}</strong></figcaption>{}<p>{}</p></figure>\n").format(
                title, svg, note
            )
            for title, svg, note in plots
        )
    )


def bullets(items: Iterable[str | Markup]) -> Markup:
    return Markup("<ul>{}</ul>\n").format(Markup("").join(Markup("<li>{}</li>").format(item) for item in items))


def basis(n: int, unit: str, *, method: str = "", without: str = "a picture, not an estimate") -> str:
    """What a plot or a figure rests on, as its last sentence: how many of what, and by which method its interval was made or why
    there is none."""
    return f"n\u00a0=\u00a0{n:,} {unit}; " + (f"95 % interval: {method}." if method else f"no interval: {without}.")


def p_value(p: float | None) -> str:
    """'0.012', 'below 0.001', or a dash where nothing was tested."""
    if p is None:
        return "–"
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def small(text: str | Markup) -> Markup:
    """A remark under a table."""
    return Markup('<p class="small">{}</p>\n').format(text)


def folded(summary: str, content: Markup) -> Markup:
    """Closed until the reader opens it."""
    return Markup("<details><summary>{}</summary>\n{}</details>\n").format(summary, content)


def digest(value: str) -> Markup:
    """A digest that breaks across lines on a phone and copies whole."""
    return Markup('<code class="digest">{}</code>').format(value)


def _section(section: Section) -> Markup:
    intro = Markup('<p class="intro">{}</p>\n').format(section.intro) if section.intro else ""
    return Markup("<section>\n<h2>{}</h2>\n{}{}</section>").format(section.title, intro, section.content)


@cache
def _css() -> str:
    return (Path(__file__).parent / "page.css").read_text("utf-8")
