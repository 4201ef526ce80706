"""OpenMythos 1b, a token and a prompt: `python -m benchmarks.real_size.openmythos [--threads 2]` (after `make native`).

Every precision beside the reference in eager PyTorch, in turns, against what the machine reads and multiplies, as
`mythos bench` does it: behind 128 tokens, and 128 tokens, with 16 loops forced and with 4. At 4 loops beside llama.cpp,
too (pip install xllamacpp gguf), before and after the others, on the same shapes unrolled. What is not there is made in
`--folder`: checkpoint, bundles (float32 refers to the checkpoint's weights) and GGUF files.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks.real_size.checkpoint import write_checkpoint
from benchmarks.real_size.llama import write_experts
from benchmarks.real_size.worker import Worker
from mythos_export import export
from mythos_export.bench.run import BenchOptions, bench
from mythos_export.bench.workloads import Workload
from mythos_export.cli.bench import show
from mythos_model import MythosConfig

ROOT = Path(__file__).parents[2]
VARIANT, TOKENS, LOOPS, FEW = "1b", 128, 16, 4
ROUNDED = {
    "int8": {"precision": "int8"},
    "int4": {"precision": "int4"},
    "int8a8": {"precision": "int8", "activations": "int8"},
    "int4a8": {"precision": "int4", "activations": "int8"},
}
LLAMA = ("Q8_0", "Q4_0")
WORKLOADS = tuple(
    workload
    for loops in (LOOPS, FEW)
    for workload in (Workload("decode", 1, TOKENS, 1, loops), Workload("prefill", TOKENS, 0, 1, loops))
)


def made(folder: Path) -> tuple[Path, Path, tuple[Path, ...]]:
    """(checkpoint, bundle in float32, the rounded bundles), made where they are not there."""
    checkpoint = folder / VARIANT
    if not (checkpoint / "config.json").exists():
        write_checkpoint(VARIANT, checkpoint)
    bundles = {"fp32": folder / f"{VARIANT}-fp32"} | {form: folder / f"{VARIANT}-{form}" for form in ROUNDED}
    for form, bundle in bundles.items():
        asked: dict[str, Any] = {"weights": "link"} if form == "fp32" else ROUNDED[form]
        if not (bundle / "manifest.json").exists():
            export(checkpoint, bundle, target="onnx", verification="later", force=True, **asked)
    return checkpoint, bundles["fp32"], tuple(bundles[form] for form in ROUNDED)


def llama_files(folder: Path) -> dict[str, Path]:
    """Of every format the file of four loops; none where llama.cpp is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "gguf")):
        return {}
    files = {form: folder / f"experts-{form}.gguf" for form in LLAMA}
    for form, file in files.items():
        if not file.exists():
            write_experts(file.with_suffix(".partial"), form, MythosConfig.variant(VARIANT), FEW)
            file.with_suffix(".partial").rename(file)
    return files


def ask_llama(files: dict[str, Path], threads: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Of every format its rounds, each in a new process: nothing of the prompt is kept."""
    found: dict[str, list[dict[str, Any]]] = {form: [] for form in files}
    for _ in range(rounds):
        for form, file in files.items():
            worker = Worker("benchmarks.real_size.llama", file, threads, TOKENS)
            found[form].append(worker.round())
            worker.close()
    return found


def measure(folder: Path, threads: int, rounds: int, turn: float) -> dict[str, Any]:
    checkpoint, plain, rounded = made(folder)
    files = llama_files(folder)
    options = BenchOptions(
        threads=threads,
        rounds=rounds,
        turn_seconds=turn,
        backends=("benchmarks.peers.reference:Reference", "kernels"),
        workloads=WORKLOADS,
        checkpoint=checkpoint,
        rounded=rounded,
        command=f"python -m benchmarks.real_size.openmythos --threads {threads} --rounds {rounds}",
    )
    before = ask_llama(files, threads, rounds)
    document = bench(plain, options, lambda text, part=None: print(text, flush=True))
    after = ask_llama(files, threads, rounds)
    show(document)
    return {"threads": threads, "bench": document, "llama": {form: before[form] + after[form] for form in files}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, action="append", help="default: 2, then 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", type=float, default=0.3, help="seconds for a workload, contestant and round")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "real_size")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_size_openmythos.json")
    given = parser.parse_args()
    found = [measure(given.folder, threads, given.rounds, given.turn) for threads in given.threads or (2, 1)]
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
