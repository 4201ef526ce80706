"""The C++ runtime against the Python one: `python -m benchmarks.cpp_against_python` (after `make native`).

One bundle, the same graph and library, the same CPU kernels where they are built, one thread, runs interleaved.
Per token: the engine call and everything around it, in a process that is warm. First token: from the start of the
process to the first id on its stdout, hashing and loading included. Prints a table, and writes and prints one JSON
document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mythos_export import export
from mythos_model.pretrained import folder
from mythos_runtime.op_library import OP_LIBRARY_VARIABLE, find_op_library

ROOT = Path(__file__).parents[1]
RUN = ROOT / "build" / "native" / "mythos_run"
CHECKPOINT = folder("text")
RESULT = Path(__file__).parent / "results" / "cpp_against_python.json"
TOKENS, ROUNDS = 100, 9
PYTHON = """
import sys
from mythos_runtime import load
model = load(sys.argv[1], threads=1, engine=sys.argv[3])
for step in model.generate([[1, 2, 3]], max_new_tokens=int(sys.argv[2])):
    print(int(step.tokens[0]), end=" ", flush=True)
"""


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds from the start of the process to its first id, and per id after the first as they arrive."""
    environment = {**os.environ, OP_LIBRARY_VARIABLE: str(find_op_library() or "none"), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        moments: list[float] = []
        while len(moments) < TOKENS and (byte := process.stdout.read(1)):
            if byte == b" ":
                moments.append(time.perf_counter())
        process.stdout.read()
        said = process.stderr.read().decode(errors="replace")
    if process.returncode or len(moments) < TOKENS:
        sys.exit(f"{command[0]} ended with {process.returncode} after {len(moments)} ids: {said}")
    return moments[0] - started, (moments[-1] - moments[0]) / (TOKENS - 1)


def main() -> None:
    """Export, measure, report."""
    if not RUN.is_file():
        sys.exit(f"{RUN.relative_to(ROOT)} is not there: make native")
    with tempfile.TemporaryDirectory() as temporary:
        bundle = str(export(CHECKPOINT, Path(temporary) / "bundle").path)
        commands = {
            "C++": [str(RUN), bundle, "--ids", "1,2,3", "--max-new-tokens", str(TOKENS), "--threads", "1"],
            "Python": [sys.executable, "-c", PYTHON, bundle, str(TOKENS), "native"],
            "Python's own engine": [sys.executable, "-c", PYTHON, bundle, str(TOKENS), "python"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(measure(command))
    table = Table("runtime", "first token after the process starts", "per token")
    rows = {}
    for name, pairs in times.items():
        first, token = (statistics.median(values) for values in zip(*pairs, strict=True))
        rows[name] = {"first_token_ms": 1e3 * first, "per_token_ms": 1e3 * token}
        table.add_row(name, f"{1e3 * first:.0f} ms", f"{1e3 * token:.2f} ms")
    Console().print(table)
    document = {
        "rows": rows,
        "model": "the shipped model text (GQA, 6 loops)",
        "operators": "CPU kernels" if find_op_library() else "portable function bodies",
        "method": f"one thread, medians of {ROUNDS} interleaved runs of {TOKENS} tokens",
        "command": "python -m benchmarks.cpp_against_python",
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
