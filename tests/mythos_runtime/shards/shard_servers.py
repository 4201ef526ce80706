"""`mythos serve` as a process, and what it answers."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx2
import openai
import psutil

NAME = "small"


class Server:
    """`mythos serve` over a bundle, as a process.

    Attributes:
        shards: the processes of its shards.
    """

    def __init__(self, bundle: Path, *options: str) -> None:
        self._arguments = [str(bundle), *options]

    def __enter__(self) -> Self:
        program = [sys.executable, "-c", "from mythos_runtime.cli import mythos; mythos()", "serve"]
        given = ["--port", "0", "--name", NAME, "--threads", "1", "--memory", "32MiB", "--prefixes", "0"]
        self.process = subprocess.Popen([*program, *self._arguments, *given], stderr=subprocess.PIPE, text=True)
        try:
            self._await()
        except BaseException:
            self.process.kill()
            raise
        return self

    def _await(self) -> None:
        """Until it answers."""
        assert self.process.stderr is not None
        self.said: list[str] = []
        while not (found := re.search(r"http://[\d.:]+", line := self.process.stderr.readline())):
            assert line, f"the server did not start: {self.said}"
            self.said.append(line)
        self.url = found[0]
        threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True).start()
        until = time.monotonic() + 60
        while not self.ready:
            assert time.monotonic() < until
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    @property
    def shards(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return sorted(
            (each for each in children if "mythos_runtime.shards" in each.cmdline()), key=lambda p: p.cmdline()
        )

    @property
    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def ask(client: openai.OpenAI, number: int) -> tuple[Any, ...]:
    """Text, depths and logarithms of probabilities of one request's answer."""
    answer = client.completions.create(
        model=NAME,
        prompt=[60 + number, 9],
        max_tokens=24,
        seed=number,
        temperature=number % 2,
        logprobs=2,
        extra_body={"return_depth": True},
    )
    choice = answer.choices[0]
    assert choice.logprobs is not None
    return (
        choice.text,
        (choice.model_extra or {})["depth"],
        choice.logprobs.token_logprobs,
        choice.logprobs.top_logprobs,
    )
