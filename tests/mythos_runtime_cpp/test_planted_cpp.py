"""Plants in the C++ runtime's caches, sampler and engine: each is caught, and told from the others by where it shows.

Minutes, as every plant is compiled: `make test-slow`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_programs import BUILD, ROOT, needs_cpp
from golden_bundles import Bundles
from planted_source import FLAGS, Plant, planted
from row_models import VOCABULARY, RowModel
from schedules import AROUND_PAGES, LINES, LOOP_PAGES, ROWS, SCHEDULE, PythonEngine, serving

from mythos_runtime import read_manifest
from mythos_runtime.engine.request import Request
from mythos_runtime.manifest import write_manifest
from mythos_runtime.op_library import find_op_library
from mythos_runtime.spec import MODEL

pytestmark = [
    needs_cpp,
    pytest.mark.slow,
    pytest.mark.skipif(not FLAGS.is_file(), reason="the C++ runtime was not built with Makefiles: make native"),
]
LIBRARY = BUILD / "libmythos_runtime.so"


def held(library: Path, bundle: Path) -> str:
    """What a library gets wrong first with caches and sampler, or how it ends."""
    paths = [str(ROOT / "tests"), str(ROOT / "tests/mythos_runtime_cpp"), os.environ.get("PYTHONPATH", "")]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "MYTHOS_OP_LIBRARY": "none"}
    command = [sys.executable, "-m", "hold_cpp", str(library), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)
    return done.stdout.strip() if done.returncode == 0 else f"it ends with {done.returncode}: {done.stderr[-300:]}"


DENSE_PLANTS: dict[str, tuple[Plant, str]] = {
    "a fork keeps the order": (
        Plant("cache.cpp", "const auto old = static_cast<std::size_t>(chosen[row]);", "const auto old = row;"),
        "a fork in another order: row 0",
    ),
    "a fork loses a token": (
        Plant("cache.cpp", "static_cast<std::size_t>(from.lengths[old]) * source.entry", "0"),
        "a fork in another order: row 0",
    ),
    "not truncated": (Plant("cache.cpp", "  b.lengths = lengths;\n", ""), "a shorter one: row 0"),
    "truncated to the shortest": (
        Plant(
            "cache.cpp",
            "  b.lengths = lengths;\n",
            "  b.lengths.assign(lengths.size(), *std::min_element(lengths.begin(), lengths.end()));\n",
        ),
        "a shorter one: row 0",
    ),
    "padding is written": (
        Plant("cache.cpp", "if (tokens.valid[row * width + t]) {", "{"),
        "a chunk that leaves a row out: row 0",
    ),
    "padding is counted": (Plant("cache.cpp", "tokens.valid[i] != 0", "1"), "a ragged prompt: lengths"),
    "everybody's entries are row 0's": (
        Plant("cache.cpp", "((line * rows + row) * width + t) * entry", "(line * rows * width + t) * entry"),
        "padding on the left: row 1",
    ),
    "entries at the start": (
        Plant("cache.cpp", "(start + static_cast<std::size_t>(lengths[row])) * entry", "start * entry"),
        "a chunk that leaves a row out: row 0",
    ),
    "the last line is lost": (
        Plant(
            "cache.cpp",
            "line < past[group].lines; ++line)\n      for (std::size_t row = 0; row < rows",
            "line + 1 < past[group].lines; ++line)\n      for (std::size_t row = 0; row < rows",
        ),
        "padding on the left: row 0",
    ),
    "room for one more": (
        Plant("cache.cpp", "lengths[row] + counts[row] > capacity", "lengths[row] + counts[row] > capacity + 1"),
        "a full one: no error|it ends",
    ),
}
ROWS_OF_CACHE = "engine/row_cache.cpp"
LIBRARY_PLANTS: dict[str, tuple[Plant, str]] = {
    "a fork of rows keeps the order": (
        Plant(ROWS_OF_CACHE, "fork(*sequences_[static_cast<std::size_t>(rows[i])])", "fork(*sequences_[i])"),
        "a fork in another order: row 0",
    ),
    "rows are not truncated": (
        Plant(
            ROWS_OF_CACHE, "truncate(*sequences_[row], length)", "truncate(*sequences_[row], sequences_[row]->length)"
        ),
        "a shorter one: row 0",
    ),
    "padding runs as a row": (
        Plant(ROWS_OF_CACHE, "if (tokens.valid[row * width + t]) places", "places"),
        "padding on the left: row 0",
    ),
    "answers at their numbers, not their places": (
        Plant(ROWS_OF_CACHE, "static_cast<std::ptrdiff_t>(*place * vocab)", "static_cast<std::ptrdiff_t>(row * vocab)"),
        "a ragged prompt: row 1",
    ),
    "one candidate more": (
        Plant(
            "sampling.cpp",
            "    count = static_cast<std::size_t>(options_.top_k);",
            "    count = static_cast<std::size_t>(options_.top_k) + 1;",
        ),
        "top-k",
    ),
    "no top-p": (Plant("sampling.cpp", "options_.top_p < 1", "options_.top_p < 0"), "top-p"),
    "top-p of 1, not of the sum": (Plant("sampling.cpp", "options_.top_p * sums.back()", "options_.top_p"), "top-p"),
    "no min-p": (Plant("sampling.cpp", "options_.min_p > 0", "options_.min_p > 1"), "min-p"),
    "the temperature twice": (
        Plant(
            "sampling.cpp",
            "(score - largest) / options_.temperature",
            "(score - largest) / options_.temperature / options_.temperature",
        ),
        "a temperature",
    ),
    "a penalty that always divides": (
        Plant("sampling.cpp", "scores_[i] > 0 ? scores_[i] / penalty : scores_[i] * penalty", "scores_[i] / penalty"),
        "a penalty",
    ),
    "a penalty on everybody": (Plant("sampling.cpp", "if (seen_[i]) scores_", "scores_"), "a penalty"),
    "32 random bits": (Plant("sampling.cpp", "next() >> 11) * 0x1p-53", "next() >> 32) * 0x1p-31"), "a temperature"),
    "one stream for all rows": (
        Plant("sampling.cpp", "mix(seed + (row + 1) * kGolden)", "mix(seed + kGolden)"),
        "a temperature, row 1",
    ),
}


@pytest.fixture(scope="module")
def dense(bundles: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without row graphs, as TensorRT's are: its caches are dense."""
    folder = shutil.copytree(bundles["mla_decode"], tmp_path_factory.mktemp("dense") / "bundle")
    manifest = read_manifest(folder)
    spec = replace(manifest.spec, graphs={MODEL: manifest.spec.graphs[MODEL]})
    write_manifest(folder, replace(manifest, spec=spec))
    return folder


def test_the_library_itself_is_sound(bundles: Bundles, dense: Path) -> None:
    assert held(LIBRARY, bundles["mla_decode"]) == held(LIBRARY, dense) == "sound"


@pytest.mark.parametrize("name", DENSE_PLANTS)
def test_a_planted_dense_cache_is_caught(name: str, dense: Path, tmp_path: Path) -> None:
    plant, where = DENSE_PLANTS[name]
    found = held(planted(plant, "mythos_runtime", tmp_path), dense)
    assert any(found.startswith(each) for each in where.split("|")), found


@pytest.mark.parametrize("name", LIBRARY_PLANTS)
def test_a_planted_cache_or_sampler_is_caught(name: str, bundles: Bundles, tmp_path: Path) -> None:
    plant, where = LIBRARY_PLANTS[name]
    found = held(planted(plant, "mythos_runtime", tmp_path), bundles["mla_decode"])
    assert any(found.startswith(each) for each in where.split("|")), found


# -- the engine --------------------------------------------------------------------------------------------------------


def schedules() -> list[dict[str, Any]]:
    """Requests together, one over the end of a page and one with given depths; then two that begin like another."""
    r = np.random.default_rng(3)
    prompts = [r.integers(0, VOCABULARY, length).tolist() for length in (4, 29, 33, 40)]
    prompts += [[*prompts[3][:37], 5, 6], [*prompts[3], 3]]
    thresholds = [0.99, 0.5, 0.99, 0.7, 0.7, 0.7]
    requests = [
        Request(tuple(prompt), 6, max_loops=5, halt_threshold=threshold, row=row, depths=(1, 2, 1) if row == 1 else ())
        for row, (prompt, threshold) in enumerate(zip(prompts, thresholds, strict=True))
    ]
    fork: list[dict[str, Any]] = [
        {"act": "open", "limit": 5, "threshold": 0.5},
        {"act": "feed", "chunks": [[0, prompts[1]]]},
        {"act": "fork", "sequence": 0},
        {"act": "feed", "chunks": [[0, [7, 8, 9]], [1, [4, 4, 4, 4, 4, 4]]]},
        {"act": "truncate", "sequence": 0, "length": 20},
        {"act": "feed", "chunks": [[1, [1, 2]], [0, [3]]]},
    ]
    return [serving(requests, [0, 0, 0, 0, 60, 120], prefixes=2), {"acts": fork}]


@pytest.fixture(scope="module")
def row_model(tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    made = RowModel.openmythos("mla", tmp_path_factory.mktemp("mla"))
    (made.folder / "spec.json").write_text(json.dumps(made.model.spec.to_json()))
    return made


@pytest.fixture(scope="module")
def expected(row_model: RowModel) -> list[dict[str, Any]]:
    engine = PythonEngine(row_model.core())
    return [engine.run(schedule) for schedule in schedules()]


def served(program: Path, row_model: RowModel, expected: list[dict[str, Any]]) -> str:
    """What an engine does otherwise than the one in Python."""
    sizes = map(str, (1, ROWS, AROUND_PAGES, LOOP_PAGES, LINES))
    lines = "".join(json.dumps(schedule) + "\n" for schedule in schedules())
    variables = {**os.environ, "MYTHOS_OP_LIBRARY": str(find_op_library())}
    try:
        done = subprocess.run(
            [program, row_model.folder, *sizes], input=lines, capture_output=True, text=True, env=variables, timeout=60
        )
    except subprocess.TimeoutExpired:
        return "it does not end"
    if done.returncode:
        return f"it ends with {done.returncode}: {done.stderr[-300:]}"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for ours, theirs in zip(found, expected, strict=True):
        for part in ("requests", "answers"):
            for number, (one, other) in enumerate(zip(ours.get(part, []), theirs.get(part, []), strict=True)):
                wrong = [name for name in other if one[name] != other[name]]
                if wrong:
                    return f"{part} {number}: {', '.join(wrong)}"
        if not ours["idle"]:
            return "memory is lost"
        if ours["trace"] != theirs["trace"]:
            return "the rows of a call"
    return "sound"


ENGINE_PLANTS: dict[str, tuple[Plant, str]] = {
    "a shared page is written without a copy": (
        Plant("engine/pages.cpp", "    this->copy(copy, old, 0, kPage);\n", ""),
        "requests 4",
    ),
    "a fork does not hold its pages": (
        Plant("engine/pages.cpp", "  for (const std::int64_t page : twin) hold(page);\n", ""),
        "requests 5|memory",
    ),
    "a page too few is kept": (
        Plant("engine/pages.cpp", "(length + kPage - 1) / kPage", "length / kPage"),
        "requests|it ends",
    ),
    "nothing stands before the loop": (
        Plant("engine/states.cpp", "  fill(arrays_.at(kEncoded), encoded);\n", ""),
        "requests 0",
    ),
    "a fork's states are all the first one's": (
        Plant(
            "engine/states.cpp",
            "array.memory->copy(copies, *array.memory, lines, 1)",
            "array.memory->copy(copies, *array.memory, Lines(copies.size(), lines[0]), 1)",
        ),
        "answers|requests",
    ),
    "late rows never run": (
        Plant(
            "engine/scheduler.cpp",
            "Span{&sequence, job.depth, filled, last}",
            "Span{&sequence, job.depth, std::max(filled, job.first), last}",
        ),
        "requests 0|requests 1",
    ),
    "the last position decides for its chunk": (
        Plant(
            "engine/scheduler.cpp",
            "      while (last >= job.first && states.halted(sequence.line(last))) --last;",
            "      if (states.halted(sequence.line(last))) last = job.first - 1;",
        ),
        "requests",
    ),
    "more rows than a call takes": (
        Plant("engine/scheduler.cpp", "std::min(span.last, span.first + left - 1)", "span.last"),
        "the rows|it ends|requests",
    ),
    "a request's own threshold is lost": (
        Plant("engine/core.cpp", '? std::nanf("") : sequence.threshold;', '? std::nanf("") : 0.99f;'),
        "requests 1|requests 3",
    ),
    "given depths are lost": (
        Plant(
            "engine/core.cpp",
            "static_cast<std::int32_t>(sequence.limit) : chunk.caps[row];",
            "static_cast<std::int32_t>(sequence.limit) : static_cast<std::int32_t>(sequence.limit);",
        ),
        "requests 1",
    ),
    "pages of the first loop are read in every one": (
        Plant(
            "engine/graphs.cpp",
            "put_tables(spans, tables[static_cast<std::size_t>(loop)], blocks, tables_",
            "put_tables(spans, tables[0], blocks, tables_",
        ),
        "requests 0|requests 1",
    ),
    "earlier positions are not waited for": (
        Plant(
            "engine/core.cpp",
            "while (ahead < ends && sequence.filled[static_cast<std::size_t>(ahead)] == span.first) ++ahead;",
            "ahead = std::max(ahead, ends);",
        ),
        "requests",
    ),
    "nobody stops a call": (
        Plant("engine/graphs.cpp", "stops[-1] = !span.sequence->job || !span.sequence->job->whole;", ""),
        "the rows",
    ),
    "the answer of the first row": (
        Plant(
            "engine/core.cpp",
            "row = leaving[i].every ? 0 : rows - 1; row < rows; ++row)",
            "row = 0; row < (leaving[i].every ? rows : 1); ++row)",
        ),
        "requests 0",
    ),
    "a token too many is shared": (
        Plant("engine/prefixes.cpp", ".first - ids.begin()};", ".first - ids.begin() + (ids.size() == 39)};"),
        "requests 4",
    ),
}


def test_the_engine_itself_is_sound(row_model: RowModel, expected: list[dict[str, Any]]) -> None:
    assert served(SCHEDULE, row_model, expected) == "sound"


@pytest.mark.parametrize("name", ENGINE_PLANTS)
def test_a_planted_engine_is_caught(
    name: str, row_model: RowModel, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    plant, where = ENGINE_PLANTS[name]
    found = served(planted(plant, "mythos_schedule", tmp_path), row_model, expected)
    assert any(found.startswith(each) for each in where.split("|")), found
