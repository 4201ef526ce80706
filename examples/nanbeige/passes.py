"""Nanbeige 4.2 answers a message with one pass, with the two it was trained for, and with three.

    python examples/nanbeige/passes.py Nanbeige/Nanbeige4.2-3B "Name three rivers of Asia."

The first time, the checkpoint (a folder, or a model of the hub) is exported into ./nanbeige-bundle.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mythos_export import export
from mythos_runtime import load
from mythos_runtime.chat import encode_chat


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, or a bundle that was exported already")
    parser.add_argument("message")
    parser.add_argument("--bundle", type=Path, default=Path("nanbeige-bundle"))
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args(arguments)

    bundle = Path(given.model)
    if not (bundle / "manifest.json").is_file():
        bundle = given.bundle
        if not bundle.exists():
            export(given.model, bundle, precision=given.precision)
    model = load(bundle)
    assert model.tokenizer is not None and model.manifest is not None and model.manifest.tokenizer is not None
    prompt = encode_chat(model, [{"role": "user", "content": given.message}])
    ends = model.manifest.tokenizer.eos
    for passes in (1, model.spec.trained_loops, model.spec.trained_loops + 1):
        result = model.generate_all([prompt], max_new_tokens=given.tokens, max_loops=passes, eos=ends)
        print(f"{passes} passes, {result.tokens_per_second:.1f} tokens/s: {model.tokenizer.decode(result.tokens[0])}")


if __name__ == "__main__":
    main()
