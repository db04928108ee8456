"""Personal data is replaced before it is stored, and ordinary text is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.errors import BadUsage
from rlhf.feedback import anonymise, person_names
from rlhf.feedback.anonymise import mask, mask_in, placeholders

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import table_anonymise as table

PERSONAL = {
    "<EMAIL>": ["a@b.co", "x.y+z@mail.example.org", "o'neil@ex.com", "JÜRGEN@büro.example"],
    "<PHONE>": [
        "+1 415-555-2671",
        "+44 20 7946 0958",
        "+49 (0) 30 1234567",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-800-555-2671",
        "020 7946 0958",
        "0171 1234567",
        "+14155552671",
    ],
    "<CARD>": [
        "4111 1111 1111 1111",
        "4111111111111111",
        "378282246310005",
        "3782 822463 10005",
        "5555-5555-5555-4444",
    ],
    "<IP>": [
        "192.168.1.1",
        "8.8.8.8",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "fe80::1ff:fe23:4567:890a",
        "2001:db8::1",
    ],
    "<KEY>": [
        "AKIAIOSFODNN7EXAMPLE",
        "sk-abcdefghijklmnopqrstuvwx",
        "sk-proj-abcDEF0123456789abcdef",
        "ghp_" + "a1" * 18,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
        "xoxb-123456789012-abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
        "hf_" + "aB3" * 12,
        "npm_" + "aB3" * 12,
    ],
    "<IBAN>": [
        "DE89 3704 0044 0532 0130 00",
        "GB82WEST12345698765432",
        "NO9386011117947",
        "FR14 2004 1010 0505 0001 3M02 606",
    ],
    "<ID>": [
        "536-90-4399",  # United States
        "JM 12 34 56 C",  # United Kingdom, national insurance
        "12345678Z",
        "X-1234567-L",  # Spain
        "RSSMRA85T10A562S",  # Italy
        "2 95 10 99 126 111 93",  # France
        "529.982.247-25",  # Brazil
        "811228-9874",  # Sweden
        "131052-308T",  # Finland
        "11010519491231002X",  # China
        "756.9217.0769.85",  # Switzerland
        "85.07.30-033.28",  # Belgium
        "12.531.909-2",  # Chile
    ],
    "<ADDRESS>": [
        "1600 Pennsylvania Avenue",
        "350 5th Ave, Apt 12",
        "221B Baker Street",
        "Flat 3, 12 Elm Grove",
        "Hauptstraße 5a",
        "Hans-Meier-Straße 12",
        "Prinsengracht 263",
        "12 bis rue de la Paix",
        "Calle de Alcalá, 42",
        "Rua das Flores, 123",
        "Via Giuseppe Verdi, 7",
        "ul. Marszałkowska 12/3",
    ],
}
IN_CONTEXT = [
    ("https://host.example/@name", "https://host.example/@<USER>"),
    ("see github.com/name.", "see github.com/<USER>."),
    ("https://github.com/name/project#readme", "https://github.com/<USER>/project#readme"),
    ("https://host.example/users/name?tab=1", "https://host.example/users/<USER>?tab=1"),
    ("https://stackoverflow.com/users/12/jane-doe", "https://stackoverflow.com/users/12/<USER>"),
    ("https://user:password@host.example/x", "https://<USER>@host.example/x"),
    ("postgresql://ann:s3cret@db.example:5432/x", "postgresql://<USER>@db.example:5432/x"),
    ("https://host.example/~jane/a.html", "https://host.example/~<USER>/a.html"),
    ("Mein Telefon: 03053 56960", "Mein Telefon: <PHONE>"),
    ("Meu telefone é 87 6259-2034", "Meu telefone é <PHONE>"),
    ("mon numéro de téléphone est le 0256147357", "mon numéro de téléphone est le <PHONE>"),
    ("PESEL 44051401359", "PESEL <ID>"),
    ("Meine Steuer-ID ist 36574261809", "Meine Steuer-ID ist <ID>"),
    ("BSN: 111222333", "BSN: <ID>"),
    ("my NHS number is 943 476 5919", "my NHS number is <ID>"),
    ("Authorization: Bearer abcdefghij0123456789abcd", "Authorization: Bearer <KEY>"),
    ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <IBAN> BIC COBADEFF"),
    ("my phone is 5551234567", "my phone is <PHONE>"),
    ("call me at 555 123 4567 tonight", "call me at <PHONE> tonight"),
    ("Tel: 06 12 34 56 78", "Tel: <PHONE>"),
    ("phone number: 555-2671.", "phone number: <PHONE>."),
    ("password=deadbeefdeadbeef01", "password=<KEY>"),
    ("api_key: 'c2VjcmV0LXZhbHVlLTEyMw=='", "api_key: '<KEY>'"),
    ("Password: hunter22", "Password: <KEY>"),
    ("http://10.0.0.1:8080/x", "http://<IP>:8080/x"),
    ("mail a@b.co or c@d.org, or 415-555-2671", "mail <EMAIL> or <EMAIL>, or <PHONE>"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE and no end", "<KEY>"),
]
ORDINARY = [
    "DE89 3704 0044 0532 0130 01",
    "12345678A",
    "44051401359",
    "PESEL 44051401358",
    "000-12-3456",
    "RSSMRA85T10A562T",
    "in 2008 Wall Street fell",
    "the 9 Supreme Court judges",
    "Parkplatz 12",
    "5 Great Lakes",
    "https://x.org/users/login",
    "github.com/features",
    "https://www.npmjs.com/package/@types/node",
    "https://maps.example/@48.85,2.35,15z",
    "git clone git@host",
    "https://api.example/users/{name}",
    "a/b and c/d",
    "the bearer of bad news",
    "in 2019-2020",
    "from 1999 to 2005",
    "$1,234,567.89",
    "1 000 000 000",
    "3.14159265358979",
    "version 1.2.3.4",
    "v10.2.3.4",
    "python 3.11.7",
    "10:30:45",
    "12:30 2024-01-15",
    "2024-01-15T10:30:45",
    "ISBN 978-3-16-148410-0",
    "ISBN 0-306-40615-2",
    "9783161484100",
    "123456789 * 987654321",
    "100-200-3000",
    "555-123-4567 = -4135",
    "1234567",
    "call 911",
    "std::vector<int>",
    "a::b",
    "x :: Int",
    "password: required",
    "the token is missing",
    "secret: something nice",
    "4111 1111 1111 1112",
    "@home",
    "hi @ 5",
    "1234-5678",
    "200 300 4000",
    "01 02 03 04 05",
    "call the function 1234567",
    "5+12345678",
    "order 1234567890123456",
    "1/2/2020 - 3/4/2021",
    "0.1234567890",
    "1.2.3",
    "sk-learn is nice",
    "2,147,483,647",
    "+5%",
    "+10000000%",
    "1,2,3,4,5,6,7,8,9",
    "pp. 123-4567",
    "the password is important",
    "Ada::B2",
    "1.2.3.4.5",
    "999.999.999.999",
    "6:00 - 7:30",
    "0000000000000000",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_replaced_by_its_kind(kind: str, text: str) -> None:
    clean, counts = mask(f"so {text} then")
    assert clean == f"so {kind} then"
    assert counts == {kind.strip("<>").lower(): 1}


@pytest.mark.parametrize(("text", "clean"), IN_CONTEXT)
def test_context_tells_what_a_number_or_word_is(text: str, clean: str) -> None:
    assert mask(text)[0] == clean


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert mask(f"so {text} then") == (f"so {text} then", {})


def test_masking_twice_changes_nothing_more() -> None:
    everything = " and ".join(
        [text for texts in PERSONAL.values() for text in texts] + [text for text, _ in IN_CONTEXT]
    )
    once, _ = mask(everything)
    assert mask(once) == (once, {})


PIECES = [text for texts in PERSONAL.values() for text in texts] + [text for text, _ in IN_CONTEXT] + ORDINARY
MIXED = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text("aA19 @.:/-+_()<>é", max_size=12)), min_size=1, max_size=6
).flatmap(lambda pieces: st.sampled_from(["", " ", ", ", "/", "\n"]).map(lambda glue: glue.join(pieces)))


@settings(deadline=None, max_examples=300)
@given(MIXED)
def test_what_is_masked_stays_as_it_is_and_is_counted(text: str) -> None:
    clean, counts = mask(text)
    assert mask(clean) == (clean, {})
    before, after = Counter(placeholders([text])), Counter(placeholders([clean]))
    assert sum(after.values()) <= sum(before.values()) + sum(counts.values())
    assert bool(counts) == (clean != text)


@settings(deadline=None, max_examples=300)
@given(MIXED, st.permutations(anonymise._DETECTORS))
def test_the_order_of_the_detectors_decides_nothing(text: str, order: Any) -> None:
    forward = mask(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymise, "_DETECTORS", tuple(order))
        assert mask(text) == forward


def test_every_text_in_a_value_is_masked() -> None:
    counts: Counter[str] = Counter()
    assert mask_in({"topic": "mail a@b.co", "n": [1, "10.0.0.1", None]}, counts) == {
        "topic": "mail <EMAIL>",
        "n": [1, "<IP>", None],
    }
    assert counts == {"email": 1, "ip": 1}


# Under what was measured with 20 a kind and locale (`scripts/table_anonymise.py`), by about an interval's half width.
FLOORS = {
    "email": 0.97, "phone": 0.75, "card": 0.9, "iban": 0.97, "ip": 0.97, "user": 0.97, "id": 0.7, "address": 0.75, "key": 0.97,
}  # fmt: skip


def test_recall_and_precision_hold_on_generated_cases() -> None:
    made = table.cases(each=6, seed=1)
    figures, _ = table.measured(made, anonymise.found)
    assert len(made) > 600 and len({case.locale for case in made}) >= 6
    for kind, floor in FLOORS.items():
        f = figures[kind]
        assert f.n >= 50 and f.hits / f.n >= floor, f"{kind}: {f.hits} of {f.n} found"
        assert f.right / f.n_spans >= 0.97, f"{kind}: {f.right} of {f.n_spans} right"


def test_the_measured_set_is_the_same_every_time() -> None:
    assert table.cases(1, 3) == table.cases(1, 3) != table.cases(1, 4)


def _in_process(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=False
    )


def test_check_digits_are_loaded_with_the_first_number_and_nothing_heavier_at_all() -> None:
    code = """
import sys
from rlhf.feedback.anonymise import mask
mask("an ordinary text of 3 words")
print("stdnum" in sys.modules, end=" ")
mask("IBAN DE89 3704 0044 0532 0130 00")
print("stdnum" in sys.modules, "spacy" in sys.modules)
"""
    assert _in_process(code).stdout == "False True False\n"


def test_names_asked_for_without_a_model_shut_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(person_names.MODEL, "no_such_model_anywhere")
    with pytest.raises(BadUsage, match=person_names.MODEL) as refused:
        mask("Ada Lovelace wrote it")
    assert "stored as they are" in refused.value.fix
    monkeypatch.delenv(person_names.MODEL)
    assert mask("Ada Lovelace wrote it") == ("Ada Lovelace wrote it", {})


def test_names_are_masked_where_a_model_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real pipeline of spaCy's whose entities are listed: no trained model can be fetched in a test."""
    spacy = pytest.importorskip("spacy", reason="the extra `names` is not installed")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "PERSON", "pattern": "NAME"}]
    )
    pipeline.to_disk(tmp_path / "model")
    monkeypatch.setenv(person_names.MODEL, str(tmp_path / "model"))
    clean, counts = mask("Ada Lovelace, a@b.co, wrote to Ada Lovelace.")
    assert (clean, counts) == ("<NAME>, <EMAIL>, wrote to <NAME>.", {"name": 2, "email": 1})
    assert mask(clean) == (clean, {})


HOSTILE = [
    "a", "@", "1", "1 ", ":", "key", "+1 2", "-----BEGIN PRIVATE KEY-----", "a.b@", "1.", "A-", "A-a", "Aa ", "1 A ", "AA11",
    "12 Aa Bb Cc ", "rue de la ", "1 rue de ", "Via d'A ", "DE89 3704 ", "ssn ", "nif a", "://", "https://a/@", "https://a:b",
    "/users/", "Straße ", "tel ", "phone (", "bearer ", "1a", "x.com/", "a1B", "12-", "password:", "C. A ", "Flat 1 ",
]  # fmt: skip


PROSE = "In 2019 the house of Anna Smith had 3 doors, and one of them was open. "


def _work(piece: str, n_chars: int) -> float:
    """Processor seconds for that much of it; the shortest of some runs, so that a busy machine decides nothing."""
    text = piece * (n_chars // len(piece)) + "1234567890"
    taken = []
    for _ in range(3):
        begin = time.process_time()
        anonymise.found(text)
        taken.append(time.process_time() - begin)
    return min(taken)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_costs_what_prose_costs_and_grows_as_it_does(piece: str) -> None:
    """Four times the text is about four times the work, and not sixteen; and no more than some times that of prose."""
    short = _work(piece, 20_000)
    assert short < 20 * _work(PROSE, 20_000)
    assert _work(piece, 80_000) < 9 * short + 0.02
