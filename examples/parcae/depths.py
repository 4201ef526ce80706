"""Parcae at several depths: the same prompt, more loops or fewer, and what each costs.

    mythos-export SandyResearch/parcae-140m --precision int8 -o parcae
    python examples/parcae/depths.py parcae "The history of the steam engine" --loops 2,4,8,16

One bundle serves every depth: it is a number of the call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mythos_runtime import RequestError, RuntimeBundleError, load


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what mythos-export made")
    parser.add_argument("prompt")
    parser.add_argument("--loops", default="2,4,8,16")
    parser.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args(arguments)

    model = load(given.bundle)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise RequestError("this bundle has no tokenizer; export it with --tokenizer")
    prompt = tokenizer.encode(given.prompt)
    for loops in map(int, given.loops.split(",")):
        result = model.generate_all([prompt], max_new_tokens=given.tokens, max_loops=loops)
        rate = result.tokens_per_second
        print(f"{loops} loops, {rate:.1f} tokens/s: {tokenizer.decode(result.tokens[0])}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeBundleError as error:
        sys.exit(f"error: {error}")
