"""Board: feedback from every channel as items with a route, and what became of each.

Takes: reports from the page, comments of imports, words of the command line. Gives: items with kind, risk, impact, effort, status
and owner; which snapshots hold an item's pair, which versions learnt from it. Writes: items, item_events, audit entries. Never:
changes an entry, decides in silence (a guess of the kind names its rule, and the status stays `new` until a person moved it),
lets anybody clear what they reported.
"""

from rlhf.board.changing import add, change, report
from rlhf.board.collecting import Collected, collect
from rlhf.board.items import (
    KINDS,
    RISKS,
    STATUSES,
    Event,
    Item,
    ItemKind,
    Risk,
    Status,
    count,
    get,
    list_items,
    log,
    words_about,
)
from rlhf.board.outcome import Outcome, outcomes, pairs_of, told

__all__ = [
    "KINDS",
    "RISKS",
    "STATUSES",
    "Collected",
    "Event",
    "Item",
    "ItemKind",
    "Outcome",
    "Risk",
    "Status",
    "add",
    "change",
    "collect",
    "count",
    "get",
    "list_items",
    "log",
    "outcomes",
    "pairs_of",
    "report",
    "told",
    "words_about",
]
