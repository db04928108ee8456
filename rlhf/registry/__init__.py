"""Registry: finished runs become immutable versions behind movable aliases.

Takes: a PEFT folder with its draft and evidence; a version's or an alias's name. Gives: version references, folders
checked against their digests, lineage, differences, stock PEFT folders. Writes: `versions/` under the artifact root,
the tables of versions, parents, alias moves and sign-offs. Never: loads a model, imports torch, unpickles a file,
answers an unknown name with the base.
"""

from rlhf.registry.publish import Evidence, VersionDraft, publish
from rlhf.registry.versions import OpenVersion, VersionRow, list_versions, open_version, resolve, retire, show

__all__ = [
    "Evidence",
    "OpenVersion",
    "VersionDraft",
    "VersionRow",
    "list_versions",
    "open_version",
    "publish",
    "resolve",
    "retire",
    "show",
]
