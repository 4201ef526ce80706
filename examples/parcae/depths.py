"""Parcae at several depths: the same prompt, more loops or fewer, and what each costs.

    python examples/parcae/depths.py SandyResearch/parcae-140m "The history of the steam engine" --loops 2,4,8,16

The first time, the checkpoint (a folder, or a model of the hub) is exported into ./parcae-bundle. One bundle serves
every depth: it is a number of the call.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mythos_export import export
from mythos_runtime import load


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, or a bundle that was exported already")
    parser.add_argument("prompt")
    parser.add_argument("--bundle", type=Path, default=Path("parcae-bundle"))
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--loops", default="2,4,8,16")
    parser.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args(arguments)

    bundle = Path(given.model)
    if not (bundle / "manifest.json").is_file():
        bundle = given.bundle
        if not bundle.exists():
            export(given.model, bundle, precision=given.precision)
    model = load(bundle)
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode(given.prompt)
    for loops in map(int, given.loops.split(",")):
        result = model.generate_all([prompt], max_new_tokens=given.tokens, max_loops=loops)
        rate = result.tokens_per_second
        print(f"{loops} loops, {rate:.1f} tokens/s: {model.tokenizer.decode(result.tokens[0])}")


if __name__ == "__main__":
    main()
