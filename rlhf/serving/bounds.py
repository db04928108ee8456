"""How a server serves: every setting once, with its help."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rlhf.config import Settings


class ServeSettings(Settings):
    """Limits of one server, and the length of a reply that names none."""

    LISTED_BY: ClassVar[str] = "rlhf serve --settings"

    rows: int = Field(default=16, ge=1, le=1024, description="replies computed at a time")
    slots: int = Field(
        default=16,
        ge=1,
        le=512,
        description="versions in memory at a time: arms, shadows, an ensemble's members each, and one more at least",
    )
    max_rank: int = Field(default=64, ge=1, le=512, description="highest rank of a version's LoRA that fits a slot")
    queue: int = Field(default=64, ge=0, description="replies that may wait for a row; one more is refused with 429")
    deadline_s: float = Field(default=120.0, gt=0, description="seconds a request may take, its waiting included")
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="seconds that requests under way have to end after SIGTERM; then they are cut off",
    )
    max_tokens: int = Field(
        default=1024, ge=1, description="tokens of a reply whose request names no number: a default, no limit"
    )
    body_bytes: int = Field(default=1 << 20, ge=1024, description="bytes of a request's body")
    per_s: float = Field(default=50.0, gt=0, description="requests a second of one token, over time")
    burst: int = Field(default=500, ge=1, description="requests of one token at once, before per_s counts")
    votes_per_unit: int = Field(default=50, ge=1, description="outcomes a day that one user may send")
