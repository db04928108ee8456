"""Store: where everything is kept.

Takes: records, and folders to publish. Gives: records, and paths of folders checked against their digests.
Writes: one database (SQLite or PostgreSQL), one artifact root (a folder or S3), the append-only audit log; backups, each as
secret as the workspace: it holds everybody's words and the key.
Never: decides what may be stored, reads a user's file, removes what was published (but, to meet a disk budget, files of retired
versions that nothing names), imports torch.

`Workspace` is the handle that every other room takes as its first argument. The tables are read and written by the rooms
that own the nouns, inside `workspace.write(...)` and `workspace.read()`; the schema is `tables.py` alone.
"""

from rlhf.store.artifacts import Artifacts
from rlhf.store.workspace import Workspace, Write

__all__ = ["Artifacts", "Workspace", "Write"]
