"""`mythos run`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import click

from mythos_runtime.cli.options import LINKLESS, verify_option
from mythos_runtime.cli.terminal import Command, bounded_threads, detail, err, examples, write


@click.command(
    cls=Command,
    short_help="Generate text, or ids, with a BUNDLE.",
    epilog=examples(
        "mythos run BUNDLE --prompt 'Once upon a time' --max-new-tokens 40",
        "mythos run BUNDLE --ids 1,2,3 --max-loops 8 --json | jq .depth",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.option("--prompt", help="Text to go on from (bundles with a tokenizer); - reads it from stdin.")
@click.option(
    "--file", type=click.Path(path_type=Path, allow_dash=True), help="A UTF-8 file with the prompt; - is stdin."
)
@click.option("--ids", help="Token ids to go on from, such as 1,2,3.")
@click.option("--chat", is_flag=True, help="The prompt is a message: put it into the bundle's chat template.")
@click.option("--system", help="With --chat: a system message before it.")
@click.option("--max-new-tokens", type=int, help="1 or more.  [default: the bundle's, or 64; less where less fits]")
@click.option("--temperature", type=float, help="0 (greedy) or more.  [default: the bundle's, or 0]")
@click.option("--top-k", type=int, help="0 (off) or more.  [default: the bundle's, or 0]")
@click.option("--top-p", type=float, help="Over 0, to 1 (off).  [default: the bundle's, or 1]")
@click.option("--min-p", type=float, help="0 (off) to 1.  [default: the bundle's, or 0]")
@click.option("--repetition-penalty", type=float, help="Over 0; 1: off.  [default: the bundle's, or 1]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn: from 0, below 2^64.")
@click.option("--eos", type=int, multiple=True, help="Id that ends the text, instead of the bundle's; may be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the bundle's EOS.")
@click.option("--stop", multiple=True, help="Text that ends the text, and is not shown; may be repeated.")
@click.option("--stop-ids", multiple=True, help="Ids in a row that end the text, such as 4,5; may be repeated.")
@click.option("--max-loops", type=int, help="0 to 256.  [default: as trained]")
@click.option("--halt-threshold", type=float, help="As mythos inspect says, or inf, -inf.  [default: as trained]")
@click.option(
    "--policy",
    type=click.Choice(["lazy", "full", "share"]),
    help="Depths that a token did not run: run when they are needed (lazy, the default), at once (full; the same "
    "text), or stood for by its deepest (share; approximate).",
)
@click.option("--loops-per-token", type=float, help="Budget: mean depth of new tokens, from 1 on; they halt earlier.")
@click.option("--latency-ms", type=float, help="Budget: milliseconds of a new token, over 0; by what calls took.")
@click.option(
    "--speculate",
    default="off",
    show_default=True,
    metavar="auto|off|LOOPS",
    help="Draft tokens after so many loops, 1 or more; changes the speed, never the text.",
)
@click.option(
    "--depth-trace", type=click.Path(path_type=Path), help="Write the depth of every new token there, as JSON."
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt", "eager"]),
    help="What runs the model; eager: PyTorch.  [default: the first of these that the bundle has files for]",
)
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where ONNX Runtime or PyTorch runs; auto: cuda where it has one. Not executed on a GPU yet.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; at most the cores that there are.")
@verify_option
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Of a bundle whose weights are in files outside of it: the file, or a folder, if they have moved.",
)
@click.option("--json", "as_json", is_flag=True, help="Instead of the text: one line of JSON, with the text in it.")
@click.pass_context
def run(context: click.Context, /, bundle: Path, as_json: bool, **options: Any) -> None:
    """Generate with a BUNDLE: text on stdout where it has a tokenizer, ids otherwise; everything else on stderr."""
    from mythos_runtime import load
    from mythos_runtime.cli.generation import named_options, plan, prompt_ids, speculation, stream, write_trace
    from mythos_runtime.errors import NotVerified, RequestError
    from mythos_runtime.outputs import check_file_place

    with named_options(context.command):
        trace = options.pop("depth_trace")
        if trace is not None:
            check_file_place(trace, "--depth-trace")
        threads = bounded_threads(options.pop("threads"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotVerified)  # it is among the notes below
            how = {name: options.pop(name) for name in ("backend", "provider", "verify", "weights")}
            model = load(bundle, threads=threads, **how)
        if how["weights"] is not None and model.manifest is not None and model.manifest.links is None:
            raise RequestError(LINKLESS)
        detail(f"{model!r}")
        options["speculate"] = speculation(options["speculate"])
        words = {name: options.pop(name) for name in ("prompt", "file", "ids", "chat", "system")}
        ids = prompt_ids(model, **words)
        detail(f"{len(ids)} prompt tokens")
        request = plan(model, len(ids), options)
        for line in request.notes:
            err.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)
        result = stream(model, ids, request, (lambda _: None) if as_json else write)
        if trace is not None:
            write_trace(trace, len(ids), result)
        err.print(result.summary(), markup=False, highlight=False, soft_wrap=True)
        if as_json:
            write(json.dumps(result.to_json()) + "\n")
