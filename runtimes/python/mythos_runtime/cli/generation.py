"""What `mythos run` does between its options and its output: prompt, defaults, one sequence, and how deep it went."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from mythos_runtime import Model
from mythos_runtime.chat import encode_chat
from mythos_runtime.cli.terminal import mark
from mythos_runtime.engine.speculation import Speculate
from mythos_runtime.errors import RequestError
from mythos_runtime.generate import STOP
from mythos_runtime.outputs import write_output
from mythos_runtime.stops import StopTexts

BAR = 40  # characters of the histogram's longest bar
NEW_TOKENS = 64  # where neither the command nor the bundle says how many
_PROMPTS = ("bundle", "prompt", "file", "ids", "chat", "system")  # these mean other things to the library
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Run:
    """One generated sequence: its text (None without a tokenizer), new ids, the depth behind each, iterations per step,
    and the engine's seconds.

    `finished` says why it ended: "eos", "stop" or "length"; `operators` what computed the mythos operators.
    """

    text: str | None
    tokens: list[int]
    depth: list[int]
    loops: list[int]
    capped: int
    prefill_seconds: float
    decode_seconds: float
    policy: str
    finished: str
    operators: str

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, over the engine's time for them."""
        return (len(self.tokens) - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0

    def summary(self) -> str:
        """Speed, mean depth and a histogram of depths, for people."""
        mean = sum(self.depth) / len(self.depth)
        first = f"{1e3 * self.prefill_seconds:.1f} ms"
        if len(self.tokens) == 1:
            speed = f"1 token in {first}"  # none after it to have a speed
        else:
            speed = f"{len(self.tokens)} tokens, {self.tokens_per_second:.1f} tokens/s after the first ({first})"
        lines = [f"{speed}, mean depth {mean:.1f} loops, cache policy {self.policy}"]
        if self.capped:
            lines.append(f"{self.capped} of them went no deeper because of the budget")
        counts = Counter(self.depth)
        most = max(counts.values())
        for depth in range(min(counts), max(counts) + 1):
            bar = mark("█", "#") * round(BAR * counts[depth] / most)
            lines.append(f"  {depth:3d} {'loop ' if depth == 1 else 'loops'} {counts[depth]:5d} {bar}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "tokens": self.tokens,
            "depth": self.depth,
            "loops": self.loops,
            "capped": self.capped,
            "tokens_per_second": self.tokens_per_second,
            "prefill_seconds": self.prefill_seconds,
            "policy": self.policy,
            "finished": self.finished,
            "operators": self.operators,
        }


# -- the request -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """How to generate: options of `Model.generate`, texts that end it, and what was not asked for, in words."""

    options: dict[str, Any]
    stops: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def prompt_ids(
    model: Model, prompt: str | None, file: Path | None, ids: str | None, chat: bool = False, system: str | None = None
) -> list[int]:
    """The prompt's ids from one of the options (RequestError where none or several are given, or it is unusable)."""
    options = {"--prompt": prompt, "--file": file, "--ids": ids}
    given = [name for name, value in options.items() if value is not None]
    if not given:
        raise RequestError("give a prompt: one of --prompt TEXT, --file FILE or --ids 1,2,3")
    if len(given) > 1:
        raise RequestError(f"{' and '.join(given)} are prompts, and one is taken: give one of them")
    if system is not None and not chat:
        raise RequestError("--system is a message of a conversation: give --chat too")
    if ids is not None:
        if chat:
            raise RequestError("--chat makes a prompt of text: give --prompt or --file instead of --ids")
        return _known(id_list("--ids", ids), "--ids", model)
    if model.tokenizer is None:
        raise RequestError("this bundle has no tokenizer; give --ids, or export it with --tokenizer")
    text = prompt if file is None and prompt is not None and prompt != "-" else _read(file)
    if not chat:
        tokens = model.tokenizer.encode(text)
        if not tokens:
            raise RequestError(f"the prompt of {given[0]} is empty; it should hold at least one token")
        return tokens
    messages = [] if system is None else [{"role": "system", "content": system}]
    return encode_chat(model, [*messages, {"role": "user", "content": text}])


def _read(file: Path | None) -> str:
    """A prompt from a file or, where there is none, from stdin; whole, its last newline included."""
    stdin = file is None or str(file) == "-"
    what = "the prompt" if stdin else f"the prompt in {file}"
    try:
        data = sys.stdin.buffer.read() if file is None or stdin else file.read_bytes()
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")  # a BOM is no part of a text
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None


def id_list(option: str, text: str) -> list[int]:
    """The ids in an option's text, such as 1,2,3 (RequestError)."""
    parts = [part.strip() for part in text.split(",")]
    if any(re.fullmatch("-[0-9]+", part) for part in parts):
        raise RequestError(f"{option} {text!r} holds a negative number; ids are from 0 on, as in 1,2,3")
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise RequestError(f"{option} {text!r} is not a list of ids; expected one like 1,2,3")
    if any(len(part.lstrip("0")) > 18 for part in parts):  # what no integer type holds
        raise RequestError(f"{option} {text!r} holds a number that no vocabulary has; expected a list like 1,2,3")
    return [int(part) for part in parts]


def _known(ids: list[int], option: str, model: Model) -> list[int]:
    """The ids, all of which are in the vocabulary (RequestError)."""
    last = model.spec.vocab_size - 1
    beyond = [token for token in ids if token > last]
    if beyond:
        raise RequestError(f"{option} {beyond[0]} never comes: this model's vocabulary has the ids 0 to {last}")
    return ids


def plan(model: Model, prompt_tokens: int, options: dict[str, Any]) -> Request:
    """The command's options, completed by the bundle's defaults and by what this model can do.

    What was asked for is passed on as it is, and refused later where it cannot be; only defaults give way.
    """
    entry = model.manifest.tokenizer if model.manifest is not None else None
    defaults = dict(entry.defaults) if entry is not None else {}
    given = {name: value for name, value in options.items() if value is not None}
    notes = [model.manifest.doubt] if model.manifest is not None and model.manifest.doubt is not None else []
    if model.session.operators == "portable":
        notes.append("no library of native operators is loaded: the portable ones serve, which are slower")
    taken = {name: defaults[name] for name in _SAMPLING if name in defaults and name not in given}
    if taken:
        source = entry.sources.get("defaults", "the bundle") if entry is not None else ""
        words = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in taken.items())
        notes.append(f"defaults of the bundle ({source}): {words}")
    if "max_new_tokens" not in given:
        room = model.spec.max_seq_len - prompt_tokens + 1  # none: the prompt itself is refused
        most = min(model.spec.max_output_tokens, max(room, 1))
        taken["max_new_tokens"] = min(int(defaults.get("max_new_tokens", NEW_TOKENS)), most)
    ignore, eos, stops = given.pop("ignore_eos"), given.pop("eos"), given.pop("stop")
    if ignore and eos:
        raise RequestError("--ignore-eos goes on after every EOS, so --eos says nothing: give one of them")
    _known(list(eos), "--eos", model)
    if stops and model.tokenizer is None:
        raise RequestError("--stop is text, and this bundle has no tokenizer; give --stop-ids 4,5")
    bundled = entry.eos if entry is not None and not ignore else ()
    sequences = [_known(id_list("--stop-ids", text), "--stop-ids", model) for text in given.pop("stop_ids")]
    if isinstance(given.get("speculate"), int):
        check_drafts(given["speculate"], given.get("max_loops", model.spec.trained_loops))
    given.setdefault("policy", "lazy" if model.runs_rows else "full")
    return Request({**taken, **given, "eos": eos or bundled, "stop": sequences}, stops, notes)


@contextlib.contextmanager
def named_options(command: click.Command) -> Iterator[None]:
    """Errors of the library name its parameters; a person at the command line gave options."""
    options = {str(option.name): option.opts[0] for option in command.params if option.name not in _PROMPTS}
    compound = "|".join(name for name in options if "_" in name)
    simple = "|".join(name for name in options if "_" not in name)
    try:
        yield
    except RequestError as error:
        text = re.sub(rf"(?<![\w-])({compound})(?!\w)|^({simple})(?= )", lambda found: options[found[0]], str(error))
        raise type(error)(text) from error


# -- the generation --------------------------------------------------------------------------------------------------


def stream(model: Model, ids: list[int], request: Request, write: Callable[[str], None]) -> Run:
    """Generate, writing the text as it becomes certain, and return the whole."""
    decoder = model.tokenizer.stream() if model.tokenizer is not None else None
    stop = StopTexts(request.stops)
    shown: list[str] = []
    tokens: list[int] = []
    depth: list[int] = []
    loops: list[int] = []
    capped = 0
    prefill = decode = 0.0
    finished: str | None = None

    def show(text: str) -> None:
        if text:
            shown.append(text)
            write(text)

    for step in model.generate([ids], **request.options):
        if tokens:
            decode += step.seconds
        else:
            prefill = step.seconds
        tokens.append(int(step.tokens[0]))
        depth.append(int(step.depth[0]))
        loops.append(step.loops)
        capped += int(step.capped[0])
        finished = step.finished[0]
        if decoder is None:
            write(f"{tokens[-1]} ")
            continue
        show(stop.feed(decoder.feed(tokens[-1])))
        if stop.found is not None:
            finished = STOP
            break
    if decoder is not None:
        show(stop.feed(decoder.finish()) + stop.finish())
    write("\n")
    assert finished is not None  # a generation ends only where its row has
    text = None if decoder is None else "".join(shown)
    policy, operators = str(request.options["policy"]), model.session.operators
    return Run(text, tokens, depth, loops, capped, prefill, decode, policy, finished, operators)


def speculation(text: str) -> Speculate:
    """The option --speculate (RequestError)."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    if not text.isdecimal() or not int(text):
        raise RequestError(f"--speculate {text!r} is not auto, off, or a number of loops from 1 on")
    return int(text)


def check_drafts(drafts: int, loops: int) -> None:
    """Refuse to draft after so many loops that a token would have run them all: that speeds nothing up."""
    if drafts >= loops > 0:
        most = f"{loops} loop{'s' * (loops > 1)}"
        raise RequestError(f"--speculate {drafts} drafts nothing, as a token runs at most {most}: give fewer, or auto")


def write_trace(path: Path, prompt: int, run: Run) -> None:
    """Depths of a run, which the engine replays (`engine.Request.depths`)."""
    document = {"requests": [{"prompt": prompt, "depth": run.depth}]}
    write_output(path, json.dumps(document) + "\n", "--depth-trace")
