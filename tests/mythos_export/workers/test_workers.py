"""Processes that answer: what goes through, what a failure looks like, and that nothing of them is left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from mythos_export.errors import ExportError, KernelResourceError, ToolFailed
from mythos_export.workers.near import Worker

HERE = Path(__file__).parent


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("answering:Answering", "the worker", folders=[str(HERE)]) as started:
        yield started
    assert started.ended() and not started.log.exists()


def test_values_arrays_and_progress_go_through_and_prints_do_not(worker: Worker) -> None:
    arrays = {"a/b": np.arange(6, dtype=np.float16).reshape(2, 3), "empty": np.zeros((0, 4), bool)}
    seen: list[tuple[str, float | None]] = []
    for _ in range(2):
        answer = worker.ask("double", progress=lambda *now: seen.append(now), arrays=arrays, note="ü")
        assert answer["note"] == "ü" and answer["input"] == ""
        for name, array in arrays.items():
            found = answer["arrays"][name]
            assert found.dtype == (2 * array).dtype and found.shape == array.shape and (found == 2 * array).all()
    assert seen == [("doubling", 0.5)] * 2
    assert worker.log.read_text().count("nor is this") == 2


def test_the_environment_is_added_to_and_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "1")
    monkeypatch.setenv("KEPT", "1")
    changes = {"TAKEN": None, "ADDED": "2"}
    with Worker("answering:Answering", "the worker", folders=[str(HERE)], environment=changes) as worker:
        found = worker.ask("variables", names=["TAKEN", "KEPT", "ADDED"])
    assert found == {"TAKEN": None, "KEPT": "1", "ADDED": "2"}


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("kernel", KernelResourceError, "it spills"),
        ("tool", ToolFailed, "refused\n    node a\n    node b"),
        ("other", ToolFailed, "ValueError: first line\n    second line"),
    ],
)
def test_errors_over_there_are_errors_here_and_the_worker_goes_on(
    worker: Worker, how: str, kind: type[ExportError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        worker.ask("fail", how=how)
    assert type(caught.value) is kind and str(caught.value) == says
    assert worker.ask("variables", names=["NOT_SET"]) == {"NOT_SET": None}


def test_an_error_without_words_shows_where_it_was(worker: Worker) -> None:
    with pytest.raises(ToolFailed, match=r"ValueError: no message(.|\n)*in fail") as caught:
        worker.ask("fail", how="wordless")
    assert caught.value.brief == "ValueError: no message"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exit", "left with exit status 7 and no answer"),
        ("SIGABRT", "aborted (SIGABRT)"),
        ("SIGSEGV", "crashed (SIGSEGV)"),
        ("SIGKILL", "was killed (SIGKILL; often the machine ran out of memory)"),
        ("SIGUSR1", "was ended by SIGUSR1"),
    ],
)
def test_a_death_is_told_in_words_again_and_again(worker: Worker, how: str, says: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        worker.ask("die", how=how)
    error = caught.value
    assert error.reason == f"the worker {says}" and error.phase == "dying" and not error.timed_out
    assert str(error) == f"{error.reason}\n    last words" and error.brief == f"{error.reason} (last words)"
    with pytest.raises(ToolFailed, match="the worker"):
        worker.ask("variables", names=[])


def gone(pids: Path, within: float = 10) -> bool:
    """Whether the processes named in the file end."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        alive = [pid for pid in map(int, pids.read_text().split()) if psutil.pid_exists(pid)]
        if not [pid for pid in alive if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]:
            return True
        time.sleep(0.05)
    return False


def cancel(phase: str, part: float | None = None) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stop", "error"),
    [({"timeout_s": 1.5}, ToolFailed), ({"progress": cancel}, KeyboardInterrupt)],
    ids=["in time", "by the user"],
)
def test_what_is_stopped_leaves_no_process(
    worker: Worker, stop: dict[str, float | Callable[..., None]], error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(error, match=r"ran out of time and was stopped|^$") as caught:
        worker.ask("sleep", child=str(tmp_path / "child"), **stop)
    assert getattr(caught.value, "timed_out", True)
    assert gone(tmp_path / "child")


def test_a_keeper_that_is_killed_takes_its_worker_along(tmp_path: Path) -> None:
    pids = tmp_path / "child"
    keeper = subprocess.Popen([sys.executable, str(HERE / "answering.py"), str(pids)])
    end = time.monotonic() + 30
    while not (pids.exists() and pids.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    keeper.kill()
    keeper.wait()
    assert len(pids.read_text().split()) == 2 and gone(pids)
