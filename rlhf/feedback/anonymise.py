"""Anonymise: personal data in text becomes `<EMAIL>`, `<PHONE>`, `<CARD>`, `<IP>` or `<KEY>` before anything is stored.

By pattern, tuned for precision: years, prices, version numbers, times, ISBNs and sums are left alone. Found spans
that touch each other become one, of the longer one's kind, so the order of the detectors decides nothing; masking
what is masked changes nothing. Names and addresses are beyond patterns: a later door's work.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

Span = tuple[int, int, str]

_LOCAL_BACKWARDS = re.compile(r"[\w%+-][\w.%+'-]{0,63}")
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")

_DIGITS = re.compile(r"\d[\d .()/-]{5,}\d")
_ABROAD = re.compile(r"(?<![\w)+])\+[1-9](?:[ .()/-]{0,2}\d){7,14}(?![ .()/-]{0,2}\d|%)")
_NANP = re.compile(
    r"(?<![\w$€£=*/.,+-])(?:\+?1[-. ]?)?"
    r"(?:\([2-9]\d{2}\) ?[2-9]\d{2}[-. ]|[2-9]\d{2}-[2-9]\d{2}-|[2-9]\d{2}\.[2-9]\d{2}\.)\d{4}"
    r"(?![\w%]|[-.,/=*+]\d| ?[=*/+])"
)
_NATIONAL = re.compile(
    r"(?<![\w$€£=*/.,+-])0[1-9]\d{1,3}[ /-]\d{3,4}[ -]?\d{3,4}(?![\w%]|[ .,/=*+-]\d)|(?<![\w.])020 \d{4} \d{4}(?!\d)"
)
_ANNOUNCED = re.compile(
    r"(?i)\b(?:tel|tél|telephone|phone|mobile|cell|fax|whatsapp|handy|(?:call|text|ring|reach) (?:me|us|him|her|them))"
    r"(?:\.|[ -]?(?:number|nr|no)\b)?[^\d\n]{0,12}?"
    r"(\(?\d{3,5}\)?[ .-]?\d{3,4}[ .-]?\d{3,4}|\d{3}[-. ]\d{4}|\d{7,12}|0\d(?:[ .-]\d\d){4})(?![\w%]|[-.,/=*+]\d)"
)

_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w]|[.-]\d)"
)
_ISSUERS = re.compile(r"4|5[1-8]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|35|3[0689]|6")

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4_LIKE = re.compile(r"\d\.\d{1,3}\.\d")
_IPV4 = re.compile(rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\d)")
_VERSION_BEFORE = re.compile(r"(?i)\b(?:v|ver|version|release|section|chapter|build)[ .:]*\Z")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])")
_IPV6_NETS = tuple(ipaddress.IPv6Network(net) for net in ("2000::/3", "fc00::/7", "fe80::/10"))

_TOKEN_STARTS = (
    "AKIA",
    "ASIA",
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "xox",
    "AIza",
    "hf_",
    "glpat-",
    "_live_",
    "_test_",
    "eyJ",
    "PRIVATE KEY",
)
_TOKEN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----|[\s\S]*\Z)"
    r"|(?<![A-Za-z0-9_])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})(?![A-Za-z0-9_])"
)
_LABELS = ("passw", "pwd", "secret", "key", "token")
_LABELLED = re.compile(
    r"(?i)(?:(?P<word>passwords?|passwd|pwd)|secret"
    r"|(?:api|access|secret|private|account|auth)[_ -]?(?:key|secret|token)|token)"
    r"[\"']?\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"']?(?P<value>[^\s\"'<>]{8,4096})"
)
_LONG_SECRET = re.compile(r"[A-Za-z0-9+/=_.~-]{16,}")


def mask(text: str) -> tuple[str, Mapping[str, int]]:
    """The text with personal data replaced, and how many of each kind there were (empty where the text is
    unchanged).
    """
    counts: Counter[str] = Counter()
    while spans := _spans(text):  # usually once; again where a replacement has uncovered something
        pieces, position = [], 0
        for start, end, kind in spans:
            pieces += [text[position:start], f"<{kind.upper()}>"]
            position = end
            counts[kind] += 1
        text = "".join(pieces) + text[position:]
    return text, counts


def _spans(text: str) -> list[Span]:
    """Where something is, in order; what overlaps is joined under the longer one's kind."""
    found: list[Span] = []
    for detector in _DETECTORS:
        found += detector(text)
    joined: list[Span] = []
    for start, end, kind in sorted(found, key=lambda s: (s[0], -s[1], s[2])) if found else ():
        if joined and start < joined[-1][1]:
            before = joined[-1]
            longer = kind if end - start > before[1] - before[0] else before[2]
            joined[-1] = (before[0], max(before[1], end), longer)
        else:
            joined.append((start, end, kind))
    return joined


def _emails(text: str) -> Iterator[Span]:
    """From each @ outwards, so that the cost is bounded by the number of @ and not by the text's length squared."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 64) : at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if local and domain:
            yield at - local.end(), domain.end(), "email"
        at = text.find("@", at + 1)


def _numbers(text: str) -> Iterator[Span]:
    """Phones and payment cards: nothing is looked for where no seven digits stand near each other."""
    if not _DIGITS.search(text):
        return
    for pattern in (_ABROAD, _NANP, _NATIONAL):
        yield from ((*m.span(), "phone") for m in pattern.finditer(text))
    yield from ((*m.span(1), "phone") for m in _ANNOUNCED.finditer(text))
    yield from ((*m.span(), "card") for m in _CARD.finditer(text) if _is_card(m.group()))


def _is_card(text: str) -> bool:
    """An issuer's first digits, and the check digit of ISO/IEC 7812 (Luhn)."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or not _ISSUERS.match("".join(map(str, digits))) or len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits), 1)]
    return sum(doubled) % 10 == 0


def _addresses(text: str) -> Iterator[Span]:
    if _IPV4_LIKE.search(text):
        for m in _IPV4.finditer(text):
            if not _VERSION_BEFORE.search(text[max(0, m.start() - 12) : m.start()]):
                yield (*m.span(), "ip")
    if text.count(":") >= 2:
        for m in _IPV6.finditer(text):
            try:
                address = ipaddress.IPv6Address(m.group())
            except ValueError:
                continue
            if any(address in net for net in _IPV6_NETS):
                yield (*m.span(), "ip")


def _keys(text: str) -> Iterator[Span]:
    if _holds(text, _TOKEN_STARTS):
        yield from ((*m.span(), "key") for m in _TOKEN.finditer(text))
    if _holds(text.lower(), _LABELS):
        for m in _LABELLED.finditer(text):
            value = m.group("value").rstrip(".,;:)!?")
            mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
            if mixed and (m.group("word") or _LONG_SECRET.fullmatch(value)):
                yield m.start("value"), m.start("value") + len(value), "key"


def _holds(text: str, words: tuple[str, ...]) -> bool:
    # A plain loop: this runs three times a row, and a generator costs more than the search.
    for word in words:  # noqa: SIM110
        if word in text:
            return True
    return False


_DETECTORS: tuple[Callable[[str], Iterator[Span]], ...] = (_emails, _numbers, _addresses, _keys)
