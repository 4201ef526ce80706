"""What depth saves at a real size: `python -m benchmarks.real_size.generation BUNDLE...` (after `make native`).

The native engine beside lock-step (the whole model, every loop), in turns, as `mythos bench --generation` has them:
with every token of all loops, and with one token in ten of all loops and the others of two. Bundles of 1b are made by
`mythos-export CHECKPOINT --precision int4 --verify later`, of a checkpoint of `benchmarks.real_size.checkpoint`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mythos_export.bench.generation.loads import constant, mixed
from mythos_export.bench.generation.schedules import PROMPT, LockStep, Native
from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_runtime import read_manifest
from mythos_runtime.engine.options import MAX_LAG

ROOT = Path(__file__).parents[2]


def measure(bundle: Path, sequences: list[int], tokens: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Of a bundle, a row for each number of sequences and each load."""
    manifest = read_manifest(bundle, verify_hashes=False)
    spec = manifest.spec
    engine, lock_step = Native(bundle, spec, threads), LockStep(bundle, threads)
    rows = []
    for count in sequences:
        prompts = np.random.default_rng(11).integers(0, spec.vocab_size, (count, PROMPT))
        for load in (mixed(spec.trained_loops), constant(spec.trained_loops)):
            turns = []
            for _ in range(rounds):
                ours, theirs = engine.run(prompts, tokens, load, MAX_LAG), lock_step.run(prompts, tokens)
                turns.append({"engine": ours.per_token, "lock_step": theirs.per_token, "mean_depth": ours.depth})
            ratios = [turn["lock_step"] / turn["engine"] for turn in turns]
            rows.append({"load": load.name, "sequences": count, "rounds": turns, "times_lock_step": ratios})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="+")
    parser.add_argument("--sequences", type=int, action="append", help="default: 1, 8 and 16")
    parser.add_argument("--tokens", type=int, default=10, help="of each sequence in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_size_generation.json")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    found = {
        bundle.name: measure(bundle, given.sequences or [1, 8, 16], given.tokens, given.rounds, given.threads)
        for bundle in given.bundle
    }
    machine = describe_machine(given.threads, usable_cores(given.threads))
    document = {"tokens": given.tokens, "load_before": load, "machine": machine, "bundles": found}
    given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = Table("bundle", "load", "sequences", "times as fast as lock-step, by round")
    for name, rows in found.items():
        for row in rows:
            ratios = ", ".join(f"{ratio:.2f}" for ratio in row["times_lock_step"])
            table.add_row(name, row["load"], str(row["sequences"]), ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
