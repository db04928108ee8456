"""The folder of an ensemble: `ensemble.json` names its members by digest and says how their scores become one.

    {"members": ["<64 hex digits>", ...], "combine": "mean" | "min" | "mean_minus_sd", "k": 1.0, "scale": 1.0}

The members are the version's parents with the relation `member`; their scores times `scale` are combined. It has no weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from rlhf.errors import BadInput, NotFound
from rlhf.registry.folder import FILES
from rlhf.store.tables import versions

COMBINE = ("mean", "min", "mean_minus_sd")
CONFIG_NAME = FILES["ensemble"][0]
MEMBER = "member"
_KEYS = ("combine", "k", "members", "scale")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_AGAIN = "make the ensemble again of versions that are here"


def check(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that isn't exactly what an ensemble has."""
    if config.keys() != set(_KEYS):
        wrong = sorted(config.keys() ^ set(_KEYS))[0]
        said = "lacks" if wrong in _KEYS else "has the unknown key"
        raise BadInput(f"{CONFIG_NAME} {said} {wrong}; it has {', '.join(_KEYS)}", fix=_AGAIN)
    members = config["members"]
    if not isinstance(members, list) or not all(isinstance(m, str) and _DIGEST.fullmatch(m) for m in members):
        raise BadInput(f"{CONFIG_NAME} has members {members!r}, wanted a list of versions' digests", fix=_AGAIN)
    if len(members) < 2 or len(set(members)) < len(members):
        raise BadInput(
            f"{CONFIG_NAME} has {len(members)} members, {len(set(members))} different; wanted two or more, each once",
            fix=_AGAIN,
        )
    if config["combine"] not in COMBINE:
        raise BadInput(
            f"{CONFIG_NAME} has combine {config['combine']!r}, wanted one of {', '.join(COMBINE)}", fix=_AGAIN
        )
    for key, least, words in (("k", 0.0, "0 or more"), ("scale", math.ulp(0.0), "above 0")):
        value = config[key]
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < math.inf:
            raise BadInput(f"{CONFIG_NAME} has {key} {value!r}, wanted a number, {words}", fix=_AGAIN)


def check_parents(config: Mapping[str, Any], parents: Sequence[Sequence[str]]) -> None:
    """The members are the version's parents with the relation `member`, no more and no less."""
    named = sorted(digest for relation, digest in parents if relation == MEMBER)
    if named != sorted(config["members"]):
        raise BadInput(
            f"{CONFIG_NAME} names {len(config['members'])} members, the parents are {len(named)}, not the same",
            fix="name each member as a parent with the relation member",
        )


def check_members(connection: Connection, config: Mapping[str, Any], base_digest: str, shown: str) -> None:
    """Each member is a reward here, of its own weights, on the ensemble's base. Raises NotFound naming those that are missing, or
    BadInput."""
    rows = connection.execute(select(versions).where(versions.c.digest.in_(config["members"]))).all()
    if missing := sorted(set(config["members"]) - {row.digest for row in rows}):
        names = ", ".join(f"sha256:{digest[:12]}" for digest in missing)
        raise NotFound(
            f"{shown} has {len(config['members'])} members, and {len(missing)} of them are no versions here: {names}",
            fix="an ensemble holds no weights: export its members where it was trained, and import them first",
        )
    for row in rows:
        named = f"the member {row.name}@{row.number} of {shown}"
        if row.role != "reward" or row.kind == "ensemble":
            raise BadInput(f"{named} is a {row.role} of kind {row.kind}, wanted a reward with a head", fix=_AGAIN)
        if row.base_digest != base_digest:
            raise BadInput(f"{named} stands on another base", fix="combine rewards of one base")
