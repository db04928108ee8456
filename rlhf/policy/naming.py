"""What writes replies, by its name: a policy version or a bare base. Found without torch: a wrong name is refused at once."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf import registry
from rlhf.engine import bases
from rlhf.records import VersionRef
from rlhf.store import Workspace

BARE = "base:"


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """What writes: a policy version, or a bare base. text: as it is shown; digest: the version's, or the base's."""

    text: str
    digest: str
    base_digest: str
    ref: VersionRef | None

    @property
    def is_base(self) -> bool:
        return self.ref is None


def resolve_policy(workspace: Workspace, text: str) -> PolicyRef:
    """The one policy version or base that `text` means. Raises NotFound, or BadInput for a reward. Never another's answer."""
    if text.startswith(BARE):
        base = bases.get(workspace, text.removeprefix(BARE))
        return PolicyRef(text, base.digest, base.digest, None)
    ref = registry.resolve(workspace, text, role="policy")
    manifest = registry.show(workspace, ref).manifest
    return PolicyRef(str(ref), ref.digest, manifest["base"]["digest"], ref)
