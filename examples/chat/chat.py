"""Chat with a looped model, and see how deep its answers went.

    python examples/chat/chat.py FOLDER

FOLDER is a checkpoint as Hugging Face writes it, with a chat template; the first time it is exported into
./chat-bundle. Or it is a bundle. An empty line ends the conversation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mythos_export import export
from mythos_runtime import Model, load
from mythos_runtime.chat import Message, encode_chat


def answer(model: Model, messages: list[Message], tokens: int, loops: float | None) -> tuple[str, list[int]]:
    """The model's answer, printed as it comes, and how many loops each of its tokens took."""
    assert model.tokenizer is not None
    stream, text, depths = model.tokenizer.stream(), "", list[int]()
    for step in model.generate([encode_chat(model, messages)], max_new_tokens=tokens, loops_per_token=loops):
        depths.append(int(step.depth[0]))
        if step.finished[0] != "eos":
            piece = stream.feed(int(step.tokens[0]))
            text += piece
            print(piece, end="", flush=True)
    last = stream.finish()
    print(last)
    return text + last, depths


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, or a bundle that was exported already")
    parser.add_argument("--bundle", type=Path, default=Path("chat-bundle"))
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer, at most")
    parser.add_argument("--loops", type=float, help="a budget: loops of a token, on average")
    given = parser.parse_args(arguments)

    bundle = Path(given.model)
    if not (bundle / "manifest.json").is_file():
        bundle = given.bundle
        if not bundle.exists():
            export(given.model, bundle, precision=given.precision)
    messages: list[Message] = []
    with load(bundle) as model:
        while True:
            print("> ", end="", flush=True)
            question = sys.stdin.readline().strip()
            if not question:
                return
            messages.append({"role": "user", "content": question})
            text, depths = answer(model, messages, given.tokens, given.loops)
            messages.append({"role": "assistant", "content": text})
            mean = sum(depths) / len(depths)
            print(f"({len(depths)} tokens, {mean:.1f} of {model.spec.trained_loops} loops on average)")


if __name__ == "__main__":
    main()
