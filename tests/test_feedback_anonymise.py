"""Personal data is replaced before it is stored, and ordinary text is left alone."""

from __future__ import annotations

import time

import pytest

from rlhf.feedback import anonymise
from rlhf.feedback.anonymise import mask

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
    ],
}
IN_CONTEXT = [
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


def test_the_order_of_the_detectors_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "password=4111111111111111a, +14155552671@x.org, api_key=a@b.co0123456789abcdef, 10.0.0.1@host.example"
    forward = mask(text)
    monkeypatch.setattr(anonymise, "_DETECTORS", anonymise._DETECTORS[::-1])
    assert mask(text) == forward


@pytest.mark.parametrize(
    "text",
    [
        "a" * 500_000 + "@",
        "@" * 200_000,
        "1" * 500_000,
        "1 " * 250_000,
        ":" * 300_000,
        "key" * 150_000,
        "+1 2" * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 2_000,
        "a.b@" * 100_000,
        "1." * 200_000,
    ],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    begin = time.process_time()
    mask(text)
    assert time.process_time() - begin < 4
