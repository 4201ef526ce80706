"""Chat with Ouro, and see how many passes every token took.

    python examples/ouro/chat.py ByteDance/Ouro-1.4B-Thinking "Why is the sky blue?" --threshold 0.5

The first time, the checkpoint (a folder, or a model of the hub) is exported into ./ouro-bundle. The engine runs no pass
that nobody needs, and the answer is exactly that of a run with every pass.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mythos_export import export
from mythos_runtime import load
from mythos_runtime.chat import encode_chat
from mythos_runtime.engine import Request, open_engine


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, or a bundle that was exported already")
    parser.add_argument("question")
    parser.add_argument("--bundle", type=Path, default=Path("ouro-bundle"))
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--threshold", type=float, help="summed probability of leaving; default: the configuration's")
    parser.add_argument("--tokens", type=int, default=200)
    given = parser.parse_args(arguments)

    bundle = Path(given.model)
    if not (bundle / "manifest.json").is_file():
        bundle = given.bundle
        if not bundle.exists():
            export(given.model, bundle, precision=given.precision)
    model = load(bundle)
    assert model.tokenizer is not None and model.manifest is not None and model.manifest.tokenizer is not None
    ends = model.manifest.tokenizer.eos
    print(f"ends with {list(ends)}: {model.manifest.tokenizer.sources.get('eos', 'nothing says so')}")
    prompt = encode_chat(model, [{"role": "user", "content": given.question}])

    engine = open_engine(bundle)
    request = Request(prompt, given.tokens, halt_threshold=given.threshold, eos=frozenset(ends))
    running, text = engine.submit(request), model.tokenizer.stream()
    while engine.busy:
        for token in engine.tick():
            print(text.feed(token.id), end="", flush=True)
    print(text.finish())
    depths = Counter(running.depth)
    print("passes:", ", ".join(f"{count} tokens took {depth}" for depth, count in sorted(depths.items())))


if __name__ == "__main__":
    main()
