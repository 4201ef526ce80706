"""Chat with a looped model, and see how deep its answers went.

    mythos-export CHECKPOINT --precision int8 -o bundle
    python examples/chat/chat.py bundle

CHECKPOINT is a folder as Hugging Face writes it, with a tokenizer and a chat template. An empty line ends the
conversation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mythos_runtime import Model, RequestError, RuntimeBundleError, load
from mythos_runtime.chat import NO_TOKENIZER, Message, encode_chat
from mythos_runtime.tokenizer import Tokenizer


def answer(
    model: Model, tokenizer: Tokenizer, messages: list[Message], tokens: int, loops: float | None
) -> tuple[str, list[int]]:
    """The model's answer, printed as it comes, and how many loops each of its tokens took."""
    stream, text, depths = tokenizer.stream(), "", list[int]()
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
    parser.add_argument("bundle", type=Path, help="what mythos-export made")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer, at most")
    parser.add_argument("--loops", type=float, help="a budget: loops of a token, on average")
    given = parser.parse_args(arguments)

    messages: list[Message] = []
    with load(given.bundle) as model:
        tokenizer = model.tokenizer
        if tokenizer is None:
            raise RequestError(NO_TOKENIZER)
        while True:
            print("> ", end="", flush=True)
            question = sys.stdin.readline().strip()
            if not question:
                return
            messages.append({"role": "user", "content": question})
            text, depths = answer(model, tokenizer, messages, given.tokens, given.loops)
            messages.append({"role": "assistant", "content": text})
            mean = sum(depths) / len(depths)
            print(f"({len(depths)} tokens, {mean:.1f} of {model.spec.trained_loops} loops on average)")


if __name__ == "__main__":
    try:
        main()
    except RuntimeBundleError as error:
        sys.exit(f"error: {error}")
