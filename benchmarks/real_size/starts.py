"""From the start of a process to the first token: `python -m benchmarks.real_size.starts BUNDLE` (after `make native`).

`mythos run` and `mythos_run` with a prompt of four ids and one new token, in turns. What the prefill took is what
the program says; the rest is the start: imports, hashing of every file, sessions, the end of the process. Memory is the
kernel's peak of the process (ru_maxrss), against the bytes of the bundle's weights; after the starts, of longer prompts
too, whose rows are computed together and meet more experts. The first run of each start warms the system's cache and is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mythos_export.bench.machine import describe_machine, usable_cores
from mythos_runtime.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "build" / "native" / "mythos_run"
PYTHON = "import sys; from mythos_runtime.cli import mythos; mythos(sys.argv[1:], prog_name='mythos')"
IDS = ("--ids", "1,2,3,4")
OPTIONS = ("--max-new-tokens", "1", "--threads", "2", "--json")
PROMPTS, FIRST_ID = (64, 128, 256), 300


def start(command: list[str]) -> dict[str, float]:
    """One process: seconds, CPU seconds and bytes."""
    reading, writing = os.pipe()
    started = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    os.close(writing)
    os.close(null)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status, used = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}")
    prefill = json.loads(said.splitlines()[-1])["prefill_seconds"]
    return {
        "whole": seconds,
        "prefill": prefill,
        "start": seconds - prefill,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_resident": used.ru_maxrss * 1024,
    }


def peak(command: list[str], tokens: int, rounds: int) -> float:
    """The median of bytes, of processes with a prompt of so many ids."""
    ids = ",".join(str(FIRST_ID + number) for number in range(tokens))
    return statistics.median(start([*command, "--ids", ids])["peak_resident"] for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "real_size_starts.json")
    given = parser.parse_args()
    manifest = read_manifest(given.bundle, verify_hashes=False)
    weights = manifest.files["weights.safetensors"].bytes
    runtimes = {"Python": [sys.executable, "-c", PYTHON, "run"]} | ({"C++": [str(RUN)]} if RUN.is_file() else {})
    commands = {
        f"{name}, --verify {verify}": [*runtime, str(given.bundle), *IDS, *OPTIONS, "--verify", verify]
        for verify in ("hashes", "sizes")
        for name, runtime in runtimes.items()
    }
    load, rounds = os.getloadavg()[0], {name: list[dict[str, float]]() for name in commands}
    for _ in range(given.rounds + 1):
        for name, command in commands.items():
            rounds[name].append(start(command))
    results: dict[str, Any] = {}
    table = Table("runtime", "start", "prefill", "CPU seconds", "peak resident / weights")
    for name, found in rounds.items():
        middle = {key: statistics.median(each[key] for each in found[1:]) for key in found[0]}
        results[name] = {**middle, "of_weights": middle["peak_resident"] / weights}
        share = f"{results[name]['of_weights']:.2f}"
        table.add_row(name, f"{middle['start']:.2f} s", f"{middle['prefill']:.2f} s", f"{middle['cpu']:.2f}", share)
    peaks = {
        name: {
            length: peak([*runtime, str(given.bundle), *OPTIONS], length, given.rounds) / weights for length in PROMPTS
        }
        for name, runtime in runtimes.items()
    }
    longer = Table("peak resident / weights", *(f"{length} tokens" for length in PROMPTS))
    for name, shares in peaks.items():
        longer.add_row(name, *(f"{share:.2f}" for share in shares.values()))
    document = {
        "bundle": f"{manifest.source.name}, {manifest.precision}",
        "weights": weights,
        "command": f"mythos run BUNDLE {' '.join(IDS + OPTIONS)}",
        "method": f"medians of {given.rounds} runs in turns",
        "load_before": load,
        "machine": describe_machine(2, usable_cores(2)),
        "results": results,
        "peak_resident_of_weights_by_prompt": peaks,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    Console().print(table, longer)


if __name__ == "__main__":
    main()
