"""Base models of a workspace: named, digested, and held against their digests before they are used.

A base's digest covers configuration and tensors, its tokenizer's and template's digests what turns a chat into tokens; none covers
file layout. How one is brought in stands in `base_sources.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from rlhf.errors import BadInput, Damaged, NotFound
from rlhf.ids import digest_file, digest_of
from rlhf.store import Workspace
from rlhf.store.tables import bases
from rlhf.store.tensors import tensors_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
OTHER_FILES = ("config.json", "generation_config.json", "chat_template.jinja", "model.safetensors.index.json")
# Keys of config.json that say where or with what a model was saved, not what it is.
VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config", "use_cache")


@dataclass(frozen=True, slots=True)
class Base:
    """A base model in the workspace. Digests: the model's, its tokenizer's, its chat template's."""

    name: str
    digest: str
    folder: Path
    tokenizer_digest: str
    template_digest: str
    details: Mapping[str, Any]  # architecture, layers, hidden size, vocabulary, parameters
    origin: Mapping[str, Any]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "tokenizer": self.tokenizer_digest,
            "template": self.template_digest,
            **self.details,
            "origin": dict(self.origin),
            "path": str(self.folder),
        }


def get(workspace: Workspace, name: str) -> Base:
    """The base of that name. Raises NotFound naming those that are there."""
    with workspace.read() as connection:
        row = connection.execute(select(bases).where(bases.c.name == name)).first()
    if row is None:
        known = ", ".join(base.name for base in list_bases(workspace)) or "none"
        raise NotFound(
            f"no base '{name}' in the workspace (there: {known})",
            fix=f"add it: rlhf base add {name} --dir FOLDER (or --gguf FILE, or --hub ID)",
        )
    return _from_row(workspace, row)


def by_digest(workspace: Workspace, digest: str) -> Base:
    """The base with that digest, whatever its name here. Raises NotFound."""
    with workspace.read() as connection:
        row = connection.execute(select(bases).where(bases.c.digest == digest)).first()
    if row is None:
        raise NotFound(
            f"no base with digest {digest[:12]} in the workspace", fix="add the base that the version was trained on"
        )
    return _from_row(workspace, row)


def list_bases(workspace: Workspace) -> list[Base]:
    with workspace.read() as connection:
        return [_from_row(workspace, row) for row in connection.execute(select(bases).order_by(bases.c.name))]


def _from_row(workspace: Workspace, row: Any) -> Base:
    details = json.loads(row.details)
    tokenizer_digest, template_digest = details.pop("tokenizer_digest"), details.pop("template_digest")
    return Base(
        row.name,
        row.digest,
        workspace.root / row.path,
        tokenizer_digest,
        template_digest,
        details,
        json.loads(row.origin),
    )


def check(workspace: Workspace, base: Base, *, afresh: bool = False) -> None:
    """Hold a base's files against its digests before it is used. Raises Damaged.

    A second's reading for 500 MB, so that it is done again only where a file's size or time changed since the last check
    (afresh: in any case).
    """
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(base.folder.glob("*")) if f.is_file()]
    seen = workspace.root / "cache" / "bases" / f"{base.digest}.json"
    is_known = seen.exists() and seen.read_text("utf-8") == json.dumps(stamp)
    if is_known and not afresh:
        return
    try:
        config, weights = checked(base.folder)
        found = (content_digest(config, weights), *tokenizer_digests(base.folder))
    except (BadInput, OSError) as error:
        raise Damaged(f"base '{base.name}' is not whole: {error}", fix="add it again under another name") from None
    for what, ours, theirs in zip(
        ("weights or configuration", "tokenizer", "chat template"),
        (base.digest, base.tokenizer_digest, base.template_digest),
        found,
        strict=True,
    ):
        if ours != theirs:
            raise Damaged(
                f"base '{base.name}': its {what} in {base.folder} changed since it was added",
                fix="restore the files; until then nothing is scored or trained with it",
            )
    if not is_known:
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.write_text(json.dumps(stamp), "utf-8")


def problems(workspace: Workspace) -> list[str]:
    """What is wrong with the workspace's bases, each read whole."""
    said = []
    for base in list_bases(workspace):
        try:
            check(workspace, base, afresh=True)
        except Damaged as error:
            said.append(error.message)
    return said


def content_digest(config: Mapping[str, Any], weights: list[Path]) -> str:
    kept = {k: v for k, v in config.items() if k not in VOLATILE}
    return digest_of({"config": kept, "tensors": tensors_digest(weights)})


def checked(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """The folder's config and weight files, or BadInput that says what is missing."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{folder} has no config.json", fix="give a transformers model folder") from None
    except ValueError as error:
        raise BadInput(f"{folder / 'config.json'} is not JSON: {error}", fix="restore the file") from None
    if config.get("auto_map"):
        raise BadInput(
            f"{folder} wants code of its own (auto_map)",
            fix="use a model that transformers knows: remote code is never run",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(
            f"{folder} has no safetensors weights", fix="convert them: pickled weights (.bin, .pt) are never loaded"
        )
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise BadInput(f"{folder} has no tokenizer", fix="save the tokenizer beside the model")
    return config, weights


def tokenizer_digests(folder: Path) -> tuple[str, str]:
    """Digest of the tokenizer's files, and of its chat template. Raises BadInput where there is no template."""
    template_file = folder / "chat_template.jinja"
    settings = {}
    if (folder / "tokenizer_config.json").exists():
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    template = template_file.read_text("utf-8") if template_file.exists() else settings.get("chat_template")
    if not template:
        raise BadInput(
            f"{folder} has a tokenizer without a chat template",
            fix="add chat_template.jinja: chats are rendered with it",
        )
    parts = {
        name: digest_file(folder / name)
        for name in TOKENIZER_FILES
        if (folder / name).exists() and name not in ("tokenizer_config.json", "special_tokens_map.json")
    }
    special = {
        k: v
        for k, v in settings.items()
        if k.endswith("_token") or k in ("add_bos_token", "add_eos_token", "tokenizer_class")
    }
    return digest_of({"files": parts, "special": special}), digest_of(template)
