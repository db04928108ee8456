"""malloc keeps what a step freed."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from rlhf.engine.heap import keep_freed_memory

PAGED = """
import resource
from rlhf.engine.heap import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()
blocks = [bytearray(2**20) for _ in range(64)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    blocks = [bytearray(2**20) for _ in range(64)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc's malloc is left as it is")
def test_freed_memory_is_not_paged_in_again() -> None:
    def faults(keeps: bool) -> int:
        return int(
            subprocess.run([sys.executable, "-c", PAGED.format(keeps=keeps)], capture_output=True, check=True).stdout
        )

    pages = 64 * 2**20 // resource.getpagesize()
    assert faults(keeps=True) < pages / 10
    assert faults(keeps=False) > pages


def test_what_the_environment_asks_of_malloc_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not keep_freed_memory()


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
