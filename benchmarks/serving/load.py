"""Arrivals that do not wait for answers, from locust, with OpenAI's own client: `python -m benchmarks.serving.load`.

One locust user lets requests arrive, at times drawn for a Poisson process, each a greenlet of its own that streams its
answer. (guidellm and aiperf do this too, but bring a tokenizer library that brings PyTorch for CUDA, 42 and 93
packages, and pins that this project's own do not meet; locust brings 19.) A process of its own, since gevent replaces
the sockets of everything in it. With --users, that many ask without a pause instead, which gives the capacity.

The last line of stdout is a JSON document: see `Samples`.
"""

from __future__ import annotations

import locust  # first: it replaces the sockets that the others import

# isort: split
import json
import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import click
import gevent
import openai
from locust.env import Environment

from benchmarks.serving.mixes import MIXES, Mix
from benchmarks.serving.server import NAME

_DRAIN_SECONDS = 20.0


@dataclass
class Samples:
    """Of one run: seconds to the first token, between tokens, and to the end; tokens; and who got no answer."""

    seconds: float = 0.0
    arrived: int = 0
    first: list[float] = field(default_factory=list)
    next: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    loops: int = 0
    refused: int = 0
    failed: int = 0
    unanswered: int = 0


class Asker:
    """Sends the requests of a mix, and notes what comes of them."""

    def __init__(self, url: str, mix: Mix, seed: int, extra: dict[str, Any]) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300)
        self._asks, self._mix, self._extra = mix.asks(seed), mix, extra
        self.samples = Samples()

    def ask(self) -> None:
        samples, began = self.samples, time.perf_counter()
        samples.arrived += 1
        try:
            stream = self._client.completions.create(
                model=NAME,
                prompt=next(self._asks),
                max_tokens=self._mix.max_tokens,
                temperature=0,
                stream=True,
                extra_body={"return_depth": True, **self._extra},  # a chunk for every token
            )
            last = None
            for chunk in stream:
                now, depth = time.perf_counter(), (chunk.choices[0].model_extra or {})["depth"]
                samples.tokens, samples.loops = samples.tokens + len(depth), samples.loops + sum(depth)
                if last is None:
                    samples.first.append(now - began)
                else:
                    samples.next.append(now - last)
                last = now
            samples.whole.append(time.perf_counter() - began)
        except openai.RateLimitError:
            samples.refused += 1
        except openai.OpenAIError:
            samples.failed += 1


@click.command()
@click.argument("url")
@click.option("--mix", "mix_name", type=click.Choice([mix.name for mix in MIXES]), required=True)
@click.option("--rate", type=float, help="Requests a second, on average.")
@click.option("--users", type=int, help="Instead: this many, each asking again as soon as it was answered.")
@click.option("--seconds", type=float, required=True)
@click.option("--seed", type=int, default=0)
@click.option("--extra", default="{}", help="Further fields of a request, JSON.")
def main(url: str, mix_name: str, rate: float | None, users: int | None, seconds: float, seed: int, extra: str) -> None:
    asker = Asker(url, next(mix for mix in MIXES if mix.name == mix_name), seed, json.loads(extra))
    draw, going = random.Random(seed), gevent.pool.Group()

    class Arrivals(locust.User):
        @locust.task
        def arrive(self) -> None:
            if rate is None:
                asker.ask()
            else:
                gevent.sleep(draw.expovariate(rate))
                going.spawn(asker.ask)

    runner = Environment(user_classes=[Arrivals]).create_local_runner()
    began = time.perf_counter()
    runner.start(users or 1, spawn_rate=users or 1)
    gevent.sleep(seconds)
    runner.quit()
    asker.samples.seconds = time.perf_counter() - began
    going.join(timeout=_DRAIN_SECONDS)
    asker.samples.unanswered = len(going)
    click.echo(json.dumps(asdict(asker.samples)))


if __name__ == "__main__":
    main()
