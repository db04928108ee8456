"""A person whom a file names by an e-mail address is kept under a pseudonym: names stand in exports, reports and the audit log.

It is an HMAC of the address under the workspace's key, so the same person has the same one in every import, and without the key
nobody can tell it from a list of addresses. So such a row's digest is another one in another workspace; others' aren't touched.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from rlhf.feedback.anonymise import mask


@lru_cache(maxsize=8192)
def person_of(workspace_key: str, name: str) -> str:
    """The name as it may be kept: itself, or `person-` and 16 hex digits where an address stands in it."""
    if "@" not in name or "email" not in mask(name)[1]:
        return name
    told = hmac.new(workspace_key.encode(), f"person\x00{name.strip().casefold()}".encode(), hashlib.sha256)
    return f"person-{told.hexdigest()[:16]}"
