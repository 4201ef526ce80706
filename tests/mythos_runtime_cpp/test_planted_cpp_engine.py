"""Plants in the C++ runtime's engine: each is caught by what it does otherwise than the engine in Python.

Minutes, as every plant is compiled: `make test-slow`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_programs import needs_cpp
from planted_source import FLAGS, Plant, planted
from row_models import VOCABULARY, RowModel
from schedules import AROUND_PAGES, LINES, LOOP_PAGES, ROWS, SCHEDULE, PythonEngine, serving

from mythos_runtime.engine.request import Request
from mythos_runtime.op_library import find_op_library

pytestmark = [
    needs_cpp,
    pytest.mark.slow,
    pytest.mark.skipif(not FLAGS.is_file(), reason="the C++ runtime was not built with Makefiles: make native"),
]


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
