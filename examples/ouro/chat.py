"""Chat with Ouro, and see how many passes every token took.

    mythos-export ByteDance/Ouro-1.4B-Thinking --precision int4 -o ouro
    python examples/ouro/chat.py ouro "Why is the sky blue?" --threshold 0.5

The engine runs no pass that nobody needs, and the answer is exactly that of a run with every pass.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mythos_runtime import RequestError, RuntimeBundleError, load
from mythos_runtime.chat import NO_TOKENIZER, encode_chat
from mythos_runtime.engine import Request, open_engine


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what mythos-export made")
    parser.add_argument("question")
    parser.add_argument("--threshold", type=float, help="summed probability of leaving; default: the configuration's")
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args(arguments)

    model = load(given.bundle)
    tokenizer, entry = model.tokenizer, model.manifest and model.manifest.tokenizer
    if tokenizer is None or entry is None:
        raise RequestError(NO_TOKENIZER)
    print(f"ends with {list(entry.eos)}: {entry.sources.get('eos', 'nothing says so')}")
    prompt = encode_chat(model, [{"role": "user", "content": given.question}])

    engine = open_engine(given.bundle)
    request = Request(prompt, given.tokens, halt_threshold=given.threshold, eos=frozenset(entry.eos))
    running, text = engine.submit(request), tokenizer.stream()
    while engine.busy:
        for token in engine.tick():
            print(text.feed(token.id), end="", flush=True)
    print(text.finish())
    depths = Counter(running.depth)
    print("passes:", ", ".join(f"{count} tokens took {depth}" for depth, count in sorted(depths.items())))


if __name__ == "__main__":
    try:
        main()
    except RuntimeBundleError as error:
        sys.exit(f"error: {error}")
