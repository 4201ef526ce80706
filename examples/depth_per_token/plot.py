"""Adaptive depth, drawn: how many loops each token of a text took.

    mythos-export mythos_model/pretrained/text --tokenizer bytes -o text
    python examples/depth_per_token/plot.py text "A hacker is " --out depth.svg

Reads a text with the model, and goes on for some tokens; a bar for each token. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mythos_runtime import Model, RequestError, RuntimeBundleError, load


def depths_of(model: Model, text: str, tokens: int) -> tuple[list[str], list[int], int]:
    """The text's tokens and new ones, as they are written; the loops of each; and how many of them were read."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise RequestError("this bundle has no tokenizer; export it with --tokenizer")
    prompt = tokenizer.encode(text)
    cache = model.new_cache(1, len(prompt) + tokens)
    out = model.forward([prompt], cache=cache)
    ids, depths = list(prompt), out.depth[0].tolist()
    for _ in range(tokens):
        chosen = int(np.argmax(out.logits[0, -1]))
        out = model.forward([[chosen]], cache=cache)
        ids.append(chosen)
        depths.append(int(out.depth[0, -1]))
    return [tokenizer.decode([token]) for token in ids], depths, len(prompt)


def draw(names: list[str], depths: list[int], read: int, most: int) -> Figure:
    """A bar for each token, those that were read in another colour than those that were written."""
    figure = Figure(figsize=(max(4.0, 0.22 * len(names)), 3.0), layout="constrained")
    axes = figure.subplots()
    colors = ["#555555"] * read + ["#0072B2"] * (len(names) - read)
    axes.bar(range(len(names)), depths, color=colors)
    axes.set_xticks(range(len(names)), [repr(name)[1:-1] for name in names], family="monospace", fontsize=8)
    axes.set_ylim(0, most + 0.5)
    axes.set_ylabel("loops")
    axes.set_title("loops of each token: grey was read, blue was written", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=24, help="to write after the text")
    parser.add_argument("--out", type=Path, default=Path("depth.svg"))
    given = parser.parse_args(arguments)
    with load(given.bundle) as model:
        names, depths, read = depths_of(model, given.text, given.tokens)
        most = model.spec.trained_loops
    draw(names, depths, read, most).savefig(given.out)
    print(f"{given.out}: {len(depths)} tokens, {sum(depths) / len(depths):.1f} of {most} loops on average")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeBundleError, OSError) as error:
        sys.exit(f"error: {error}")
