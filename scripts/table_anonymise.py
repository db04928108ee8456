"""Precision and recall of what the door masks, by kind, on generated cases in nine locales, and its time a 1,000
characters.

    python scripts/table_anonymise.py [--each 20] [--peer presidio|phonenumbers]

Each case is a sentence of its locale around one value (Faker's, or drawn here where it has none) or around a hard
negative. A value is found where spans of its kind cover all its letters and digits; a span is right where it touches a
value of its kind. Bracketed: Wilson's 95 % interval. Sentences, hard negatives, keys and URLs are of one hand with the
patterns; other values aren't. A peer must be installed beside (it is in no extra); kinds that it has no detector for
are left out of its table.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.feedback import anonymise
from rlhf.ids import chance
from rlhf.measures.intervals import wilson

Span = tuple[int, int, str]
KINDS = ("email", "phone", "card", "iban", "ip", "user", "id", "address", "key")

# {}: the value. The first two say nothing about it.
SENTENCES = {
    "en_US": ("Earlier I had {} in my notes, is that fine?", "What does {} mean here?"),
    "en_GB": ("I wrote down {} yesterday and forgot why.", "Could you repeat {} please?"),
    "de_DE": ("Gestern habe ich {} notiert, stimmt das?", "Was bedeutet {} in diesem Text?"),
    "fr_FR": ("Hier j'ai noté {} sans savoir pourquoi.", "Que veut dire {} dans ce texte ?"),
    "es_ES": ("Ayer apunté {} y no sé por qué.", "¿Qué significa {} en este texto?"),
    "it_IT": ("Ieri ho segnato {} senza sapere perché.", "Che cosa vuol dire {} in questo testo?"),
    "nl_NL": ("Gisteren schreef ik {} op, klopt dat?", "Wat betekent {} in deze tekst?"),
    "pt_BR": ("Ontem eu anotei {} e não sei por quê.", "O que quer dizer {} neste texto?"),
    "pl_PL": ("Wczoraj zapisałem {} i nie wiem po co.", "Co znaczy {} w tym tekście?"),
}
NAMED = {
    "phone": {
        "en_US": "My phone number is {}, call after six.",
        "en_GB": "You can reach me on my mobile: {}.",
        "de_DE": "Meine Telefonnummer ist {}, bitte abends.",
        "fr_FR": "Mon numéro de téléphone est le {}, merci.",
        "es_ES": "Mi teléfono es {}, llámame luego.",
        "it_IT": "Il mio telefono è {}, chiamami dopo.",
        "nl_NL": "Mijn telefoonnummer is {}, bel maar.",
        "pt_BR": "Meu telefone é {}, me liga depois.",
        "pl_PL": "Mój telefon to {}, proszę dzwonić.",
    },
    "id": {
        "en_US": "My SSN is {} and I need a new card.",
        "en_GB": "My NHS number is {}, as on the letter.",
        "de_DE": "Meine Steuer-ID lautet {} laut Bescheid.",
        "fr_FR": "Mon numéro de sécurité sociale est {} depuis toujours.",
        "es_ES": "Mi DNI es {} y caduca pronto.",
        "it_IT": "Il mio codice fiscale è {} da sempre.",
        "nl_NL": "Mijn BSN is {} volgens de brief.",
        "pt_BR": "Meu CPF é {} conforme o documento.",
        "pl_PL": "Mój PESEL to {} według dowodu.",
    },
    "address": {
        "en_US": "I live at {}, second floor.",
        "en_GB": "Please send it to {}, thank you.",
        "de_DE": "Ich wohne in der {}, zweiter Stock.",
        "fr_FR": "J'habite au {}, deuxième étage.",
        "es_ES": "Vivo en {}, segundo piso.",
        "it_IT": "Abito in {}, secondo piano.",
        "nl_NL": "Ik woon op {}, tweede verdieping.",
        "pt_BR": "Eu moro na {}, segundo andar.",
        "pl_PL": "Mieszkam przy {}, drugie piętro.",
    },
}
NEGATIVES = (
    "{y}", "{y}-{y2}", "${n}.99", "{n},50 €", "v{d}.{d2}.{d3}", "{d}.{d2}.{d3}", "ISBN 978-3-16-148410-0", "978{i9}0",
    "#{n}-{n2}", "order {i10}", "Nr. {i11}", "{n} + {n2} = {sum}", "{n} * {n2}", "x[{d}] = {n2}", "for i in range({n}):",
    "{hh}:{mm}:{ss}", "{hh}:{mm}", "{y}-{mo}-{dd}", "{dd}.{mo}.{y}", "{dd}/{mo}/{y}", "§ {d}.{d2}", "section {d}.{d2}.{d3}.{d}",
    "{sha}", "commit {sha7}", "{uuid}", "3.14159265358979", "{n} km", "1 000 000", "1,234,567", "10.0{d}.{y}", "pp. {n}-{n2}",
    "{i9}", "{i11}", "{i16}", "{y} World Cup", "5 Best Places", "the 9 Supreme Court judges",
    "in {y} Wall Street", "{d} x {d2} x {d3}",
    "std::vector<int>", "@dataclass", "https://example.com/users/login", "https://www.npmjs.com/package/@types/node",
    "github.com/features", "https://docs.python.org/3/library/re.html", "A{d}B{d2}", "ABC-{i4}", "DIN EN {i4}", "SKU {i8}",
    "0x{sha7}", "{i4} {i4} {i4}", "Apollo 11", "Boeing 747-400", "COVID-19", "password: required", "{i6}-{i4}", "token count {n}",
    "Platz {d}", "Parkplatz {d2}", "page {n} of {n2}", "rue {y}", "Windows 10", "{d}%", "{i3}-{i3}", "ratio {d}:{d2}", "RFC {i4}",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A text, and where in it something personal stands (kind None: nothing does)."""

    text: str
    begin: int
    end: int
    kind: str | None
    locale: str


def cases(each: int, seed: int = 0) -> list[Case]:
    """`each` values of every kind, and three times as many negatives, in every locale."""
    from faker import Faker

    made = []
    for locale, sentences in SENTENCES.items():
        draw = chance(seed, "table_anonymise", locale)
        fake = Faker(locale)
        fake.seed_instance(draw.getrandbits(32))
        for kind in KINDS:
            for number in range(each):
                before, value, after = _value(kind, locale, fake, draw)
                named = NAMED.get(kind, {}).get(locale)
                sentence = named if named and number % 2 else draw.choice(sentences)
                made.append(_case(sentence, before, value, after, kind, locale))
        for _ in range(3 * each):
            made.append(_case(draw.choice(sentences), "", _negative(draw), "", None, locale))
    return made


def _case(sentence: str, before: str, value: str, after: str, kind: str | None, locale: str) -> Case:
    head, tail = sentence.split("{}")
    begin = len(head) + len(before)
    return Case(head + before + value + after + tail, begin, begin + len(value), kind, locale)


def _value(kind: str, locale: str, fake: Any, draw: random.Random) -> tuple[str, str, str]:
    """(text before, the value, text after)."""
    if kind == "user":
        return _user(fake, draw)
    if kind == "key":
        return _key(draw)
    value: str
    if kind == "email":
        value = draw.choice((fake.email, fake.company_email, fake.free_email))()
    elif kind == "phone":
        value = fake.phone_number()
    elif kind == "card":
        value = fake.credit_card_number()
        if draw.random() < 0.5 and len(value) == 16:
            value = draw.choice(" -").join(value[i : i + 4] for i in range(0, 16, 4))
    elif kind == "iban":
        value = fake.iban()
        if draw.random() < 0.5:
            value = " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    elif kind == "ip":
        value = fake.ipv4() if draw.random() < 0.7 else fake.ipv6()
    elif kind == "id":
        value = _national_id(locale, fake, draw)
    else:
        value = ""
        while not any(c.isdigit() for c in value):  # a street alone identifies no house
            value = fake.street_address().replace("\n", ", ")
        value = value.title() if locale == "en_GB" else value  # Faker leaves its suffixes small
    return "", value, ""


def _national_id(locale: str, fake: Any, draw: random.Random) -> str:
    """A national id of the locale with its check digits right."""
    from stdnum.de import idnr
    from stdnum.gb import nhs

    if locale == "en_GB":
        if draw.random() < 0.5:
            digits = _digits(draw, 6)
            return (
                f"{draw.choice(('AB', 'CE', 'JM', 'PR'))} {digits[:2]} {digits[2:4]} {digits[4:]} {draw.choice('ABCD')}"
            )
        while not nhs.is_valid(number := _digits(draw, 10)):
            pass
        return f"{number[:3]} {number[3:6]} {number[6:]}"
    if locale == "de_DE":
        while not idnr.is_valid(number := "123456789" + _digits(draw, 2)[:1] + _digits(draw, 1)):
            pass
        return number
    makers: dict[str, Callable[[], str]] = {
        "en_US": fake.ssn,
        "fr_FR": fake.ssn,
        "es_ES": lambda: fake.nif() if draw.random() < 0.5 else fake.nie(),
        "it_IT": fake.ssn,
        "nl_NL": fake.ssn,
        "pt_BR": lambda: fake.cpf() if draw.random() < 0.7 else fake.cpf().replace(".", "").replace("-", ""),
        "pl_PL": fake.ssn,
    }
    return str(makers[locale]())


def _user(fake: Any, draw: random.Random) -> tuple[str, str, str]:
    name, host = fake.user_name(), fake.domain_name()
    return draw.choice(
        (
            (f"https://{host}/@", name, ""),
            ("https://github.com/", name, "/project"),
            ("github.com/", name, ""),
            (f"https://{host}/users/", name, "?tab=posts"),
            ("https://www.linkedin.com/in/", name, "/"),
            ("https://twitter.com/", name, "/status/1234567890"),
            ("https://www.reddit.com/user/", name, "/comments"),
            (f"https://{host}/~", name, "/index.html"),
            ("https://", f"{name}:{_word(draw, 10)}", f"@{host}/path"),
            ("postgresql://", f"{name}:{_word(draw, 10)}", f"@{host}:5432/db"),
            ("https://stackoverflow.com/users/123456/", name, ""),
            ("https://t.me/", name, ""),
            (f"https://forum.{host}/u/", name, "/summary"),
            (f"https://{host}/profile/", name, ""),
        )
    )


def _key(draw: random.Random) -> tuple[str, str, str]:
    return draw.choice(
        (
            ("", "AKIA" + "".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)), ""),
            ("", "sk-proj-" + _word(draw, 40), ""),
            ("", "ghp_" + _word(draw, 36), ""),
            ("", "hf_" + _word(draw, 34), ""),
            ("", "xoxb-" + _digits(draw, 12) + "-" + _word(draw, 24), ""),
            ("", "eyJ" + _word(draw, 30) + "." + _word(draw, 60) + "." + _word(draw, 43), ""),
            ("", "glpat-" + _word(draw, 20), ""),
            ("", "npm_" + _word(draw, 36), ""),
            ("", "AIza" + _word(draw, 35), ""),
            ("Authorization: Bearer ", _word(draw, 40) + "7", ""),
            ("password: ", _word(draw, 11) + "7", ""),
            ("API_KEY=", _word(draw, 31) + "7", ""),
            ("client_secret = '", _word(draw, 31) + "7", "'"),
        )
    )


def _negative(draw: random.Random) -> str:
    a, b = draw.randint(2, 999), draw.randint(2, 999)
    values = {f"i{k}": _digits(draw, k) for k in (3, 4, 6, 8, 9, 10, 11, 16)}
    hexed = f"{draw.getrandbits(160):040x}"
    return draw.choice(NEGATIVES).format(
        **values,
        y=draw.randint(1900, 2030),
        y2=draw.randint(1900, 2030),
        n=a,
        n2=b,
        sum=a + b,
        d=draw.randint(1, 9),
        d2=draw.randint(1, 20),
        d3=draw.randint(0, 30),
        hh=draw.randint(10, 23),
        mm=draw.randint(10, 59),
        ss=draw.randint(10, 59),
        mo=f"{draw.randint(1, 12):02d}",
        dd=f"{draw.randint(1, 28):02d}",
        sha=hexed,
        sha7=hexed[:7],
        uuid=f"{hexed[:8]}-{hexed[8:12]}-4{hexed[13:16]}-a{hexed[17:20]}-{hexed[20:32]}",
    )


def _digits(draw: random.Random, n: int) -> str:
    return str(draw.randint(1, 9)) + "".join(draw.choices("0123456789", k=n - 1))


def _word(draw: random.Random, n: int) -> str:
    return "".join(draw.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=n))


@dataclass(frozen=True)
class Figures:
    """hits of n values found; right of n_spans spans."""

    hits: int
    n: int
    right: int
    n_spans: int

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, k, n in (("recall", self.hits, self.n), ("precision", self.right, self.n_spans)):
            interval = wilson(k, n)
            out[name] = round(k / n, 4) if n else None
            out[f"{name}_low"], out[f"{name}_high"], out[f"{name}_n"] = (
                round(interval.low, 4),
                round(interval.high, 4),
                n,
            )
        return out


def measured(made: Sequence[Case], detect: Callable[[str], list[Span]]) -> tuple[dict[str, Figures], list[Case]]:
    """Figures by kind, and the cases where a value was missed or something else taken."""
    hits, n, right, spans, wrong = Counter[str](), Counter[str](), Counter[str](), Counter[str](), []
    for case in made:
        bad = False
        covered: set[int] = set()
        for begin, end, kind in detect(case.text):
            spans[kind] += 1
            if kind == case.kind and begin < case.end and case.begin < end:
                right[kind] += 1
                covered.update(range(begin, end))
            else:
                bad = True
        if case.kind is not None:
            n[case.kind] += 1
            hit = all(i in covered for i in range(case.begin, case.end) if case.text[i].isalnum())
            hits[case.kind] += hit
            bad |= not hit
        if bad:
            wrong.append(case)
    return {k: Figures(hits[k], n[k], right[k], spans[k]) for k in KINDS}, wrong


def presidio() -> Callable[[str], list[Span]]:
    """presidio's pattern recognisers, called alone: without an NLP engine there are no context words."""
    from presidio_analyzer import predefined_recognizers as known

    chosen = [
        ("email", known.EmailRecognizer), ("card", known.CreditCardRecognizer), ("iban", known.IbanRecognizer),
        ("ip", known.IpRecognizer), ("phone", known.PhoneRecognizer), ("id", known.UsSsnRecognizer),
        ("id", known.NhsRecognizer), ("id", known.EsNifRecognizer), ("id", known.EsNieRecognizer),
        ("id", known.ItFiscalCodeRecognizer), ("id", known.PlPeselRecognizer), ("id", known.UkNinoRecognizer),
    ]  # fmt: skip
    made = []
    for kind, cls in chosen:
        if kind == "phone":
            regions = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "PL")
            made.append((kind, cls(supported_regions=regions)))
        else:
            made.append((kind, cls()))

    def detect(text: str) -> list[Span]:
        said = [(kind, r) for kind, one in made for r in one.analyze(text, one.supported_entities, None)]
        return sorted({(r.start, r.end, kind) for kind, r in said if r.score >= 0.3})

    return detect


def phonenumbers() -> Callable[[str], list[Span]]:
    """libphonenumber's matcher, asked for each region of the set."""
    from phonenumbers import PhoneNumberMatcher

    regions = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "BR", "PL")

    def detect(text: str) -> list[Span]:
        return sorted({(m.start, m.end, "phone") for region in regions for m in PhoneNumberMatcher(text, region)})

    return detect


PEERS: dict[str, Callable[[], Callable[[str], list[Span]]]] = {"presidio": presidio, "phonenumbers": phonenumbers}


def ms_each_1000(made: Sequence[Case], detect: Callable[[str], list[Span]], turns: int) -> float:
    """Milliseconds a 1,000 characters, the best of `turns` passes over all texts."""
    best = float("inf")
    for _ in range(turns):
        begin = time.perf_counter()
        for case in made:
            detect(case.text)
        best = min(best, time.perf_counter() - begin)
    return best * 1e3 / (sum(len(case.text) for case in made) / 1000)


def printed(name: str, figures: dict[str, Figures], ms: float) -> Iterator[str]:
    """The table of one detector."""
    yield f"{name}: {ms:.3f} ms a 1,000 characters"
    for kind, f in figures.items():
        j = f.as_json()
        if f.n_spans:
            yield (
                f"  {kind:8} recall {j['recall']:.3f} [{j['recall_low']:.3f}, {j['recall_high']:.3f}] of {f.n:4}"
                f"   precision {j['precision']:.3f} [{j['precision_low']:.3f}, {j['precision_high']:.3f}] of {f.n_spans:4}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--each", type=int, default=20, help="values of each kind in each locale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", choices=sorted(PEERS))
    parser.add_argument("--show", action="store_true", help="print the cases that went wrong")
    words = parser.parse_args()
    made = cases(words.each, words.seed)
    figures, wrong = measured(made, anonymise.found)
    ms = ms_each_1000(made, anonymise.found, 3)
    print(f"{len(made):,} cases in {len(SENTENCES)} locales, {sum(c.kind is None for c in made):,} of them negatives")
    print("\n".join(printed("ours", figures, ms)))
    if words.show:
        print(
            "\n".join(
                f"{c.locale} {c.kind or 'none':8} {c.text[c.begin : c.end]!r}: {anonymise.mask(c.text)[0]}"
                for c in wrong
            )
        )
    other = None
    if words.peer:
        detect = PEERS[words.peer]()
        peers, _ = measured(made, detect)
        other = ms_each_1000(made, detect, 1)
        print("\n".join(printed(words.peer, peers, other)))
    print(
        json.dumps(
            {
                "name": "anonymise",
                "ours": round(ms, 4),
                "peer": round(other, 4) if other else None,
                "ratio": round(other / ms, 2) if other else None,
                "unit": "ms a 1,000 characters",
                "cases": len(made),
                "locales": len(SENTENCES),
                "kinds": {kind: f.as_json() for kind, f in figures.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
