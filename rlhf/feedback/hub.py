"""Hub: preference sets of the Hugging Face hub, streamed through `datasets` under a pinned revision.

`hub:owner/name`, `hub:owner/name@revision`, `hub:owner/name:split` or both; the split is `train` unless named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.feedback.rows import Row
from rlhf.ids import digest_of

HUB = "hub:"
_ID = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?(?::(?P<split>[\w.-]+))?")


@dataclass(frozen=True, slots=True)
class HubInput:
    """A hub data set. Its content is named by id, commit and split; `name` says what the user asked for."""

    name: str
    dataset: str
    revision: str
    split: str

    @property
    def unit(self) -> str:
        return "row"

    @property
    def sha256(self) -> str:
        return digest_of({"hub": self.dataset, "revision": self.revision, "split": self.split})

    @property
    def n_bytes(self) -> int:
        return 0

    def rows(self) -> Iterator[Row]:
        """Rows from 1, streamed: nothing is kept on the disk."""
        from datasets import load_dataset

        try:
            yield from numbered(load_dataset(self.dataset, revision=self.revision, split=self.split, streaming=True))
        except (OSError, ValueError) as error:
            raise _unreachable(self.name, error) from None


def numbered(records: Iterable[Any]) -> Iterator[Row]:
    """Records as rows; columns that a row hasn't (null) are left out, as in a JSON line that lacks them."""
    for number, record in enumerate(records, 1):
        yield Row(number, {key: value for key, value in dict(record).items() if value is not None})


def open_hub(name: str) -> HubInput:
    """Resolve a hub id to a commit. Raises BadUsage on a malformed id, BadInput where the hub or the set can't be
    reached.
    """
    found = _ID.fullmatch(name)
    if not found:
        raise BadUsage(
            f"'{name}' is no hub id", fix="write hub:owner/name, hub:owner/name@revision or hub:owner/name:split"
        )
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(found["name"], revision=found["revision"], timeout=20).sha
    except Exception as error:  # the client's own, requests', httpx's: all mean that we didn't get there
        raise _unreachable(name, error) from None
    return HubInput(name, found["name"], str(revision), found["split"] or "train")


def _unreachable(name: str, error: Exception) -> BadInput:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return BadInput(
        f"{name} can't be read from the hub: {reason}",
        fix="check the id, the network and HF_TOKEN; or download the files and import those",
    )
