"""Mixed traffic on `mythos serve` for a long time: `python -m benchmarks.serving.soak --minutes 30` (`make soak`).

Streams and whole answers, several choices, clients that leave, requests that are wrong. It fails where an answer is not
the one that its request gets alone, where the server's memory grows, where a page is not given back, or where anything
is answered with a 5xx. The last line of stdout is a JSON document.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx2
import numpy as np
import openai

from benchmarks.serving.__main__ import bundle_of
from benchmarks.serving.mixes import MIXES
from benchmarks.serving.server import NAME, Server, served
from mythos_runtime.manifest import read_manifest
from mythos_runtime.row_ports import PAGE

CLIENTS, KNOWN, PREFIXES = 16, 24, 4
_SAMPLE_SECONDS = 2.0
# Of the time, in which the memory may still grow: pages are touched, the graphs' sizes met and bound.
_WARM = 2 / 3
_LEAST_SECONDS = 300.0  # behind it, for growth to be told from noise
_GROWTH = 0.01  # of the memory that is noise

WRONG: tuple[dict[str, Any], ...] = (
    {"max_tokens": 0},
    {"prompt": [70_000]},
    {"prompt": "x" * 5000},
    {"temperature": -1},
    {"colour": "red"},
    {"model": "another"},
    {"tools": [{}]},
)


@dataclass
class Soak:
    """What happened.

    Attributes:
        memory: (seconds, bytes) of the server's process.
    """

    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Client:
    def __init__(self, server: Server, soak: Soak, seed: int) -> None:
        # A connection a request: on a busy machine the server may just have closed one that was idle. Long enough for
        # such a machine, too; what hangs takes longer.
        http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0), timeout=600)
        self._client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
        self._soak, self._draw = soak, random.Random(seed)
        self._asks = MIXES[0].asks(1)
        self._known = [self._request(number) for number in range(KNOWN)]
        self._alone: list[str] = []

    def _request(self, number: int) -> dict[str, Any]:
        limits = {} if number % 3 else {"max_loops": 1 + number % 5}
        return {
            "model": NAME,
            "prompt": next(self._asks),
            "max_tokens": 8 + number % 57,
            "temperature": 0.0 if number % 2 else 0.8,
            "seed": number,
            "extra_body": limits,
        }

    async def ask_alone(self) -> list[str]:
        """The answers of the known requests, one after the other."""
        answers = [await self._client.completions.create(**request) for request in self._known]
        return [answer.choices[0].text for answer in answers]

    async def work(self, alone: list[str], until: float) -> None:
        self._alone = alone
        kinds = [self._stream, self._whole, self._choices, self._leave, self._mistake]
        while time.monotonic() < until:
            kind = self._draw.choices(kinds, weights=(50, 20, 5, 15, 10))[0]
            number = self._draw.randrange(KNOWN)
            try:
                await kind(number)
                self._soak.counts[kind.__name__.strip("_")] += 1
            except openai.RateLimitError:
                self._soak.counts["refused"] += 1
            except openai.OpenAIError as error:
                if getattr(error, "status_code", None) == 408:  # this side took too long to send what it asks
                    self._soak.counts["late"] += 1
                    continue
                self._soak.faults.append(f"{kind.__name__} of request {number}: {error}")

    def _compare(self, number: int, text: str) -> None:
        if text != self._alone[number]:
            self._soak.faults.append(f"request {number} was answered {text!r}, alone {self._alone[number]!r}")

    async def _stream(self, number: int) -> None:
        stream = await self._client.completions.create(**self._known[number], stream=True)
        self._compare(number, "".join([chunk.choices[0].text async for chunk in stream]))

    async def _whole(self, number: int) -> None:
        self._compare(number, (await self._client.completions.create(**self._known[number])).choices[0].text)

    async def _choices(self, number: int) -> None:
        answer = await self._client.completions.create(**self._known[number], n=3)
        self._compare(number, answer.choices[0].text)

    async def _leave(self, number: int) -> None:
        stream = await self._client.completions.create(**self._known[number] | {"max_tokens": 150}, stream=True)
        tokens = self._draw.randrange(1, 20)
        async for _ in stream:
            tokens -= 1
            if not tokens:
                break
        await stream.close()

    async def _mistake(self, number: int) -> None:
        wrong = self._draw.choice(WRONG)
        try:
            await self._client.completions.create(**self._known[number] | {"extra_body": wrong})
        except (openai.BadRequestError, openai.NotFoundError):
            return
        self._soak.faults.append(f"a request with {wrong} was answered")


async def run(server: Server, seconds: float, soak: Soak) -> None:
    clients = [Client(server, soak, seed) for seed in range(CLIENTS)]
    alone = await clients[0].ask_alone()
    began = time.monotonic()

    async def watch() -> None:
        while True:
            soak.memory.append((time.monotonic() - began, server.process.memory_info().rss))
            await asyncio.sleep(_SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client.work(alone, began + seconds) for client in clients))
    watching.cancel()
    await asyncio.sleep(2.0)  # cancels reach the engine before its next tick


def growth(memory: list[tuple[float, int]]) -> float | None:
    """What a line through the sizes behind the warm-up rises by, as a share of them; None: the time was too short."""
    times, sizes = np.array(memory, float).T
    warm = _WARM * times[-1]
    late = times >= warm
    if times[-1] < warm + _LEAST_SECONDS:
        return None
    slope, start = np.polyfit(times[late], sizes[late], 1)
    first = start + slope * times[late][0]
    return float(slope * (times[-1] - times[late][0]) / first)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("build/serving"), show_default=True)
@click.option("--memory", default="32MiB", show_default=True, help="Of the engine: little, so that requests wait.")
def main(minutes: float, bundles: Path, memory: str) -> None:
    soak = Soak()
    options = ["--memory", memory, "--max-running", "24", "--prefixes", str(PREFIXES)]
    bundle = bundle_of("text", bundles)
    with served(bundle, *options) as server:
        asyncio.run(run(server, 60 * minutes, soak))
        samples = server.metrics()
    spec = read_manifest(bundle, verify_hashes=False).spec
    most = samples["mythos_prefixes"] * -(-spec.max_seq_len // PAGE) * (spec.trained_loops + 1)
    held = samples["mythos_pages"] - samples["mythos_pages_free"]
    grown = growth(soak.memory)
    if held > most or samples["mythos_running"] or samples["mythos_waiting"]:
        soak.faults.append(f"{held:g} pages are held, kept requests need {most:g}; {samples['mythos_running']:g} run")
    if grown is not None and grown > _GROWTH:
        soak.faults.append(f"the memory grew by {100 * grown:.1f}%")
    for fault in soak.faults[:20]:
        click.echo(fault, err=True)
    document = {
        "minutes": minutes,
        "requests": dict(soak.counts),
        "tokens": samples["mythos_generated_tokens_total"],
        "memory_growth": grown,
        "memory_growth_from_second": _WARM * soak.memory[-1][0],
        "memory_each_minute": [
            next(size for at, size in soak.memory if at >= 60 * minute)
            for minute in range(int(soak.memory[-1][0] / 60) + 1)
        ],
        "pages_held": held,
        "pages_of_kept_requests_at_most": most,
        "faults": len(soak.faults),
    }
    click.echo(json.dumps(document))
    sys.exit(1 if soak.faults else 0)


if __name__ == "__main__":
    main()
