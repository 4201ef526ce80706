"""Shards in processes of their own: in the engine, through `mythos serve`, and one of them killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from golden_bundles import Bundles
from shard_answers import answers, engine_of, requests
from shard_servers import Server, ask

from mythos_runtime.errors import BackendFailed, BundleError
from mythos_runtime.manifest import read_manifest
from mythos_runtime.session import Options
from mythos_runtime.shards import wire
from mythos_runtime.shards.near import Processes
from mythos_runtime.shards.opening import open_shards

pytestmark = pytest.mark.slow
CASES = {"fp32": "hops", "int8": "gqa_decode, int8", "int4": "hops, int4"}


@pytest.mark.parametrize("form", CASES)
@pytest.mark.parametrize("count", [2, 4])
def test_answers_have_the_bits_of_the_whole(count: int, form: str, sharded: Any, bundles: Bundles) -> None:
    bundle = sharded(CASES[form], count)
    asked = [request for request in requests(6) if max(request.prompt) < read_manifest(bundle).spec.vocab_size]
    shards = open_shards(bundle, read_manifest(bundle), Options(count, provider="cpu"))
    try:
        assert answers(engine_of(bundle, shards=shards), asked) == answers(engine_of(bundles[CASES[form]]), asked)
    finally:
        shards.close()
    assert asked and not [child for child in psutil.Process().children() if "mythos_runtime.shards" in child.cmdline()]


def test_modules_come_from_where_this_process_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not from the folder that it stands in. A process that does not come up says how it ended."""
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    processes = Processes(tmp_path / "none", 1, 1)
    with pytest.raises(BundleError, match="cannot read"):
        processes.start(0)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendFailed, match="shard 1 ended at once with exit status 7; what it said"):
        processes.start(0)
    processes.stop()


def test_processes_end_with_their_parent(sharded: Any) -> None:
    """Also where nobody tells them: it was killed."""
    bundle = sharded("hops", 2)
    program = f"""
from pathlib import Path
from mythos_runtime.shards.near import Processes
import time
processes = Processes(Path({str(bundle)!r}), 2, 1)
ports = [processes.start(index)[1] for index in range(2)]
print(processes.pid(0), processes.pid(1), ports[0], processes.key.hex(), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        *pids, port, key = parent.stdout.readline().split()
        shards = [psutil.Process(int(pid)) for pid in pids]
        os.kill(shards[0].pid, signal.SIGTERM)  # as to a whole group: the parent decides when they end
        connection, hello = wire.connect(("127.0.0.1", int(port)), bytes.fromhex(key), 60)
        with connection:
            assert hello.shard == 0
        parent.kill()
    _, alive = psutil.wait_procs(shards, 10)
    assert len(shards) == 2 and not alive


def test_one_that_stands_still_is_taken_for_lost(sharded: Any) -> None:
    bundle = sharded("hops", 2)
    starter = Processes(bundle, 2, 1)
    shards = open_shards(bundle, read_manifest(bundle), Options(1, provider="cpu"), starter, seconds=1.0)
    try:
        stopped = starter.pid(1)
        os.kill(stopped, signal.SIGSTOP)
        engine = engine_of(bundle, shards=shards)
        running = [engine.submit(request) for request in requests(4)]
        while engine.busy:
            engine.tick()
        assert any(each.error is not None for each in running)
        until = time.monotonic() + 30
        while shards.ready < 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert shards.ready == 2 and starter.pid(1) != stopped and not psutil.pid_exists(stopped)
        assert all(each[0] for each in answers(engine, requests(4)))
    finally:
        shards.close()


@pytest.fixture
def pair(sharded: Any, bundles: Bundles) -> Iterator[tuple[Server, Server]]:
    """Servers of the whole bundle, and of it in two shards."""
    with Server(bundles["hops"]) as whole, Server(sharded("hops", 2)) as apart:
        yield whole, apart


def test_a_server_answers_the_same_loses_a_shard_and_has_it_again(pair: tuple[Server, Server]) -> None:
    whole, apart = pair
    known = [ask(whole.client(), number) for number in range(6)]
    client = apart.client()
    assert [ask(client, number) for number in range(6)] == known
    assert len(apart.shards) == 2
    victim = apart.shards[1]
    failures: list[openai.APIStatusError] = []
    stopped = threading.Event()

    def work(number: int) -> None:
        while not stopped.is_set():
            try:
                assert ask(apart.client(), number) == known[number]
            except openai.APIStatusError as error:
                failures.append(error)
                time.sleep(0.1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    victim.kill()
    until = time.monotonic() + 60
    while not (failures and apart.ready) and time.monotonic() < until:
        time.sleep(0.05)
    stopped.set()
    for thread in threads:
        thread.join(60)
    assert failures and {error.status_code for error in failures} == {503}
    assert all(int(error.response.headers["retry-after"]) > 0 for error in failures)
    assert "shard 2 of 2 is being started anew" in failures[0].message
    assert apart.ready and apart.shards[1].pid != victim.pid
    assert [ask(client, number) for number in range(6)] == known
    metrics = httpx2.get(f"{apart.url}/metrics").text
    assert "mythos_shards_ready 2.0" in metrics and "mythos_shard_restarts_total 1.0" in metrics
    assert "mythos_engine_restarts_total 0.0" in metrics  # it cost nobody else anything
    assert re.search(r"mythos_pages_free (\S+)", metrics)[1] == re.search(r"mythos_pages (\S+)", metrics)[1]  # type: ignore[index]
    shards = apart.shards
    assert apart.stop() == 0
    assert not psutil.wait_procs(shards, 10)[1]
