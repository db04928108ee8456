"""The bounded cache of bytes on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rlhf.store.cache import Cache


def entry(cache: Cache, owner: str, key: str) -> Path:
    return cache.folder / owner[:2] / owner / key


def test_what_was_put_is_got_also_by_another_run(tmp_path: Path) -> None:
    Cache(tmp_path, 1000).put("pair", "key", b"states")
    assert Cache(tmp_path, 1000).get("pair", "key") == b"states"
    assert Cache(tmp_path, 1000).get("pair", "other") is None
    assert Cache(tmp_path, 1000).get("other", "key") is None


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_a_damaged_entry_is_no_entry_and_is_gone(tmp_path: Path, at: int) -> None:
    cache = Cache(tmp_path, 1000)
    cache.put("pair", "key", b"states")
    raw = bytearray(entry(cache, "pair", "key").read_bytes())
    raw[at] ^= 1
    entry(cache, "pair", "key").write_bytes(raw)
    assert cache.get("pair", "key") is None
    assert not entry(cache, "pair", "key").exists()


def test_an_entry_that_was_cut_short_is_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.put("pair", "key", b"states")
    for kept in (0, 10, 35):
        raw = b"0" * kept
        entry(cache, "pair", "key").write_bytes(raw)
        assert cache.get("pair", "key") is None


def test_above_the_bound_the_entries_read_longest_ago_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5 * 132)
    for i in range(5):
        cache.put(f"pair{i}", "key", bytes(100))
        os.utime(entry(cache, f"pair{i}", "key"), (i, i))
    assert cache.get("pair0", "key") is not None  # now the one read last
    cache.put("pair5", "key", bytes(100))
    left = [i for i in range(6) if cache.get(f"pair{i}", "key") is not None]
    assert left == [0, 3, 4, 5]  # a tenth of the bound is freed besides
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*/*")) <= 5 * 132


def test_what_is_bigger_than_the_whole_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 500)
    cache.put("pair", "small", bytes(10))
    cache.put("pair", "big", bytes(1000))
    assert cache.get("pair", "big") is None
    assert cache.get("pair", "small") is not None


def test_forgetting_an_owner_leaves_nothing_of_it_and_all_of_the_others(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    for owner in ("one", "two"):
        for key in ("k1", "k2"):
            cache.put(owner, key, b"states")
    assert cache.forget(["one", "unknown"]) == 1
    assert [cache.get("one", key) for key in ("k1", "k2")] == [None, None]
    assert cache.get("two", "k1") == b"states"


def test_two_runs_may_write_evict_and_read_side_by_side(tmp_path: Path) -> None:
    wrong: list[bytes] = []

    def run(seed: int) -> None:
        cache = Cache(tmp_path, 3000)
        for i in range(150):
            key = f"k{(i * seed) % 20}"
            found = cache.get("pair", key)
            if found is not None and found != key.encode() * 50:
                wrong.append(found)
            cache.put("pair", key, key.encode() * 50)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not list(tmp_path.glob("*/*/*.new"))


def test_what_another_run_is_writing_is_left_alone_and_what_a_killed_one_left_is_not(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5 * 132)
    cache.put("pair", "key", bytes(100))
    fresh, stale = (entry(cache, "pair", name) for name in ("fresh.1.new", "stale.2.new"))
    for file in (fresh, stale):
        file.write_bytes(bytes(100))
    os.utime(stale, (1, 1))
    for i in range(8):
        cache.put("pair", f"more{i}", bytes(100))
    assert fresh.exists() and not stale.exists()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 1000)
    cache.put("pair", "key", b"states")
    entry(cache, "pair", "other").mkdir()  # a rename onto a folder fails
    (entry(cache, "pair", "other") / "x").write_text("x")
    with pytest.raises(OSError):
        cache.put("pair", "other", b"more")
    assert sorted(file.name for file in (tmp_path / "c" / "pa" / "pair").iterdir()) == ["key", "other"]
