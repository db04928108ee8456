"""Identifiers: numbers that a bank or a state gave a person. IBANs and national ids of 24 countries.

What a number must look like stands here; whether its check digits (or its date) hold is python-stdnum's to say. A
number that is digits alone, or has no check digit, is taken only where a word before it names it: else one order
number in ten would be somebody's tax number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module

Span = tuple[int, int, str]

_IBAN_LIKE = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_IBAN_SHORTEST = 15

# What a national id looks like; stdnum's module that knows its check. Every number of these shapes is tried.
_LETTERED = (  # at least one letter beside a digit
    (r"\d{8}[ -]?[A-Z]|[XYZ][ -]?\d{7}[ -]?[A-Z]", ("es.dni", "es.nie")),
    (r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]", ("it.codicefiscale",)),
    (r"\d{6}[A-FU-Y]\d{3}[0-9A-Z]", ("fi.hetu",)),
    (r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", ("mx.curp",)),
    (r"\d{17}X", ("cn.ric",)),
    (r"[12] ?\d{2} ?\d{2} ?2[AB] ?\d{3} ?\d{3} ?\d{2}", ("fr.nir",)),
)
_NINO = r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"
_NUMERIC = (  # a shape of its own, or checks that one number in a hundred would pass
    (r"\d{3}-\d{2}-\d{4}", ("us.ssn",)),
    (r"[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}", ("fr.nir",)),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", ("br.cpf",)),
    (r"(?:\d{2})?\d{6}[-+]\d{4}", ("se.personnummer",)),
    (r"\d{6}[-+]\d{3}[0-9A-Z]", ("fi.hetu",)),
    (r"\d{18}", ("cn.ric",)),
    (r"\d{6}-[1-8]\d{6}", ("kr.rrn",)),
    (r"756\.\d{4}\.\d{4}\.\d{2}", ("ch.ssn",)),
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", ("be.nn",)),
    (r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", ("cl.rut",)),
)
_NAMED = (
    ("ssn|social security", ("us.ssn",)),
    ("nhs", ("gb.nhs",)),
    ("steuer|idnr|identifikationsnummer", ("de.idnr",)),
    ("sécurité sociale|securite sociale|nir", ("fr.nir",)),
    ("bsn|burgerservice", ("nl.bsn",)),
    ("pesel", ("pl.pesel",)),
    ("cpf", ("br.cpf",)),
    ("nif|contribuinte", ("pt.nif",)),
    ("personnummer|fødselsnummer|fodselsnummer", ("se.personnummer", "no.fodselsnummer")),
    ("cpr", ("dk.cpr",)),
    ("rijksregister|numéro national|registre national", ("be.nn",)),
    (r"sin|social insurance", ("ca.sin",)),
    ("tfn|tax file", ("au.tfn",)),
    ("aadhaar", ("in_.aadhaar",)),
    (r"pan", ("in_.pan",)),
    ("kimlik", ("tr.tckimlik",)),
    ("id number|identity number", ("za.idnr",)),
)
# What follows `NIF 12`: short words and marks, then one number. Bounded, so that a long text costs what it is long.
_AFTER_NAME = r"[^\d\n]{0,24}?(?<![\w.])([A-Z]{0,5}\d(?:[ .\-/]?\d){2,13}[A-Z]?)(?![\w]|[.,-]\d)"

_EDGE_BEFORE, _EDGE_AFTER = r"(?<![\w.,/=+-])", r"(?![\w%]|[-.,/=*+]\d| ?[=*])"


def _compiled(shapes: tuple[tuple[str, tuple[str, ...]], ...]) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    return [(re.compile(f"{_EDGE_BEFORE}(?:{shape}){_EDGE_AFTER}"), checks) for shape, checks in shapes]


_SHAPES_LETTERED, _SHAPES_NUMERIC = _compiled(_LETTERED), _compiled(_NUMERIC)
_NINO_SHAPE = re.compile(f"{_EDGE_BEFORE}{_NINO}{_EDGE_AFTER}")
_BY_NAME = re.compile(
    r"(?i:\b(?:" + "|".join(f"(?P<n{i}>{word})" for i, (word, _) in enumerate(_NAMED)) + r"))" + _AFTER_NAME
)
_SOME_NAME = re.compile(r"(?i)\b(?:" + "|".join(word for word, _ in _NAMED) + ")")
_LETTER_BY_DIGIT = re.compile(r"\d[ -]?[A-Z]|[A-Z] ?\d")
_SIX_DIGITS = re.compile(r"\d(?:[ .+-]?\d){5}")


def ibans(text: str) -> Iterator[Span]:
    """Where an IBAN stands: the longest one that begins there, country's length and check digits (ISO 13616) right."""
    for found in _IBAN_LIKE.finditer(text):
        begin, candidate = found.start(), found.group()
        for end in range(len(candidate), _IBAN_SHORTEST - 1, -1):
            cut = candidate[:end]
            outside = text[begin + end : begin + end + 1]
            if cut[-1] != " " and not outside.isalnum() and _valid("iban", cut):
                yield begin, begin + end, "iban"
                break


def national_ids(text: str) -> Iterator[Span]:
    """Where a number is somebody's in the eyes of a state."""
    if _LETTER_BY_DIGIT.search(text):
        yield from ((*m.span(), "id") for m in _NINO_SHAPE.finditer(text))
        yield from _checked(text, _SHAPES_LETTERED)
    if _SIX_DIGITS.search(text):
        yield from _checked(text, _SHAPES_NUMERIC)
        if _SOME_NAME.search(text):
            yield from _named(text)


def _checked(text: str, shapes: list[tuple[re.Pattern[str], tuple[str, ...]]]) -> Iterator[Span]:
    for shape, checks in shapes:
        for found in shape.finditer(text):
            if any(_valid(check, found.group()) for check in checks):
                yield (*found.span(), "id")


def _named(text: str) -> Iterator[Span]:
    for found in _BY_NAME.finditer(text):
        number = found.group(len(_NAMED) + 1)
        checks = next(c for i, (_, c) in enumerate(_NAMED) if found.group(f"n{i}"))
        if any(_valid(check, number) for check in checks):
            yield found.start(len(_NAMED) + 1), found.end(len(_NAMED) + 1), "id"


def _valid(check: str, number: str) -> bool:
    """Whether stdnum's module finds the number right. Loaded at the first candidate: most texts have none."""
    module = import_module(f"stdnum.{check}")
    return bool(module.is_valid(number, check_country=False) if check == "iban" else module.is_valid(number))
