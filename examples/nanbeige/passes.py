"""Nanbeige 4.2 answers a message with one pass, with the two it was trained for, and with three.

mythos-export Nanbeige/Nanbeige4.2-3B --precision int4 -o nanbeige
python examples/nanbeige/passes.py nanbeige "Name three rivers of Asia."
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mythos_runtime import RequestError, RuntimeBundleError, load
from mythos_runtime.chat import NO_TOKENIZER, encode_chat


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what mythos-export made")
    parser.add_argument("message")
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args(arguments)

    model = load(given.bundle)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise RequestError(NO_TOKENIZER)
    prompt = encode_chat(model, [{"role": "user", "content": given.message}])
    for passes in (1, model.spec.trained_loops, model.spec.trained_loops + 1):
        result = model.generate_all([prompt], max_new_tokens=given.tokens, max_loops=passes)
        print(f"{passes} passes, {result.tokens_per_second:.1f} tokens/s: {tokenizer.decode(result.tokens[0])}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeBundleError as error:
        sys.exit(f"error: {error}")
