"""`make fuzz-readers`: mutants of everything that the product reads, in processes that may die.

python -m fuzz_readers --count 10000 --seed 1 --bundle build/fuzz/bundle

No mutant may hang, take memory beyond a multiple of the files, end in anything but one of our errors, or be read as
something that it is not. Each finding has the mutant's number; `--keep FOLDER` keeps its files.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def run(seed: int, first: int, last: int, bundle: Path | None, keep: Path | None = None) -> Iterator[dict[str, Any]]:
    """Of each mutant: {number, what, outcome, finding}; a process that died is the finding of its mutant."""
    here = str(Path(__file__).parents[1])
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    while first < last:
        arguments = [str(seed), str(first), str(last), str(bundle or ""), str(keep or "")]
        command = [sys.executable, "-m", "fuzz_readers.child", *arguments]
        started: dict[str, Any] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None and child.stderr is not None
            with ThreadPoolExecutor(1) as pool:
                errors = pool.submit(child.stderr.read)
                for line in child.stdout:
                    message = json.loads(line)
                    if "outcome" in message:
                        yield message
                        started, first = {}, message["number"] + 1
                    else:
                        started = message
                stderr = errors.result().decode(errors="replace")
        if child.returncode == 0:
            return
        if not started:
            raise RuntimeError(f"the fuzzer itself failed: {stderr}")
        hung = -child.returncode in (signal.SIGALRM, signal.SIGPROF)
        died = "hang" if hung else f"died with {child.returncode}: {stderr[-300:]}"
        yield started | {"outcome": "died", "finding": died}
        first = started["number"] + 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-readers")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bundle", type=Path, help="a bundle whose manifest is mutated too")
    parser.add_argument("--keep", type=Path, help="folder for the mutants that something is wrong with")
    options = parser.parse_args()
    share = -(-options.count // options.processes)
    end = options.first + options.count
    ranges = [(first, min(first + share, end)) for first in range(options.first, end, share)]
    with ThreadPoolExecutor(len(ranges)) as pool:
        runs = [pool.submit(lambda r: list(run(options.seed, *r, options.bundle, options.keep)), r) for r in ranges]
        results = [result for run_ in runs for result in run_.result()]
    outcomes = collections.Counter(result["outcome"] for result in results)
    findings = [result for result in results if result["finding"]]
    for result in findings:
        line = f"{options.seed}:{result['number']} {result['what']}: {result['finding']}"
        print(line.encode("ascii", "backslashreplace").decode())
    print(f"{len(results)} mutants: {dict(outcomes)}; {len(findings)} findings")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
