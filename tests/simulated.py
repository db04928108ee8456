"""The simulations behind docs/statistics.md, as its script runs them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def table_statistics() -> ModuleType:
    """`scripts/table_statistics.py` as a module."""
    name = "table_statistics"
    if name not in sys.modules:
        file = Path(__file__).parent.parent / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
