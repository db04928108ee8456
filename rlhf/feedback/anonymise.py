"""Anonymise: personal data in text becomes a word for its kind before anything is stored: `<EMAIL>`, `<PHONE>`,
`<CARD>`, `<IBAN>`, `<IP>`, `<USER>` (a name in a URL), `<ID>` (a national id), `<ADDRESS>` or `<KEY>`.

Tuned for precision: years, prices, version numbers, times, ISBNs and sums are left alone. Found spans
that touch each other become one, of the longer one's kind, so the order of the detectors decides nothing; masking
what is masked changes nothing. Names are beyond patterns: `person_names.py` finds them where a model is installed.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rlhf.feedback.identifiers import ibans, national_ids
from rlhf.feedback.person_names import names
from rlhf.feedback.streets import streets
from rlhf.feedback.url_users import url_users

Span = tuple[int, int, str]

KINDS = ("email", "phone", "card", "iban", "ip", "user", "id", "address", "key", "name")
_PLACEHOLDER = re.compile("<(" + "|".join(kind.upper() for kind in KINDS) + ")>")

_LOCAL_BACKWARDS = re.compile(r"[\w%+-][\w.%+'-]{0,63}")
_USERINFO = re.compile(r"://[^\s/?#@<>]{0,250}\Z")  # `name:password@host` of a URL: `url_users` has it
_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")

_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d[\d .()/-]{5,}\d")
_ABROAD = re.compile(r"(?<![\w)+])\+[1-9](?:[ .()/-]{0,2}\d){7,14}(?: ?(?:x|ext\.?) ?\d{1,6})?(?![ .()/-]{0,2}\d|%)")
_NANP = re.compile(
    r"(?<![\w$€£=*/.,+-])(?:\+?1[-. ]?)?"
    r"(?:\([2-9]\d{2}\) ?[2-9]\d{2}[-. ]|[2-9]\d{2}-[2-9]\d{2}-|[2-9]\d{2}\.[2-9]\d{2}\.)\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?"
    r"(?![\w%]|[-.,/=*+]\d| ?[=*/+])"
)
_NATIONAL = re.compile(
    r"(?<![\w$€£=*/.,+-])0[1-9]\d{1,3}[ /-]\d{3,4}[ -]?\d{3,4}(?![\w%]|[ .,/=*+-]\d)|(?<![\w.])020 \d{4} \d{4}(?!\d)"
    r"|(?<![\w.])\(0[1-9]\d{1,4}\) ?\d{3,4}[ -]?\d{2,4}(?![\w%]|[.,/=*+-]\d)"
)
_ANNOUNCED = re.compile(
    r"(?i)\b(?:tel|tél|telephone|phone|mobile|cell|fax|whatsapp|handy|(?:call|text|ring|reach) (?:me|us|him|her|them))"
    r"(?:\.|[ -]?(?:number|nr|no)\b)?[^\d\n]{0,12}?"
    r"(\(?\d{3,5}\)?[ .-]?\d{3,4}[ .-]?\d{3,4}|\d{3}[-. ]\d{4}|\d{7,12}|0\d(?:[ .-]\d\d){4})(?![\w%]|[-.,/=*+]\d)"
)
# Words that mean a telephone and nothing else: whatever number of a phone's length comes next is one.
_TELEPHONE = re.compile(
    r"(?i)\b(?:tele(?:phone|fon)s?(?:nummer)?|telefoon(?:nummer)?|téléphone|portable|teléfono|móvil|celular|telefon[eou]|cellulare"
    r"|mobiel|handynummer|mobilnummer|rufnummer|komórka|(?:phone|mobile|cell|fax)(?: number| no\.?)?)\b[^\d\n(+]{0,16}"
    r"(\+?\(?\d(?:[ .()/-]{0,2}\d){6,14}(?: ?(?:x|ext\.?) ?\d{1,6})?)(?![\w%]|[-.,/=*+]\d)"
)

_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w]|[.-]\d)"
)
_ISSUERS = re.compile(r"4|5[1-8]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|35|3[0689]|6|2131\d{11}\Z|1800\d{11}\Z")
_TWELVE = re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]")  # Maestro alone has cards of 12 digits

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
    "npm_",
    "earer ",
    "_live_",
    "_test_",
    "eyJ",
    "PRIVATE KEY",
)
_TOKEN = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----|[\s\S]*\Z)"
    r"|(?<![A-Za-z0-9_])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}|glpat-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{30,}"
    r"|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})(?![A-Za-z0-9_])"
    r"|(?<=[Bb]earer )(?=[A-Za-z_.~+/-]{0,64}\d)[\w.~+/-]{20,4096}"
)
_LABELS = ("passw", "pwd", "contrase", "senha", "wachtwoord", "hasło", "mot de passe", "secret", "key", "token")
_LABELLED = re.compile(
    r"(?i)(?:(?P<word>passwords?|passwd|pwd|passwort|contraseña|senha|wachtwoord|hasło|mot de passe)|secret"
    r"|(?:api|access|secret|private|account|auth)[_ -]?(?:key|secret|token)|token)"
    r"[\"']?\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"']?(?P<value>[^\s\"'<>]{8,4096})"
)
_LONG_SECRET = re.compile(r"[A-Za-z0-9+/=_.~-]{16,}")


def mask(text: str) -> tuple[str, Mapping[str, int]]:
    """The text with personal data replaced, and how many of each kind there were (empty where the text is
    unchanged).
    """
    counts: Counter[str] = Counter()
    while spans := found(text):  # usually once; again where a replacement has uncovered something
        pieces, position = [], 0
        for start, end, kind in spans:
            pieces += [text[position:start], f"<{kind.upper()}>"]
            position = end
            counts[kind] += 1
        text = "".join(pieces) + text[position:]
    return text, counts


def mask_in(value: Any, counts: Counter[str]) -> Any:
    """The same for every text in a value of JSON, the keys of objects left as they are; adds to `counts`."""
    if isinstance(value, str):
        clean, seen = mask(value)
        counts.update(seen)
        return clean
    if isinstance(value, Mapping):
        return {key: mask_in(each, counts) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [mask_in(each, counts) for each in value]
    return value


def placeholders(texts: Iterable[str]) -> dict[str, int]:
    """How often each kind was replaced in masked texts: what a reviewer may know of what stood there."""
    counts = Counter(m.group(1).lower() for text in texts for m in _PLACEHOLDER.finditer(text))
    return dict(sorted(counts.items()))


def found(text: str) -> list[Span]:
    """Where something is (begin, end, kind), in order; what overlaps is joined under the longer one's kind."""
    spans: list[Span] = []
    digits = _n_digits(text)
    for detector, least in _DETECTORS:
        if digits >= least:
            spans += detector(text)
    joined: list[Span] = []
    for start, end, kind in sorted(spans, key=lambda s: (s[0], -s[1], s[2])) if spans else ():
        if joined and start < joined[-1][1]:
            before = joined[-1]
            longer = kind if end - start > before[1] - before[0] else before[2]
            joined[-1] = (before[0], max(before[1], end), longer)
        else:
            joined.append((start, end, kind))
    return joined


def _n_digits(text: str) -> int:
    if not text.isascii():
        return len(_DIGIT.findall(text))
    n = 0
    for digit in "0123456789":  # ten searches in C; a generator or a pattern costs several times as much
        n += text.count(digit)
    return n


def _emails(text: str) -> Iterator[Span]:
    """From each @ outwards, so that the cost is bounded by the number of @ and not by the text's length squared."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 64) : at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if local and domain and not _USERINFO.search(text, max(0, at - 256), at):
            yield at - local.end(), domain.end(), "email"
        at = text.find("@", at + 1)


def _numbers(text: str) -> Iterator[Span]:
    """Phones and payment cards: nothing is looked for where no seven digits stand near each other."""
    if not _DIGITS.search(text):
        return
    for pattern in (_ABROAD, _NANP, _NATIONAL):
        yield from ((*m.span(), "phone") for m in pattern.finditer(text))
    for announced in (_ANNOUNCED, _TELEPHONE):
        yield from ((*m.span(1), "phone") for m in announced.finditer(text))
    yield from ((*m.span(), "card") for m in _CARD.finditer(text) if _is_card(m.group()))


def _is_card(text: str) -> bool:
    """An issuer's first digits, and the check digit of ISO/IEC 7812 (Luhn)."""
    digits = [int(c) for c in text if c.isdigit()]
    issuers = _TWELVE if len(digits) == 12 else _ISSUERS
    if not 12 <= len(digits) <= 19 or not issuers.match("".join(map(str, digits))) or len(set(digits)) == 1:
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
            if m.group().count(":") == 7 or any(address in net for net in _IPV6_NETS):
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


# A detector, and how many digits what it finds has at least: most texts have none, and cost no more than counting them.
_DETECTORS: tuple[tuple[Callable[[str], Iterator[Span]], int], ...] = (
    (_emails, 0),
    (_numbers, 7),
    (ibans, 8),
    (national_ids, 6),
    (_addresses, 1),
    (url_users, 0),
    (streets, 1),
    (_keys, 0),
    (names, 0),
)
