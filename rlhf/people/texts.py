"""Guidelines and consent: versioned texts, who agreed to which, and taking it back.

A text is never edited: a new one is the next version, and whoever labels is asked again before the next pair. What was agreed
to stands on every judgement as the guideline's digest and the consent's scopes. The latest entry of a person is in force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, select

from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.ids import digest_of, new_id, now_text
from rlhf.people import accounts
from rlhf.records import CONSENT_SCOPES, PAGE_SOURCE, Judgement
from rlhf.store import Workspace, Write
from rlhf.store.tables import agreements, texts

Kind = Literal["guideline", "consent"]
BASES = (
    "consent",
    "contract",
    "legitimate-interest",
    "public-task",
)  # of the GDPR's article 6, those that can carry labeling
_MAX_CHARACTERS = 20_000
_GUIDELINE = """Read the conversation, then both replies. Choose the one that you would rather have got.

- Where they are equally good, say tie.
- Where neither is acceptable, say both bad.
- Where you can't tell (not your language, not your field, something is broken), skip and say why.

Which reply stands first is drawn by chance. Judge what is written, not how long it is."""
_CONSENT = (
    "Your answers are used to train and to measure language models. They are kept under a pseudonym, with the time that each took "
    "and the notes that you write. No e-mail, name or address of yours is kept here.\n\n"
    "You may take this back at any time: your answers are then left out of every data set, training, measurement and export that "
    "is made from that moment on. Models that were trained before keep what they learned, until they are trained again."
)
_SCOPES, _BASIS = ("evaluate", "train"), "consent"  # of that text


@dataclass(frozen=True, slots=True)
class Text:
    """A version of a text. number 0: the one that comes with rlhf. scopes and basis: of a consent text, () and "" else."""

    kind: Kind
    number: int
    digest: str
    body: str
    scopes: tuple[str, ...] = ()
    basis: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "number": self.number,
            "digest": self.digest,
            "body": self.body,
            "scopes": list(self.scopes),
            "basis": self.basis,
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a person last agreed to. is_withdrawn: they have taken it back; is_current: both texts are still the latest."""

    name: str
    guideline: str
    consent: str
    scopes: tuple[str, ...]
    at: str
    is_withdrawn: bool
    is_current: bool

    @property
    def is_in_force(self) -> bool:
        return self.is_current and not self.is_withdrawn

    def as_json(self) -> dict[str, Any]:
        return {
            "guideline": self.guideline,
            "consent": self.consent,
            "scopes": list(self.scopes),
            "at": self.at,
            "in_force": self.is_in_force,
            "withdrawn": self.is_withdrawn,
        }


def publish_text(
    workspace: Workspace,
    kind: Kind,
    body: str,
    *,
    scopes: Iterable[str] = ("evaluate", "train"),
    basis: str = "consent",
) -> Text:
    """The next version of a text; the latest one again is that version. From now on whoever labels is asked to agree anew.

    scopes, basis: what a consent text allows (train, evaluate, publish) and on which legal basis. Raises BadInput for an empty or
    overlong body, BadUsage for a scope or basis that isn't known.
    """
    body = body.strip()
    if not body or len(body) > _MAX_CHARACTERS or "\x00" in body:
        raise BadInput(
            f"the text has {len(body)} characters", fix=f"give one of 1 to {_MAX_CHARACTERS} characters, without NUL"
        )
    asked, basis = _terms(kind, scopes, basis)
    digest = _digest(kind, body, asked, basis)
    with workspace.write() as write:
        latest = current(write.connection, kind)
        if latest.digest == digest:
            return latest
        row = {
            "kind": kind,
            "number": latest.number + 1,
            "digest": digest,
            "body": body,
            "scopes": ",".join(asked),
            "basis": basis,
            "actor": write.actor,
            "created_at": now_text(),
        }
        write.connection.execute(texts.insert().values(**row))
        write.audit(f"people.{kind}", digest[:12], {"number": row["number"], "scopes": list(asked), "basis": basis})
    return Text(kind, int(row["number"]), digest, body, asked, basis)


def current(connection: Connection, kind: Kind) -> Text:
    """The latest version; where none was published, the one that comes with rlhf."""
    row = connection.execute(select(texts).where(texts.c.kind == kind).order_by(texts.c.number.desc()).limit(1)).first()
    if row is not None:
        return Text(kind, row.number, row.digest, row.body, tuple(filter(None, row.scopes.split(","))), row.basis)
    body, scopes, basis = (_GUIDELINE, (), "") if kind == "guideline" else (_CONSENT, _SCOPES, _BASIS)
    return Text(kind, 0, _digest(kind, body, scopes, basis), body, scopes, basis)


def current_texts(workspace: Workspace) -> tuple[Text, Text]:
    """The guideline and the consent text that are in force."""
    with workspace.read() as connection:
        return current(connection, "guideline"), current(connection, "consent")


def agree_in(write: Write, name: str, guideline: str, consent: str) -> Agreement:
    """Note that a person agreed to the two texts, named by digest. Raises Conflict where one of them isn't the latest."""
    latest = current(write.connection, "guideline"), current(write.connection, "consent")
    for text, read in zip(latest, (guideline, consent), strict=True):
        if text.digest != read:
            raise Conflict(f"the {text.kind} has changed since you read it", fix="read the new one, then agree")
    _append(write, name, "agree", guideline, consent, latest[1].scopes)
    agreed = agreement_of(write.connection, name)
    assert agreed is not None
    return agreed


def agree(workspace: Workspace, name: str, guideline: str, consent: str) -> Agreement:
    """`agree_in` in a transaction of its own, in that person's name."""
    with workspace.as_actor(name).write() as write:
        return agree_in(write, name, guideline, consent)


def withdraw(workspace: Workspace, name: str) -> Agreement:
    """A person takes their consent back. Raises Conflict where there is none to take back."""
    accounts.check_name(name)
    with workspace.write() as write:
        before = agreement_of(write.connection, name)
        if before is None or before.is_withdrawn:
            raise Conflict(f"'{name}' has no consent to take back", fix="nothing is left to do")
        _append(write, name, "withdraw", before.guideline, before.consent, before.scopes)
        after = agreement_of(write.connection, name)
        assert after is not None
        return after


def agreement_of(connection: Connection, name: str) -> Agreement | None:
    """The person's latest entry, or None."""
    row = connection.execute(
        select(agreements).where(agreements.c.account == name).order_by(agreements.c.id.desc()).limit(1)
    ).first()
    if row is None:
        return None
    latest = {kind: current(connection, kind).digest for kind in ("guideline", "consent")}
    is_current = (row.guideline, row.consent) == (latest["guideline"], latest["consent"])
    scopes = tuple(filter(None, row.scopes.split(",")))
    return Agreement(name, row.guideline, row.consent, scopes, row.at, row.action == "withdraw", is_current)


def withdrawn(connection: Connection) -> set[str]:
    """Everybody whose latest entry takes their consent back."""
    last = select(func.max(agreements.c.id)).group_by(agreements.c.account)
    query = select(agreements.c.account).where(agreements.c.id.in_(last), agreements.c.action == "withdraw")
    return set(connection.scalars(query))


def took_back(judgement: Judgement, gone: Collection[str]) -> bool:
    """Whether it was given under a consent that was taken back since. gone: `withdrawn`."""
    return judgement.source == PAGE_SOURCE and judgement.labeler in gone


def _append(write: Write, name: str, action: str, guideline: str, consent: str, scopes: Iterable[str]) -> None:
    row = {
        "id": new_id(),
        "account": name,
        "action": action,
        "guideline": guideline,
        "consent": consent,
        "scopes": ",".join(scopes),
        "at": now_text(),
    }
    write.connection.execute(agreements.insert().values(**row))
    write.audit(f"people.{action}", name, {"guideline": guideline[:12], "consent": consent[:12]})


def _terms(kind: Kind, scopes: Iterable[str], basis: str) -> tuple[tuple[str, ...], str]:
    if kind == "guideline":
        return (), ""
    asked = tuple(sorted(set(scopes)))
    unknown = [scope for scope in asked if scope not in CONSENT_SCOPES]
    if unknown or not asked:
        raise BadUsage(
            f"no scope is called {', '.join(map(repr, unknown))}" if unknown else "a consent to nothing is no use",
            fix=f"the scopes are {', '.join(CONSENT_SCOPES)}",
        )
    if basis not in BASES:
        raise BadUsage(f"no legal basis is called {basis!r}", fix=f"use one of {', '.join(BASES)}")
    return asked, basis


def _digest(kind: str, body: str, scopes: tuple[str, ...], basis: str) -> str:
    return digest_of({"kind": kind, "body": body, "scopes": list(scopes), "basis": basis})
