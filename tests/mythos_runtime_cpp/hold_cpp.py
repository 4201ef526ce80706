"""What a build of the C++ library gets wrong first with caches and sampler, in a line: `hold_cpp LIBRARY BUNDLE`.

In a process of its own, as what was planted may take it down. Caches are held to whole sequences that the same library
runs without one; the sampler to the Python runtime's tokens.
"""

from __future__ import annotations

import ctypes as c
import sys
from pathlib import Path
from typing import Any

import numpy as np
from test_c_interface import Library, OnStep, array

from mythos_runtime import load

CAPACITY = 12
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "a temperature": {"temperature": 0.7, "seed": 3},
    "top-k": {"temperature": 2.0, "top_k": 3, "seed": 4},
    "top-p": {"temperature": 2.0, "top_p": 0.6, "seed": 5},
    "min-p": {"temperature": 3.0, "min_p": 0.2, "seed": 6},
    "a penalty": {"repetition_penalty": 1.8, "temperature": 1.5, "seed": 7},
}
PROMPTS, NEW = [[1, 2, 3], [4]], 24


class Caches:
    """Sequences that grow, branch and shrink in caches of the library."""

    def __init__(self, library: Library) -> None:
        self.library, self.vocabulary = library, library.dll.mythos_vocab_size(library.model)

    def forward(self, ids: np.ndarray, valid: np.ndarray | None, cache: Any) -> np.ndarray:
        logits = np.empty((*ids.shape, self.vocabulary), np.float32)
        shape = [c.c_int64(size) for size in ids.shape]
        mask = None if valid is None else c.c_void_p(valid.ctypes.data)
        given, found = c.c_void_p(ids.ctypes.data), c.c_void_p(logits.ctypes.data)
        self.library.call("mythos_forward", self.library.model, given, mask, *shape, None, cache, found, None, None)
        return logits

    def step(self, chunks: list[list[int]], cache: Any, rows: list[list[int]], left: bool = False) -> str | None:
        """Append to every row; what is wrong with the logits of its last token, or with the lengths."""
        width = max(map(len, chunks))
        valid = np.array([([0] * (width - len(chunk)) + [1] * len(chunk))[:: 1 if left else -1] for chunk in chunks])
        valid = np.ascontiguousarray(valid, np.uint8)
        ids = np.zeros(valid.shape, np.int64)
        for row, chunk in enumerate(chunks):
            ids[row, valid[row] == 1] = chunk
        logits = self.forward(ids, valid, cache)
        for row, chunk in enumerate(chunks):
            rows[row] = [*rows[row], *chunk]
            if not chunk:
                continue
            expected = self.forward(np.array([rows[row]]), None, None)[0, -1]
            if not np.allclose(
                logits[row, np.flatnonzero(valid[row])[-1]], expected, atol=1e-4 * np.abs(expected).max()
            ):
                return f"row {row}"
        lengths, count = (c.c_int64 * 8)(), c.c_size_t()
        self.library.call("mythos_cache_lengths", cache, lengths, c.c_size_t(8), c.byref(count))
        return None if [*lengths[: count.value]] == [len(row) for row in rows] else "lengths"

    def wrong(self) -> str | None:
        cache, branch = c.c_void_p(), c.c_void_p()
        size = [c.c_int64(value) for value in (3, CAPACITY, -1)]
        self.library.call("mythos_cache_new", self.library.model, *size, None, c.byref(cache))
        rows: list[list[int]] = [[], [], []]

        def said(what: str, found: str | None) -> str | None:
            return found and f"{what}: {found}"

        found = said("a ragged prompt", self.step([[1, 2, 3], [4], [5, 6]], cache, rows))
        found = found or said("padding on the left", self.step([[7], [8, 9], [3, 3]], cache, rows, left=True))
        found = found or said("a chunk that leaves a row out", self.step([[7], [], [8, 9]], cache, rows))
        if found:
            return found
        self.library.call("mythos_cache_fork", cache, array([2, 0]), c.c_size_t(2), c.byref(branch))
        branched = [[*rows[2]], [*rows[0]]]
        found = found or said("a fork in another order", self.step([[4], [5]], branch, branched))
        found = found or said("what was forked", self.step([[6], [7], [8]], cache, rows))
        if found:
            return found
        cut = [2, 1, 3]
        self.library.call("mythos_cache_truncate", cache, array(cut))
        rows = [row[:length] for row, length in zip(rows, cut, strict=True)]
        found = found or said("a shorter one", self.step([[9], [9], [1]], cache, rows))
        found = found or said("the fork again", self.step([[2], [1]], branch, branched))
        room = CAPACITY - max(map(len, rows))
        found = found or said("a full one", self.step([[5] * room] * 3, cache, rows))
        if not found:
            try:
                self.step([[1], [1], [1]], cache, rows)
            except RuntimeError as error:
                return None if "cannot take 1 more" in str(error) else f"a full one: {error}"
            return "a full one: no error"
        return found


def sampled(library: Library, options: dict[str, Any]) -> list[list[int]]:
    given = library.dll.mythos_default_options()
    given.max_new_tokens = NEW
    for name, value in options.items():
        setattr(given, name, value)
    tokens: list[list[int]] = [[] for _ in PROMPTS]

    @OnStep
    def on_step(step: Any, _: Any) -> int:
        for row in range(step.contents.row_count):
            tokens[row].append(step.contents.rows[row].token)
        return 0

    kept = [array(prompt) for prompt in PROMPTS]
    rows = (c.c_void_p * len(kept))(*(c.addressof(each) for each in kept))
    lengths = array([len(prompt) for prompt in PROMPTS], c.c_size_t)
    library.call("mythos_generate", library.model, rows, lengths, c.c_size_t(len(kept)), c.byref(given), on_step, None)
    return tokens


def sampled_otherwise(library: Library, bundle: Path) -> str | None:
    model = load(bundle, threads=1, op_library=None, engine="python")
    for name, options in SAMPLING.items():
        expected = model.generate_all(PROMPTS, max_new_tokens=NEW, eos=[], **options).tokens
        for row, (found, wanted) in enumerate(zip(sampled(library, options), expected, strict=True)):
            if found != wanted:
                return f"{name}, row {row}"
    return None


def main(path: str, bundle: str) -> None:
    library = Library(Path(bundle), Path(path))
    print(Caches(library).wrong() or sampled_otherwise(library, Path(bundle)) or "sound")


if __name__ == "__main__":
    main(*sys.argv[1:])
