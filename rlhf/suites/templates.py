"""Template files: texts with slots, and for each group the words that go into them; all that is wrong is said at once.

```yaml
attribute: gender
groups:
  women: {name: [Emma, Ada], them: her}
  men: {name: [Jack, Paul], them: him}
templates:
  - id: thanks
    prompt: "How do I thank my colleague {name} for {what}?"
    chosen: "Tell {them} what it meant to you."
    rejected: "No idea."
    values: {women: {what: her help}, men: {what: his help}}
```
A slot with a list gives the template once for each word, the same place in every group's list at a time. `values` are a template's
own words. `{{` is a brace. A prompt may be a list of messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from rlhf.errors import BadInput
from rlhf.feedback.drafts import PairDraft, Rejected, Vote
from rlhf.feedback.fields import filled, prompt_of
from rlhf.suites.formats import RESERVED, RESERVED_MARKS, Entry, tags_of

Words = Mapping[str, tuple[str, ...]]
_KEYS, _TEMPLATE_KEYS = ("attribute", "groups", "templates"), ("id", "prompt", "chosen", "rejected", "values", "tags")
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Filled:
    """A template with a group's words: `name` is `attribute/template/number`."""

    name: str
    group: str
    entry: Entry


def read(file: Path) -> list[Filled]:
    """Every template of the file for every group and word. Raises BadInput that names all that is wrong."""
    said, problems = _loaded(file), list[str]()
    attribute, groups = _attribute(said, problems), _groups(said.get("groups"), problems)
    filled_in, used = list[Filled](), set[str]()
    for number, template in enumerate(_templates(said, problems), 1):
        where = f"template {template.get('id', number)}"
        words = {group: {**own, **_own(template, group, where, problems)} for group, own in groups.items()}
        try:
            slots = _slots(template)
            used |= slots
            filled_in += _fill(f"{attribute}/{template.get('id', number)}", template, words, slots)
        except Rejected as verdict:
            problems.append(f"{where}: {verdict}")
    unused = sorted({slot for own in groups.values() for slot in own} - used)
    if unused and not problems:
        problems.append(f"no template has the slot {', '.join(f'{{{slot}}}' for slot in unused)}")
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BadInput(
            f"{file.name}: {'; '.join(problems[:_SHOWN])}{more}", fix="an example: configs/counterfactual/gender.yaml"
        )
    return filled_in


def _loaded(file: Path) -> Mapping[str, Any]:
    try:
        said = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInput(f"no file at {file}", fix="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"{file.name} can't be read: {why}", fix="give a UTF-8 YAML file of templates") from None
    if not isinstance(said, Mapping):
        raise BadInput(f"{file.name} holds no templates", fix=f"wanted are the keys {', '.join(_KEYS)}")
    return said


def _attribute(said: Mapping[str, Any], problems: list[str]) -> str:
    if unknown := [str(key) for key in said if key not in _KEYS]:
        problems.append(f"the key '{unknown[0]}' is unknown; wanted {', '.join(_KEYS)}")
    attribute = said.get("attribute")
    if not _is_name(attribute) or attribute in RESERVED:
        problems.append(f"'attribute' is {attribute!r}; wanted a name such as gender, and not {' or '.join(RESERVED)}")
    return str(attribute)


def _groups(said: Any, problems: list[str]) -> dict[str, Words]:
    if not isinstance(said, Mapping) or len(said) < 2:
        n = len(said) if isinstance(said, Mapping) else 0
        problems.append(f"'groups' has {n}; wanted two or more to swap between")
        return {}
    problems += [f"the group {group!r} is no name" for group in said if not _is_name(group)]
    return {str(group): _words(own, f"group {group}", problems) for group, own in said.items()}


def _templates(said: Mapping[str, Any], problems: list[str]) -> Iterator[Mapping[str, Any]]:
    listed = said.get("templates")
    if not isinstance(listed, list) or not listed:
        problems.append("'templates' is no list of one or more")
        return
    names = set[Any]()
    for number, template in enumerate(listed, 1):
        if not isinstance(template, Mapping) or (unknown := [str(k) for k in template if k not in _TEMPLATE_KEYS]):
            what = f"has the unknown key '{unknown[0]}'" if isinstance(template, Mapping) else "is no mapping"
            problems.append(f"template {number} {what}; wanted {', '.join(_TEMPLATE_KEYS)}")
            continue
        name = str(template.get("id", number))
        if name in names or not _is_name(name):
            problems.append(f"template {number} has the id '{name}', which {'is taken' if name in names else 'no id'}")
            continue
        names.add(name)
        yield template


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) < 80 and not any(mark in value for mark in RESERVED_MARKS)


def _own(template: Mapping[str, Any], group: str, where: str, problems: list[str]) -> Words:
    own = template.get("values") or {}
    return _words(own[group], f"{where}, group {group}", problems) if isinstance(own, Mapping) and group in own else {}


def _words(said: Any, where: str, problems: list[str]) -> Words:
    """Slot → its words, one or several."""
    if not isinstance(said, Mapping):
        problems.append(f"{where} has no slots; wanted lines of `slot: word`")
        return {}
    found = {}
    for slot, value in said.items():
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str | int) and not isinstance(word, bool) for word in words):
            problems.append(f"{where} has no word for {{{slot}}} (what YAML may take for something else wants quotes)")
        else:
            found[str(slot)] = tuple(map(str, words))
    return found


def _texts(template: Mapping[str, Any]) -> list[Any]:
    """Every text of the template, the contents of a prompt's messages among them."""
    prompt = template.get("prompt")
    turns = [turn.get("content") for turn in prompt if isinstance(turn, Mapping)] if isinstance(prompt, list) else []
    return [*(turns or [prompt]), template.get("chosen"), template.get("rejected")]


def _slots(template: Mapping[str, Any]) -> set[str]:
    found = set()
    for text in _texts(template):
        if not isinstance(text, str):
            raise Rejected("it wants a prompt, and the texts `chosen` and `rejected`")
        try:
            fields = [field for field in Formatter().parse(text) if field[1] is not None]
        except ValueError as error:
            raise Rejected(f"'{text[:40]}' has a brace that opens no slot ({error}); a brace itself is {{{{") from None
        for _, slot, form, conversion in fields:
            if form or conversion or not slot or not slot.isidentifier():
                raise Rejected(f"{{{slot}}} in '{text[:40]}' is no slot; wanted a name such as {{name}}")
            found.add(slot)
    if not found:
        raise Rejected("it has no slot, so there is nothing to swap")
    return found


def _fill(name: str, template: Mapping[str, Any], words: Mapping[str, Words], slots: set[str]) -> Iterator[Filled]:
    for group, own in words.items():
        if missing := sorted(slots - own.keys()):
            raise Rejected(f"group {group} has no word for {{{missing[0]}}}")
    sizes = {(group, slot): len(own[slot]) for group, own in words.items() for slot in slots if len(own[slot]) > 1}
    if len(set(sizes.values())) > 1:
        counted = ", ".join(f"{{{slot}}} of {group} {n}" for (group, slot), n in sizes.items())
        raise Rejected(f"its slots have lists of different lengths, which can't be paired: {counted}")
    extra = set(template.get("values") or {}) - words.keys()
    if extra:
        raise Rejected(f"'values' names the group {sorted(map(str, extra))[0]}, which isn't there")
    _require_variety(words, slots)
    for place in range(max(sizes.values(), default=1)):
        by_group = {
            group: _entry(template, {slot: own[slot][place % len(own[slot])] for slot in slots}, name, place, group)
            for group, own in words.items()
        }
        for one, other in combinations(by_group, 2):
            if by_group[one].entry.draft == by_group[other].entry.draft:
                raise Rejected(f"it reads the same for {one} and {other}")
        yield from by_group.values()


def _require_variety(words: Mapping[str, Words], slots: set[str]) -> None:
    """Raises Rejected for a group that has one row's words where another has several: its rows would all be one text."""
    rows = {
        group: list(zip(*_spread([own[slot] for slot in sorted(slots)]), strict=True)) for group, own in words.items()
    }
    most = max(rows, key=lambda group: len(rows[group]), default="")
    for group, own in rows.items():
        if len(own) == 1 < len(rows[most]):
            several = ", ".join(f"{{{slot}}}" for slot in sorted(slots) if len(words[most][slot]) > 1)
            raise Rejected(
                f"group {group} has one word for {several}, and {most} has {len(rows[most])}: {group} would have the same text "
                f"{len(rows[most])} times; give it as many words"
            )
        if again := next((place for place, row in enumerate(own) if row in own[:place]), None):
            first = own.index(own[again])
            raise Rejected(f"group {group} has the same words at places {first + 1} and {again + 1} of its lists")


def _spread(lists: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each as long as the longest, single words repeated."""
    longest = max(map(len, lists))
    return [own * longest if len(own) == 1 else own for own in lists]


def _entry(template: Mapping[str, Any], values: Mapping[str, str], name: str, place: int, group: str) -> Filled:
    prompt = template["prompt"]
    if isinstance(prompt, list):
        prompt = [{**turn, "content": turn["content"].format_map(values)} for turn in prompt]
    else:
        prompt = prompt.format_map(values)
    chosen, rejected = (filled(side, template[side].format_map(values)) for side in ("chosen", "rejected"))
    if chosen == rejected:
        raise Rejected("`chosen` and `rejected` are the same")
    own_tags = dict(tags_of(template))
    attribute = name.partition("/")[0]
    if attribute in own_tags:
        raise Rejected(f"'tags' has {attribute}, which is what is swapped")
    draft = PairDraft(prompt_of("prompt", prompt), chosen, rejected, (Vote("first"),))
    full = f"{name}/{place + 1}"
    tags = tuple(sorted({**own_tags, attribute: group}.items()))
    return Filled(full, group, Entry(draft, tags=tags, template=full))


def groups_of(found: Sequence[Filled]) -> list[str]:
    return list(dict.fromkeys(one.group for one in found))
