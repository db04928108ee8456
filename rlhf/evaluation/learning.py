"""How a report's versions were trained, as curves: from what each version keeps with it, never from a run's folder.

A view: no figure of it stands in report.json, and the report's digest knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rlhf.errors import NotFound
from rlhf.evaluation.charts import Chart
from rlhf.pages import Section, plot_grid
from rlhf.pages.policy_report import stepped, watched
from rlhf.pages.run_report import learning_curves
from rlhf.store import Workspace

if TYPE_CHECKING:
    from rlhf.records import VersionRef
    from rlhf.registry.curves import Curves

_OF_REWARD = ("loss", "accuracy")
_OF_WATCH = ("reward", "true_win_rate", "kl_token", "logp_base")
_OF_STEPS = ("reward", "kl_token", "loss", "accuracy")  # where nothing was watched


def training_sections(workspace: Workspace, versions: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    """A section a version, of `report.json`'s versions by name; a bare base was not trained here and has none."""
    from rlhf import registry

    trained = {name: version["digest"] for name, version in versions.items() if not version.get("is_base")}
    return [
        training_section(
            workspace,
            registry.resolve(workspace, f"sha256:{digest}"),
            f"t{place}",
            f"How {name} was trained" if len(versions) > 1 else "How it was trained",
        )
        for place, (name, digest) in enumerate(trained.items())
    ]


def training_section(workspace: Workspace, ref: VersionRef, slug: str, title: str) -> Section:
    """Curves of one version: its own, or of an ensemble its members', or of a calibrated version its parent's."""
    from rlhf import registry
    from rlhf.registry import curves

    manifest = registry.show(workspace, ref).manifest
    kept = curves.of_version(workspace, ref)
    if charts := list(_charts(kept, ref.role, slug)) if kept else []:
        assert kept is not None
        return Section(title, plot_grid(charts), " ".join(_said(kept, manifest)))
    behind = _behind(manifest)
    if not behind:
        return Section(title, Markup("<p>{}</p>\n").format(_why_none(manifest, kept)))
    content = Markup("")
    for place, digest in enumerate(behind):
        try:
            of = registry.resolve(workspace, f"sha256:{digest}")
        except NotFound:
            content += Markup("<p>{}</p>\n").format(
                f"sha256:{digest[:12]} is not in this workspace, nor are its curves."
            )
            continue
        one = training_section(workspace, of, f"{slug}-{place}", str(of))
        intro = Markup('<p class="intro">{}</p>\n').format(one.intro) if one.intro else ""
        content += Markup("<h3>{}</h3>\n{}{}").format(one.title, intro, one.content)
    is_calibrated = any(relation == "calibrates" for relation, _ in manifest["parents"])
    what = "the version that it calibrates" if is_calibrated else "its members"
    return Section(title, content, f"It was not trained by itself; what was trained is {what}.")


def _behind(manifest: Mapping[str, Any]) -> list[str]:
    """Digests of the versions whose training it is: the calibrated one, else the members."""
    parents = {
        name: [digest for relation, digest in manifest["parents"] if relation == name]
        for name in ("calibrates", "member")
    }
    return parents["calibrates"] or parents["member"]


def _why_none(manifest: Mapping[str, Any], kept: Curves | None) -> str:
    if kept is not None:
        return f"{kept.n_logged} logged step: a point is no curve."
    if manifest["kind"] == "head":
        return "Fitted at once, without steps: there is no curve."
    if manifest["run_id"] is None:
        return "It was not trained in this workspace and came without its curves."
    return (
        f"Its curves are not kept with it: it was published before versions kept them, or its files were removed. If its run is "
        f"still there, its page shows them: rlhf run show {manifest['run_id']}"
    )


def _charts(kept: Curves, role: str, slug: str) -> Iterator[Chart]:
    if role == "reward":
        yield from learning_curves(kept.steps, only=_OF_REWARD, slug=slug)
    elif len(kept.watch) > 1:
        yield from watched(kept.watch, only=_OF_WATCH, slug=slug)
    elif len(kept.steps) > 1:
        yield from stepped(kept.steps, only=_OF_STEPS, slug=slug)


def _said(kept: Curves, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Of how many a point is, and by what method."""
    settings = manifest["settings"]
    if manifest["role"] == "policy" and len(kept.watch) > 1:
        yield (
            f"{len(kept.watch)} measurements, each of {kept.watch[-1].get('replies', 0):,.0f} replies to the same prompts with the "
            "same chance."
        )
    else:
        unit = "pairs" if manifest["role"] == "reward" or settings.get("method") == "dpo" else "prompts"
        each = f", each point the mean of {kept.mean_of} of them" if kept.mean_of > 1 else ""
        size = f"; a step is {settings['pairs_per_step']} {unit}" if "pairs_per_step" in settings else ""
        yield f"{kept.n_logged:,} logged steps{each}{size}. Faint: what was logged. Strong: the mean of the points before it."
    if good := (manifest["details"] or {}).get("good_step"):
        yield f"The guard stopped it; the version is that of step {good}."
    yield "Means over one run, without intervals: another seed would give another curve."
