"""What a training's words name is looked up before torch is loaded: a misspelled name is answered in a second, not in ten.

The rooms look everything up again when they open it; this decides nothing that they don't.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhf.records import Role
    from rlhf.store import Workspace


def require_known(
    workspace: Workspace,
    name: str,
    base: str,
    snapshot: str | None = None,
    versions: Iterable[tuple[str | None, Role]] = (),
) -> None:
    """Raises what the training would on a name that can't be, or a snapshot, base or version that isn't there.

    versions: each with the role that it must have; None names nothing.
    """
    from rlhf import registry
    from rlhf.engine import bases
    from rlhf.snapshots import names

    registry.check_name(name)
    if snapshot is not None:
        with workspace.read() as connection:
            names.find(connection, snapshot)
    bases.get(workspace, base)
    for version, role in versions:
        if version is not None:
            registry.resolve(workspace, version, role=role)
