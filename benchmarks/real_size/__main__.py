"""`python -m benchmarks.real_size`: makes the models in build/real_size, measures them, writes one JSON document.

Per precision a process of ours and one of llama.cpp (pip install xllamacpp gguf), a round of each in turns, one working
at a time; memory's reading rate is measured before and after each of our rounds. The byte limit of a token is the
rounded weights that it reads, over that rate.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.real_size.llama import write_dense
from benchmarks.real_size.random_model import CONFIG, make_bundle, weight_bytes
from benchmarks.real_size.worker import Worker
from mythos_export.bench.machine import describe_machine, usable_cores

ROOT = Path(__file__).parents[2]
FORMS = {"int4": "Q4_0", "int8": "Q8_0", "int4a8": "Q4_0", "int8a8": "Q8_0"}


def measure(form: str, folder: Path, threads: int, rounds: int, with_llama: bool) -> dict[str, Any]:
    """One precision: bytes, and every round."""
    bundle, gguf = folder / f"ouro-{form}", folder / f"dense-{FORMS[form]}.gguf"
    if not (bundle / "manifest.json").exists():
        shutil.rmtree(bundle, ignore_errors=True)
        make_bundle(CONFIG, form, bundle)
    read, passes = weight_bytes(bundle), CONFIG.total_ut_steps
    document: dict[str, Any] = {"precision": form, "threads": threads, "bytes": read}
    ours = Worker("benchmarks.real_size.ours", bundle, threads)
    if with_llama:
        if not gguf.exists():
            write_dense(gguf.with_suffix(".partial"), FORMS[form], passes * CONFIG.num_hidden_layers)
            gguf.with_suffix(".partial").rename(gguf)
        document["llama_bytes"] = gguf.stat().st_size - _embedding(form)
    turns = []
    for _ in range(rounds):
        turn = {"load": os.getloadavg()[0], "ours": ours.round()}
        if with_llama:  # anew every time: nothing of the prompt is kept from one round to the next
            theirs = Worker("benchmarks.real_size.llama", gguf, threads)
            turn["llama"] = theirs.round()
            theirs.close()
        turns.append(turn)
    ours.close()
    return {**document, "rounds": turns, "summary": summary(document, turns)}


def _embedding(form: str) -> int:
    """Bytes of the table that a token reads one line of."""
    return CONFIG.vocab_size * CONFIG.hidden_size // 32 * {"Q4_0": 18, "Q8_0": 34}[FORMS[form]]


def summary(document: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, by wall clock and by CPU time: milliseconds a token, and the share of the byte limit."""
    found: dict[str, Any] = {}
    for number, clock in enumerate(("wall", "cpu")):
        rate = statistics.median(max(read[number] for read in turn["ours"]["read"]) for turn in turns)
        lines: dict[str, dict[str, float]] = {}

        def add(name: str, times: list[float], read: float, rate: float = rate) -> None:
            ms = statistics.median(times)
            lines[name] = {"ms": ms, "limit_ms": 1e3 * read / rate, "share": 1e3 * read / rate / ms}  # noqa: B023

        for depth in turns[0]["ours"]["depth"]:
            read = int(depth) * document["bytes"]["pass"] + document["bytes"]["head"]
            add(f"{depth} passes", [turn["ours"]["depth"][depth][clock] for turn in turns], read)
        mean = statistics.mean(turn["ours"]["exits"]["mean_depth"] for turn in turns)
        read = mean * document["bytes"]["pass"] + document["bytes"]["head"]
        add(f"exits, {mean:.2f} passes", [turn["ours"]["exits"][clock] for turn in turns], read)
        if "llama_bytes" in document:
            add("llama.cpp, dense", [turn["llama"][clock] for turn in turns], document["llama_bytes"])
        found[clock] = {"read_bytes_per_second": rate, "lines": lines}
    peaks = {name: max(turn[name]["peak"] for turn in turns) for name in turns[0] if name != "load"}
    return {**found, "peak_bytes": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", action="append", choices=list(FORMS), help="default: all")
    parser.add_argument("--threads", type=int, action="append", help="default: 2, then 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "real_size")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_size.json")
    given = parser.parse_args()
    with_llama = all(importlib.util.find_spec(name) is not None for name in ("xllamacpp", "gguf"))
    results = [
        measure(form, given.folder, threads, given.rounds, with_llama)
        for form in given.precision or FORMS
        for threads in given.threads or (2, 1)
    ]
    machine = describe_machine(2, usable_cores(2))
    document = {"model": "Ouro-1.4B's size, random weights", "machine": machine, "results": results}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    table = Table("precision", "threads", "clock", "", "ms a token", "of the byte limit")
    for result in results:
        for clock in ("wall", "cpu"):
            for name, line in result["summary"][clock]["lines"].items():
                row = (result["precision"], str(result["threads"]), clock, name)
                table.add_row(*row, f"{line['ms']:.0f}", f"{100 * line['share']:.0f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
