"""Plants in the C++ runtime's caches and sampler: each is caught, and told from the others by where it shows.

Minutes, as every plant is compiled: `make test-slow`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cpp_programs import BUILD, ROOT, needs_cpp
from golden_bundles import Bundles
from planted_source import FLAGS, Plant, planted

from mythos_runtime import read_manifest
from mythos_runtime.manifest import write_manifest
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
