"""Base models of a workspace: brought in once, named, digested, then only read.

A base comes from a folder, from a hub id at a pinned revision, or from a GGUF file (which is turned into a plain model once:
GGUF-loaded models refuse to be saved, and take 20 s to load). Its digest covers configuration and tensors, not file layout.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from rlhf.errors import BadInput, BadUsage, Conflict, Damaged, NotFound
from rlhf.ids import canonical_json, digest_file, digest_of, new_id, now_text
from rlhf.registry.locks import hold
from rlhf.store import Workspace, Write
from rlhf.store.tables import bases
from rlhf.store.tensors import tensors_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_OTHER_FILES = ("config.json", "generation_config.json", "chat_template.jinja", "model.safetensors.index.json")
# Keys of config.json that say where or with what a model was saved, not what it is.
_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "quantization_config", "use_cache")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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


def add_from_dir(workspace: Workspace, name: str, folder: Path | str) -> Base:
    """Copy a transformers folder (config, safetensors, tokenizer with a chat template) into the workspace.

    Raises BadInput where a part is missing or only pickled weights are there, Conflict where `name` is another base already.
    The same base under the same name again is that base.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(
            f"{folder} is no folder", fix="give --dir the folder that holds config.json and model.safetensors"
        )
    return _add(workspace, name, folder, {"kind": "dir", "folder": folder.name})


def add_from_hub(workspace: Workspace, name: str, hub_id: str, revision: str | None = None) -> Base:
    """Fetch a hub model at a pinned revision (the current commit where none is named) and add it.

    Raises BadInput where the hub can't be reached or has no such model.
    """
    from huggingface_hub import HfApi, snapshot_download

    hub_id, _, at = hub_id.partition("@")
    try:
        commit = HfApi().model_info(hub_id, revision=revision or at or None).sha
        folder = snapshot_download(
            hub_id, revision=commit, allow_patterns=[*_TOKENIZER_FILES, *_OTHER_FILES, "*.safetensors"]
        )
    except Exception as error:  # huggingface_hub, httpx and the socket each raise their own
        raise BadInput(
            f"{hub_id} can't be fetched from the hub: {type(error).__name__}: {error}",
            fix="check the id and the network, or bring the model with --dir or --gguf",
        ) from None
    return _add(workspace, name, Path(folder), {"kind": "hub", "id": hub_id, "revision": commit})


def add_from_gguf(workspace: Workspace, name: str, file: Path | str) -> Base:
    """Turn a GGUF file into a plain float32 model and add it (about 20 s for 135M parameters).

    Raises BadInput where transformers can't read the file.
    """
    file = Path(file)
    if not file.is_file():
        raise BadInput(f"no file at {file}", fix="give --gguf the path of a .gguf file")
    _check_name(name)
    staged = workspace.root / "cache" / "staging" / new_id()
    staged.mkdir(parents=True)
    try:
        gguf_to_folder(file, staged)
        return _add(workspace, name, staged, {"kind": "gguf", "file": file.name, "sha256": digest_file(file)})
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def gguf_to_folder(file: Path, folder: Path) -> None:
    """Write the GGUF model into `folder` as a plain float32 transformers model with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf.engine.quiet import quiet_loading

    try:
        with quiet_loading():
            loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the gguf package raises whatever its parser stumbles over
        raise BadInput(
            f"{file.name} can't be read as GGUF: {type(error).__name__}: {error}",
            fix="check that the file is a whole .gguf of an architecture that transformers reads",
        ) from None
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k not in _VOLATILE})
    config.architectures = [type(loaded).__name__]
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet_loading():
        plain.to(torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


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


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadUsage(f"'{name}' can't name a base", fix="use letters, digits, '.', '_' and '-', up to 100")


def _add(workspace: Workspace, name: str, source: Path, origin: Mapping[str, Any]) -> Base:
    _check_name(name)
    config, weights = _checked(source)
    tokenizer_digest, template_digest = _tokenizer_digests(source)
    _check_template(source)
    digest = _content_digest(config, weights)
    details = {
        "architecture": (config.get("architectures") or ["?"])[0],
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "vocabulary": config.get("vocab_size"),
        "tokenizer_digest": tokenizer_digest,
        "template_digest": template_digest,
    }
    (workspace.root / "bases").mkdir(exist_ok=True)
    staged = workspace.root / "bases" / f".{name}.{new_id()}"
    try:
        staged.mkdir()
        for file in sorted(source.iterdir()):
            if file.name in (*_TOKENIZER_FILES, *_OTHER_FILES) or file in weights:
                shutil.copy(file, staged / file.name)
        with workspace.write() as write:
            hold(write, f"bases:{name}")
            if _is_new(write, name, (digest, tokenizer_digest, template_digest)):
                target = workspace.root / "bases" / name
                shutil.rmtree(target, ignore_errors=True)  # left by a crash: a base is there once its row is
                staged.rename(target)
                row = {
                    "name": name,
                    "digest": digest,
                    "path": f"bases/{name}",
                    "actor": write.actor,
                    "created_at": now_text(),
                }
                texts = {"origin": canonical_json(origin).decode(), "details": canonical_json(details).decode()}
                write.connection.execute(bases.insert().values(**row, **texts))
                write.audit("base.add", name, {"digest": digest, **origin})
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return get(workspace, name)


def _is_new(write: Write, name: str, digests: tuple[str, str, str]) -> bool:
    """Whether the name is free; raises Conflict where it is another model's."""
    row = write.connection.execute(select(bases).where(bases.c.name == name)).first()
    if row is None:
        return True
    details = json.loads(row.details)
    if (row.digest, details["tokenizer_digest"], details["template_digest"]) != digests:
        raise Conflict(
            f"base '{name}' is another model ({row.digest[:12]}, not {digests[0][:12]})", fix="choose another name"
        )
    return False


def _content_digest(config: Mapping[str, Any], weights: list[Path]) -> str:
    kept = {k: v for k, v in config.items() if k not in _VOLATILE}
    return digest_of({"config": kept, "tensors": tensors_digest(weights)})


def check(workspace: Workspace, base: Base, *, afresh: bool = False) -> None:
    """Hold a base's files against its digests before it is used. Raises Damaged.

    A second's reading for 500 MB, so that it is done again only where a file's size or time changed since the last check
    (afresh: in any case).
    """
    stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(base.folder.glob("*")) if f.is_file()]
    seen = workspace.root / "cache" / "bases" / f"{base.digest}.json"
    if not afresh and seen.exists() and seen.read_text("utf-8") == json.dumps(stamp):
        return
    try:
        config, weights = _checked(base.folder)
        found = (_content_digest(config, weights), *_tokenizer_digests(base.folder))
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


def _checked(folder: Path) -> tuple[dict[str, Any], list[Path]]:
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


def _check_template(folder: Path) -> None:
    """Render a reply and look for it: some templates leave assistant turns out, and would have something else scored."""
    from transformers import AutoTokenizer

    canary = "canary reply 7291"
    chat = [{"role": "user", "content": "Say something."}, {"role": "assistant", "content": canary}]
    try:
        rendered = AutoTokenizer.from_pretrained(folder).apply_chat_template(chat, tokenize=False)
    except Exception as error:  # jinja's own errors, and whatever a tokenizer's loader raises
        raise BadInput(
            f"{folder} has a chat template that can't render a reply: {error}", fix="mend the template"
        ) from None
    if canary not in rendered:
        raise BadInput(f"{folder} has a chat template that leaves replies out", fix="use a template that renders them")


def _tokenizer_digests(folder: Path) -> tuple[str, str]:
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
        for name in _TOKENIZER_FILES
        if (folder / name).exists() and name not in ("tokenizer_config.json", "special_tokens_map.json")
    }
    special = {
        k: v
        for k, v in settings.items()
        if k.endswith("_token") or k in ("add_bos_token", "add_eos_token", "tokenizer_class")
    }
    return digest_of({"files": parts, "special": special}), digest_of(template)
