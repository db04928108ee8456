"""What a training reads: opened, rendered and checked before a run is started or a line is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from accelerate.utils import broadcast_object_list

from rlhf import registry, snapshots
from rlhf.engine import bases, placement
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput, BadUsage
from rlhf.ids import chance
from rlhf.measures.reliability import Reliability
from rlhf.reward.aside import is_aside
from rlhf.reward.rows import RowCounts, TrainRow, training_rows
from rlhf.reward.settings import RewardSettings
from rlhf.reward.targets import trust_in
from rlhf.store import Workspace

Say = Callable[[str], None]
_SHAPE = ("lora_dropout", "top_layers")  # of the adapter, beside its rank: a child has its parent's


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that a training reads, opened and checked before a run is started."""

    settings: RewardSettings
    snapshot: snapshots.Snapshot
    base: bases.Base
    parent: registry.OpenVersion | None
    place: placement.Placement
    rows: list[TrainRow]
    counts: RowCounts
    trust: Reliability | None = None  # in the labelers, where labels=reliability

    @property
    def as_read(self) -> Material:
        """The same with as many rows as the steps read: all, or fewer where max_steps ends before."""
        n_read = self.settings.max_steps * self.settings.pairs_per_step
        return replace(self, rows=self.rows[:n_read]) if 0 < n_read < len(self.rows) else self

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run for `--resume`: the settings, and the content that their names meant."""
        return {
            **self.settings.model_dump(mode="json"),
            "snapshot_digest": self.snapshot.digest,
            "base_digest": self.base.digest,
            "parent": self.parent.ref.digest if self.parent else None,
        }


def open_material(workspace: Workspace, settings: RewardSettings, n_processes: int, say: Say) -> Material:
    """Open what the settings name and render the train side. Raises before anything is started or written."""
    if settings.snapshot == "" or settings.base == "":
        raise BadUsage("snapshot and base must be named", fix="give --snapshot NAME and --base NAME")
    registry.check_name(settings.name)
    check_trackers(settings.report_to)
    snapshot = snapshots.open_snapshot(workspace, settings.snapshot)
    base = bases.get(workspace, settings.base)
    bases.check(workspace, base)
    parent, settings = _parent(workspace, settings, base)
    if settings.top_layers > (base.details.get("layers") or settings.top_layers):
        raise BadUsage(
            f"top_layers={settings.top_layers}, but {base.name} has {base.details['layers']} layers",
            fix="use at most that, or 0 for all",
        )
    renderer = Renderer(base.tokenizer(), settings.max_length)
    trust = None
    if settings.labels == "reliability":
        trained = (row for row in snapshot.rows("train") if not is_aside(row.pair.group, settings.set_aside))
        trust = trust_in(trained)
        say(f"labels=reliability: {trust.told}")
    rows, counts = training_rows(
        snapshot.rows("train"),
        renderer,
        settings.labels,
        settings.margin,
        settings.set_aside,
        ties=settings.ties,
        smoothing=settings.smoothing,
        trust=trust,
    )
    say(
        f"{snapshot.ref}: {counts.pairs} train pairs; {counts.trained_on} trained on, {counts.set_aside} set aside for "
        f"calibration, {counts.too_long} too long, "
        f"{counts.refused} refused by the chat template, {counts.same} rendered alike, {counts.undecided} undecided, "
        f"{counts.dropped} ties dropped; {counts.ties} ties, {counts.shortened} without their oldest turns"
    )
    if settings.bootstrap:
        draw = chance(settings.seed, "bootstrap")
        rows = [rows[draw.randrange(len(rows))] for _ in rows]
    _require_something(rows, counts, snapshot.ref)
    chosen = [placement.choose(settings.device, settings.dtype)]
    if n_processes > 1:
        broadcast_object_list(chosen)  # near the threshold two processes could measure themselves into two types
    place = chosen[0]
    say(f"device and type: {place.why}")
    return Material(settings, snapshot, base, parent, place, rows, counts, trust)


def _require_something(rows: list[TrainRow], counts: RowCounts, snapshot: str) -> None:
    """Raises BadInput where nothing could be learned, with what became of the pairs."""
    if not counts.pairs:
        raise BadInput(
            f"{snapshot} has no pair on its train side",
            fix="import or label more pairs, or cut it with a smaller --holdout",
        )
    if not rows:
        lost = {key: n for key, n in counts.as_json().items() if n and key not in ("pairs", "trained_on")}
        said = ", ".join(f"{n} {key.replace('_', ' ')}" for key, n in lost.items())
        raise BadInput(
            f"of {counts.pairs} train pairs of {snapshot} none is left to train on: {said}",
            fix="raise max_length where they are too long, lower set_aside where they are set aside, or cut another snapshot",
        )
    if all(row.target == 0.5 for row in rows):
        raise BadInput(
            f"all {len(rows)} train pairs of {snapshot} are ties: nothing says which reply is the better one",
            fix="import or label pairs that are decided, and cut again",
        )


def _parent(
    workspace: Workspace, settings: RewardSettings, base: bases.Base
) -> tuple[registry.OpenVersion | None, RewardSettings]:
    """The version to go on from, and the settings with its LoRA's shape. Raises BadInput where it has no LoRA on this base."""
    if not settings.from_version:
        return None, settings
    parent = registry.open_version(workspace, registry.resolve(workspace, settings.from_version, role="reward"))
    if parent.manifest["base"]["digest"] != base.digest:
        raise BadInput(
            f"{settings.from_version} stands on another base than {base.name}", fix="train it on its own base"
        )
    if parent.kind != "lora":
        raise BadInput(
            f"{settings.from_version} is a reward of kind {parent.kind}: it has no LoRA to go on from",
            fix="name a version of kind lora, or leave --from out",
        )
    shape = json.loads((parent.folder / "adapter_config.json").read_text("utf-8"))
    kept = {key: parent.manifest["settings"][key] for key in _SHAPE if key in parent.manifest["settings"]}
    # The rank is the file's: an average of members has a larger one than its settings say.
    return parent, settings.model_copy(update={**kept, "lora_r": shape["r"], "lora_alpha": shape["lora_alpha"]})


def check_trackers(report_to: str) -> None:
    """Refuse a tracker that the Trainer doesn't know or whose package isn't here, before anything is loaded."""
    from transformers.integrations import get_available_reporting_integrations

    there = ("none", *sorted(get_available_reporting_integrations()))
    unknown = [name for name in (part.strip() for part in report_to.split(",")) if name not in there]
    if unknown:
        raise BadUsage(
            f"report_to names {', '.join(map(repr, unknown))}, which is no tracker that is installed here",
            fix=f"use one of {', '.join(there)}, or install the tracker's package into .venv",
        )
