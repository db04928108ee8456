"""Two texts beside each other, with the words marked that the other doesn't have: by underlines, which need no colour.

The first text's own words stand in `<del>`, the second's in `<ins>`, so that a screen reader tells them too.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape

LEAST_ALIKE = 0.2  # share of the words in common below which marks would be all over and tell nothing
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"\s+|(?:[{_CJK}]|[^\W{_CJK}]+|[^\w\s])\s*")
_MARK = {"del": Markup('<del class="only">{}</del>{}'), "ins": Markup('<ins class="only">{}</ins>{}')}


def differences(one: str, other: str) -> tuple[Markup, Markup] | None:
    """Both texts, escaped, with what stands in one of them alone marked; None where they share too little.

    Words are matched in order (Ratcliff & Obershelp's longest runs, `difflib`), case aside. Nothing is lost or added: without the
    marks each is its text.
    """
    words, others = _WORD.findall(one), _WORD.findall(other)
    matcher = SequenceMatcher(None, [_key(w) for w in words], [_key(w) for w in others], autojunk=False)
    if matcher.ratio() < LEAST_ALIKE:
        return None
    left, right = Markup(""), Markup("")
    for kind, i, end, j, ending in matcher.get_opcodes():
        if kind == "equal":
            left += escape("".join(words[i:end]))
            right += escape("".join(others[j:ending]))
            continue
        left += _marked("del", "".join(words[i:end]))
        right += _marked("ins", "".join(others[j:ending]))
    return left, right


def _key(word: str) -> str:
    return word.strip().casefold()


def _marked(tag: str, text: str) -> Markup:
    """The space after it stays outside the mark."""
    core = text.rstrip()
    return _MARK[tag].format(core, text[len(core) :]) if core else escape(text)
