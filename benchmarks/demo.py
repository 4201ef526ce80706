"""Ask the shipped demo model its questions at several loop budgets: `python -m benchmarks.demo BUNDLE`.

The model follows chains of pointers: a prompt lists 24 edges a>b in random order and a start letter, and the answer
is the end of the chain. How many hops a question needs is not written in it. Training saw 1 to 8 hops and 10 loops.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

import mythos_runtime

QUESTIONS = Path(__file__).parents[1] / "tests" / "golden" / "hops" / "io.safetensors"
BUDGETS = (2, 4, 6, 10, 16)


def main(bundle: str) -> None:
    """Print right answers by hops and budget, and the depth at which the model itself stopped."""
    console = Console()
    model = mythos_runtime.load(bundle)
    data = load_file(QUESTIONS)
    ids, answers, hops = data["input_ids"].astype(np.int64), data["answer"], data["hops"]
    table = Table(
        "hops", "asked", *(f"≤{budget}" for budget in BUDGETS), "stopped after", title="right answers, by loop budget"
    )
    outputs = {budget: model.forward(ids, max_loops=budget) for budget in BUDGETS}
    right = {budget: out.logits[:, -1].argmax(-1) == answers for budget, out in outputs.items()}
    depth = outputs[BUDGETS[-1]].depth[:, -1]
    for k in np.unique(hops):
        mine = hops == k
        share = (f"{right[budget][mine].mean():.0%}" for budget in BUDGETS)
        trained = "" if k <= 8 else " *"
        table.add_row(f"{k}{trained}", str(mine.sum()), *share, f"{depth[mine].mean():.1f} loops")
    console.print(table)
    console.print(
        "Right answers of the exported bundle, run by ONNX Runtime on this CPU. * more hops than in training."
    )
    console.print(
        f"The deeper the question, the longer it thinks. The bundle is in {bundle}; look with: mythos inspect {bundle}"
    )


if __name__ == "__main__":
    main(sys.argv[1])
