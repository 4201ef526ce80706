"""Huginn with as many loops as each token needs: it leaves when its state has settled.

    mythos-export tomg-group-umd/huginn-0125 --precision int4 -o huginn
    python examples/huginn/adaptive.py huginn "The capital of Westphalia is" --threshold 0.03

The state before the first loop is random: drawn from a seed and a token's position, so that two runs with one seed are
equal, whoever runs beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mythos_runtime import RequestError, RuntimeBundleError, load
from mythos_runtime.engine import Request, open_engine


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what mythos-export made")
    parser.add_argument("prompt")
    parser.add_argument("--threshold", type=float, default=0.03, help="relative change of the state in a loop")
    parser.add_argument("--seeds", type=int, default=2, help="answers from so many random first states")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args(arguments)

    model = load(given.bundle)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise RequestError("this bundle has no tokenizer; export it with --tokenizer")
    prompt = tokenizer.encode(given.prompt)

    engine = open_engine(given.bundle)
    running = [
        engine.submit(Request(prompt, given.tokens, halt_threshold=given.threshold, state_seed=seed))
        for seed in range(given.seeds)
    ]
    while engine.busy:
        engine.tick()
    for seed, each in enumerate(running):
        mean = sum(each.depth) / len(each.depth)
        print(f"seed {seed}, {mean:.1f} of {model.spec.trained_loops} loops a token ({min(each.depth)} to ", end="")
        print(f"{max(each.depth)}): {tokenizer.decode(each.tokens)}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeBundleError as error:
        sys.exit(f"error: {error}")
