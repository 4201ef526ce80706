"""The runs of a load report, and what they come to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.serving.mixes import Mix
from benchmarks.serving.server import Server, served

POLICIES = ("lazy", "full")
SHARES = (0.25, 0.5, 0.75, 1.0, 1.25)
"""Arrival rates, as shares of what the server answers with every loop forced."""
USERS = 16


def measure(
    mixes: Sequence[Mix], bundles: dict[str, Path], seconds: float, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """For every mix: the capacity under each policy, then the runs at the same arrival rates for both.

    Args:
        bundles: by the model's name.
        seconds: of a run.
    """
    found = []
    for mix in mixes:
        load = psutil.getloadavg()[0]
        with served(bundles[mix.model]) as server:
            capacity = {}
            for policy in POLICIES:
                tell(f"{mix.name}, {policy}: {USERS} clients without a pause")
                _run(server, mix, policy, 2.0, users=USERS)  # bindings are made, pages touched
                capacity[policy] = _figures(_run(server, mix, policy, seconds, users=USERS))
            rates = [share * capacity["full"]["answers_per_second"] for share in SHARES]
            runs = []
            for rate in rates:
                for policy in POLICIES:  # side by side, so that what else the machine does hits both
                    tell(f"{mix.name}, {policy}: {rate:.1f} requests a second")
                    runs.append({"policy": policy, "rate": rate, **_figures(_run(server, mix, policy, seconds, rate))})
            samples = server.metrics()
            found.append(
                {
                    "name": mix.name,
                    "load_before": load,
                    "model": mix.model,
                    "max_tokens": mix.max_tokens,
                    "capacity": capacity,
                    "runs": runs,
                    "late_share": samples["mythos_late_share"],
                }
            )
    return found


def _run(
    server: Server, mix: Mix, policy: str, seconds: float, rate: float | None = None, users: int | None = None
) -> dict[str, Any]:
    options = ["--rate", str(rate)] if rate is not None else ["--users", str(users)]
    extra = json.dumps({"policy": policy, "ignore_eos": True})
    program = [sys.executable, "-m", "benchmarks.serving.load", server.url, "--mix", mix.name, *options]
    before = sum(server.process.cpu_times()[:2])
    done = subprocess.run(
        [*program, "--seconds", str(seconds), "--extra", extra], check=True, stdout=subprocess.PIPE, text=True
    )
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document | {"cpu": sum(server.process.cpu_times()[:2]) - before}


def _figures(samples: dict[str, Any]) -> dict[str, Any]:
    """Rates and percentiles of a run; times in seconds, None where nothing was measured.

    cpu_per_token: of the server's process, HTTP included; what else the machine does hardly touches it.
    """
    answered = len(samples["whole"])
    busy = samples["seconds"]
    return {
        "arrived": samples["arrived"],
        "answered": answered,
        "refused": samples["refused"],
        "failed": samples["failed"],
        "unanswered": samples["unanswered"],
        "arrivals_per_second": samples["arrived"] / busy,
        "answers_per_second": answered / busy,
        "tokens_per_second": samples["tokens"] / busy,
        "cpu_per_token": samples["cpu"] / samples["tokens"] if samples["tokens"] else None,
        "mean_depth": samples["loops"] / samples["tokens"] if samples["tokens"] else None,
        **{
            name: {f"p{q}": float(np.percentile(samples[name], q)) for q in (50, 95)} if samples[name] else None
            for name in ("first", "next", "whole")
        },
    }
