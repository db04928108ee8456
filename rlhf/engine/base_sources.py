"""How a base model comes in: from a folder, from a hub id at a pinned revision, or from a GGUF file.

A GGUF file is turned into a plain model once: GGUF-loaded models refuse to be saved, and take 20 s to load.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from rlhf.engine.bases import (
    OTHER_FILES,
    TOKENIZER_FILES,
    VOLATILE,
    Base,
    checked,
    content_digest,
    get,
    list_bases,
    tokenizer_digests,
)
from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.ids import canonical_json, digest_file, new_id, now_text
from rlhf.registry.locks import hold
from rlhf.store import Workspace, Write, room
from rlhf.store.tables import bases

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
            hub_id, revision=commit, allow_patterns=[*TOKENIZER_FILES, *OTHER_FILES, "*.safetensors"]
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
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k not in VOLATILE})
    config.architectures = [type(loaded).__name__]
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet_loading():
        plain.to(torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadUsage(f"'{name}' can't name a base", fix="use letters, digits, '.', '_' and '-', up to 100")


def _add(workspace: Workspace, name: str, source: Path, origin: Mapping[str, Any]) -> Base:
    _check_name(name)
    config, weights = checked(source)
    tokenizer_digest, template_digest = tokenizer_digests(source)
    _check_template(source)
    digest = content_digest(config, weights)
    details = {
        "architecture": (config.get("architectures") or ["?"])[0],
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "vocabulary": config.get("vocab_size"),
        "tokenizer_digest": tokenizer_digest,
        "template_digest": template_digest,
    }
    if digest not in {base.digest for base in list_bases(workspace)}:
        room.require(workspace, sum(file.stat().st_size for file in weights), f"the base {name}")
    (workspace.root / "bases").mkdir(exist_ok=True)
    staged = workspace.root / "bases" / f".{name}.{new_id()}"
    try:
        staged.mkdir()
        for file in sorted(source.iterdir()):
            if file.name in (*TOKENIZER_FILES, *OTHER_FILES) or file in weights:
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
