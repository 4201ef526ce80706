"""One server, several budgets of depth: what a request may say, and what comes of it.

    mythos-export mythos_model/pretrained/text --tokenizer bytes -o text
    mythos serve text --port 8000 &
    python examples/serving_budgets/budgets.py http://localhost:8000 text "A hacker is "

Uses OpenAI's client (pip install openai); what is ours goes into `extra_body`. Greedy (temperature 0), so that nothing
but the budget makes two answers differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from openai import OpenAI, OpenAIError

# What a request asks for, and the words for it. "full" fills the caches of every loop at once and changes no answer. To
# have every loop count, nothing may halt: with OpenMythos that is a threshold which no sum of probabilities reaches.
BUDGETS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as the model decides", {}),
    ("the same, nothing put off", {"policy": "full"}),
    ("at most 3 loops", {"max_loops": 3}),
    ("2 loops on average", {"loops_per_token": 2.0}),
    ("5 ms a token, by the clock", {"latency_ms": 5.0}),
    ("every loop of every token", {"halt_threshold": 1e30}),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the server, such as http://localhost:8000")
    parser.add_argument("model")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--key", default="none")
    given = parser.parse_args(arguments)

    client = OpenAI(base_url=f"{given.url}/v1", api_key=given.key)

    def ask(extra: dict[str, Any]) -> Any:
        return client.completions.create(
            model=given.model,
            prompt=given.prompt,
            max_tokens=given.tokens,
            temperature=0,
            extra_body={"return_depth": True, "ignore_eos": True, **extra},
        )

    for words, extra in BUDGETS:
        ask(extra)  # the first may find a cold server; what is timed finds its prompt in the cache each time
        began = time.perf_counter()
        answer = ask(extra)
        seconds = time.perf_counter() - began
        choice = answer.choices[0].model_dump()
        count = len(choice["depth"])
        mean = sum(choice["depth"]) / count
        print(f"{words:28} {mean:4.1f} loops a token, {1e3 * seconds / count:5.1f} ms: {choice['text']!r}")


if __name__ == "__main__":
    try:
        main()
    except OpenAIError as error:
        sys.exit(f"error: {error}")
