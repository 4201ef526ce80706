"""`mythos serve`."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import click

from mythos_runtime.cli.options import LINKLESS, verify_option
from mythos_runtime.cli.terminal import Command, bounded_threads, err, examples
from mythos_runtime.errors import BackendMissing, RequestError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MEMORY = "For pages of the caches and the states of positions that lag; mythos plan tells how many bytes each takes."
_NEEDED = ("fastapi", "uvicorn", "sse_starlette", "prometheus_client", "jinja2")


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes, such as 512MiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        found = re.fullmatch(r"\s*(\d{1,15})\s*([KMGT]?)(?:i?B)?\s*", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no size; expected one such as 512MiB or 2GiB", param, context)
        return int(found[1]) * _UNITS[found[2].upper()]


@click.command(
    cls=Command,
    short_help="Serve a BUNDLE over HTTP, for OpenAI's clients.",
    epilog=examples(
        "mythos serve BUNDLE --port 8000",
        "curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\",
        '  -d \'{"model": "BUNDLE", "prompt": "Once upon a time"}\'',
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--name", help="What clients call the model.  [default: the bundle's folder]")
@click.option("--max-running", type=click.IntRange(1), default=64, show_default=True, help="Requests run at a time.")
@click.option("--max-queue", type=click.IntRange(0), default=256, show_default=True, help="Requests that may wait.")
@click.option("--memory", type=Size(), default="1GiB", show_default=True, help=MEMORY)
@click.option("--max-loops", type=click.IntRange(0), help="Of requests that do not say.  [default: as trained]")
@click.option("--most-loops", type=click.IntRange(1), help="That a request may ask for.  [default: as trained]")
@click.option("--halt-threshold", type=float, help="Of requests that do not say.  [default: as trained]")
@click.option("--loops-per-token", type=click.FloatRange(1), help="Of requests that do not say: loops, on average.")
@click.option(
    "--latency-ms", type=click.FloatRange(0, min_open=True), help="Of requests that do not say: for a new token."
)
@click.option(
    "--policy",
    type=click.Choice(["lazy", "full", "share"]),
    default="lazy",
    show_default=True,
    help="lazy: no loop that is not needed, exactly; full: every loop of every token; share: approximate.",
)
@click.option(
    "--prefixes", type=click.IntRange(0), default=16, show_default=True, help="Ended requests kept for the next ones."
)
@click.option("--speculate", default="off", show_default=True, help="auto, off, or loops after which to draft.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Keys, one a line; a request has to bring one.")
@click.option("--no-keys", is_flag=True, help="Serve everybody who reaches an address that is not this machine's own.")
@click.option("--max-body", type=Size(), default="4MiB", show_default=True, help="Of a request.")
@click.option("--max-prompt", type=click.IntRange(1), help="Tokens of a prompt.  [default: what the model takes]")
@click.option("--max-tokens", type=click.IntRange(1), help="New tokens of a request.  [default: what the model allows]")
@click.option(
    "--max-seconds", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True, help="Of a request."
)
@click.option(
    "--drain-seconds",
    type=click.IntRange(0),
    default=60,
    show_default=True,
    help="For requests to end in, after SIGTERM.",
)
@click.option(
    "--max-lag",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Positions that may lag: bounds what a hard token waits for.",
)
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "eager"]),
    default="onnxruntime",
    show_default=True,
    help="What runs the model: ONNX Runtime, or PyTorch (a bundle of --target cuda).",
)
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where it runs; auto: cuda where there is one. Not executed on a GPU yet. ONNX Runtime is on cuda with "
    "MYTHOS_CUDA_OPS=1 alone.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; at most the cores that there are.")
@click.option("--log-prompts", is_flag=True, help="Write what is asked to the log.")
@click.option("--ray", is_flag=True, help="In Ray Serve: replicas, each with an engine of its own.")
@click.option("--replicas", help="With --ray: how many, or 2-8, as many as are needed.  [default: 1]")
@verify_option
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Of a bundle whose weights are in files outside of it: the file, or a folder, if they have moved.",
)
@click.option("--ray-address", help="With --ray: of a cluster, or auto.  [default: this machine alone]")
def serve(bundle: Path, host: str, port: int, **options: Any) -> None:
    """Serve a BUNDLE over HTTP, as OpenAI's clients expect it; a page to try it at /, figures at /metrics."""
    lacks = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacks:
        raise BackendMissing(f"serving needs {', '.join(lacks)}: pip install 'mythos-runtime[serve]'")
    from mythos_runtime.cli.generation import check_drafts, speculation
    from mythos_runtime.engine import EngineOptions
    from mythos_runtime.manifest import read_manifest
    from mythos_runtime.server import auth, command
    from mythos_runtime.server.served import Served
    from mythos_runtime.server.settings import Settings
    from mythos_runtime.session import Options

    key_file, open_to_all = options.pop("api_key_file"), options.pop("no_keys")
    keys = () if key_file is None else auth.read_keys(key_file)
    own = is_loopback(host)
    if not keys and not own and not open_to_all:
        raise RequestError(f"others reach {host}: give --api-key-file FILE, or --no-keys to serve whoever comes")
    in_ray, given, cluster = options.pop("ray"), options.pop("replicas"), options.pop("ray_address")
    for option, value in (("--replicas", given), ("--ray-address", cluster)):
        if value is not None and not in_ray:
            raise RequestError(f"{option} means nothing without --ray: give that too, or leave it out")
    replicas = replica_range("1" if given is None else given)
    if options["name"] is not None and not options["name"].strip():
        raise RequestError("--name is empty, and clients have to call the model something; give one, or leave it out")
    if in_ray and importlib.util.find_spec("ray") is None:
        raise BackendMissing("--ray needs Ray Serve: pip install 'mythos-runtime[ray]'")
    listening = None if in_ray else command.listen(host, port)
    hashes = options["verify_hashes"] = options.pop("verify") == "hashes"
    manifest = read_manifest(bundle, verify_hashes=hashes)
    if options["weights"] is not None and manifest.links is None:
        raise RequestError(LINKLESS)
    settings = Settings(
        name=options.pop("name") or bundle.resolve().name,
        most_loops=options.pop("most_loops") or max(manifest.spec.trained_loops, options["max_loops"] or 1),
        keys=keys,
        hosts=("localhost", "127.0.0.1", "::1", "[::1]", host) if own and not keys else (),
        most_running=options.pop("max_running"),
        most_queued=options.pop("max_queue"),
        most_body=options.pop("max_body"),
        most_prompt=options.pop("max_prompt"),
        most_tokens=options.pop("max_tokens"),
        most_seconds=options.pop("max_seconds"),
        max_loops=options.pop("max_loops"),
        halt_threshold=options.pop("halt_threshold"),
        loops_per_token=options.pop("loops_per_token"),
        latency_ms=options.pop("latency_ms"),
        policy=options.pop("policy"),
        log_prompts=options.pop("log_prompts"),
    )
    settings.check(manifest.spec)
    drafts = speculation(options.pop("speculate"))
    if isinstance(drafts, int):
        check_drafts(drafts, settings.most_loops)
    options["engine"] = EngineOptions(
        memory=options.pop("memory"),
        max_lag=options.pop("max_lag"),
        prefixes=options.pop("prefixes"),
        speculate=drafts,
    )
    drain = options.pop("drain_seconds")
    threads, weights = bounded_threads(options.pop("threads")), options.pop("weights")
    options["options"] = Options(threads, options.pop("provider"), weights=weights, hash_weights=hashes)
    if listening is None:
        from mythos_runtime.server.replicas import replicated, run

        shards = 0 if manifest.shards is None else len(manifest.shards.counts)
        cores = max(os.cpu_count() or 1, replicas[1] * (1 + shards) * (options["options"].threads or 1))
        run(replicated(bundle, settings, options, *replicas), host, port, cluster, cores)
        return
    if manifest.doubt is not None:
        err.print(manifest.doubt, style="red", highlight=False, soft_wrap=True)
    served = Served.open(bundle, manifest, settings, **options)
    err.print(f"{settings.name} at {command.address(listening)}", highlight=False, soft_wrap=True)
    command.run(served, listening, drain)


def replica_range(text: str) -> tuple[int, int]:
    """How many replicas at least and at most (RequestError)."""
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found is not None else (0, 0)
    if not 1 <= least <= most:
        raise RequestError(f"--replicas should be a number such as 2, or a range such as 2-8, found {text!r}")
    return least, most


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
