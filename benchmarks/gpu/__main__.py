"""The keeper: part after part, each in a process of its own with a limit. See `benchmarks.gpu`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
_LEAST = 8.0  # seconds that a part is begun with
_SHOWN = 2600  # characters of a part's findings on the screen: all of them are in the file
_DRY_LONGER = 6  # how much longer a CPU may take


@dataclass(frozen=True)
class Part:
    """A module of this package, the seconds it is given, and whether it runs unasked."""

    module: str
    seconds: float
    usual: bool = True


PARTS = {
    "environment": Part("environment", 40),
    "kernels": Part("kernels", 150),
    "sizes": Part("sizes", 120),
    "loop": Part("loop", 80),
    "models": Part("models", 100),
    "rows": Part("rows", 120),
    "speed": Part("speed", 150),
    "captured": Part("captured", 80),
    "plugins": Part("plugins", 90),
    "onnxruntime": Part("onnx_cuda", 75),
    "rows_onnx": Part("rows_onnx", 120),
    "tensorrt": Part("tensorrt", 40, usual=False),
    "sanitize": Part("sanitize", 120, usual=False),
    "tests": Part("own_tests", 240, usual=False),
}
"""In the order of their worth: the last ones may be left without time."""


def search_path() -> list[str]:
    """Where a part finds the project, what its tests draw, and the packed description of the installed package."""
    tests = ROOT / "tests"
    packed = [ROOT / "build" / "gpu" / "site"]
    found = [*packed, ROOT, ROOT / "runtimes" / "python", tests, tests / "mythos_export" / "kernels"]
    return [str(path) for path in (*found, tests / "mythos_runtime" / "device_loop") if path.exists()]


def environment(dry: bool) -> dict[str, str]:
    """Of a part's process. What one has compiled serves the next."""
    values = {**os.environ, "PYTHONUNBUFFERED": "1"}
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    values["PYTHONPATH"] = os.pathsep.join([*given, *search_path()])
    values.setdefault("TRITON_CACHE_DIR", str(ROOT / "build" / "gpu" / "triton"))
    values.pop("TRITON_INTERPRET", None)
    if dry:
        values |= {"TRITON_INTERPRET": "1", "MYTHOS_TRITON": "none", "OMP_NUM_THREADS": "1"}
    return values


def main() -> int:
    """Returns 0 where every part ended and nothing was out of bounds, 1 otherwise."""
    arguments = _arguments()
    if arguments.part:
        from benchmarks.gpu.run import Run

        run = Run.of(arguments)
        try:
            importlib.import_module(f"benchmarks.gpu.{PARTS[arguments.part].module}").main(run)
        finally:
            print(json.dumps(run.record.found, default=str))
        return 0
    chosen = arguments.parts.split(",") if arguments.parts else [name for name, part in PARTS.items() if part.usual]
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        print(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    results = keep(chosen, arguments)
    print(json.dumps({name: found["ended"] for name, found in results["parts"].items()}))
    return 0 if all(found["ended"] == 0 and not found["failed"] for found in results["parts"].values()) else 1


def keep(chosen: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts; results.json in the folder of results is written after each."""
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    state = "dry run, without a GPU: built, not executed" if arguments.dry_run else "executed"
    results: dict[str, Any] = {"date": date.today().isoformat(), "state": state, "parts": {}}
    begun = time.perf_counter()
    for name in chosen:
        left = arguments.seconds - (time.perf_counter() - begun)
        if left < _LEAST:
            results["parts"][name] = {"ended": "skipped: no time left", "failed": []}
        else:
            longest = PARTS[name].seconds * (_DRY_LONGER if arguments.dry_run else 1)
            results["parts"][name] = _part(name, min(longest, left), out, arguments)
        (out / "results.json").write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
        found = results["parts"][name]
        print(f"== {name}: {found['ended']}\n{json.dumps(found, default=str)[:_SHOWN]}", flush=True)
        if name == "environment":
            seen = found.get("found", {})
            fastest = max((seen.get(f"{what}_bytes_per_second", 0) for what in ("copy", "read")), default=0)
            arguments.bandwidth = fastest or arguments.bandwidth
            arguments.flops = seen.get("bf16_flops") or arguments.flops
    return results


def _part(name: str, limit: float, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    saved = out / f"{name}.part.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--save", str(saved), "--limit", str(int(limit))]
    for option in ("examples", "select", "bundles", "bandwidth", "flops"):
        command += [f"--{option}", str(getattr(arguments, option))]
    command += ["--dry-run"] * arguments.dry_run
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(arguments.dry_run),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # its own processes end with it
    )
    ended: int | str
    try:
        log, _ = process.communicate(timeout=limit)
        ended = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        log, ended = process.communicate()[0], f"stopped after {limit:.0f} s"
    found = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    saved.unlink(missing_ok=True)
    failed = [
        key
        for key, value in found.items()
        if isinstance(value, dict) and ("error" in value or value.get("ok") is False)
    ]
    seconds = round(time.perf_counter() - begun, 1)
    shown = {} if ended == 0 else {"log": log[-1500:]}
    return {"ended": ended, "seconds": seconds, "failed": failed, "found": found, **shown}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", default=str(RESULTS), help="folder of results.json")
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}; default: all but the long ones")
    parser.add_argument("--seconds", type=float, default=420, help="for all parts together")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU: small sizes, on the CPU")
    parser.add_argument("--select", default="", help="one piece of a part, such as moe-bf16 of kernels")
    parser.add_argument("--examples", type=int, default=0, help="drawn cases of each kind; default: the part's own")
    parser.add_argument("--bundles", default=str(ROOT / "build" / "gpu" / "bundles"))
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes a second, until they are measured")
    parser.add_argument("--flops", type=float, default=800e12, help="bf16 operations a second, until they are measured")
    parser.add_argument("--part", choices=list(PARTS), help="one part, in this process")
    parser.add_argument("--save", default="", help="of one part: where its findings go")
    parser.add_argument("--limit", type=float, default=0, help="of one part: seconds until it is stopped")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
