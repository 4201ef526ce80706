"""From a request as it came to what the engine is asked: prompts, defaults and limits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from mythos_runtime.engine import Budget, Request
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.server.schemas import ChatRequest, CompletionRequest, Generation, Message
from mythos_runtime.server.settings import Settings
from mythos_runtime.server.words import Words
from mythos_runtime.spec import LoopSpec

COMPLETION_TOKENS = 16  # of a completion that does not say how many: the protocol's default
_SEEDS = 1 << 64


@dataclass(frozen=True)
class Asked:
    """The requests of all choices, in their order, and how many alternatives of each token are wanted."""

    requests: list[Request]
    prompts: list[list[int]]
    logprobs: int | None


class Asker:
    """Makes requests for one model."""

    def __init__(self, spec: LoopSpec, words: Words, settings: Settings) -> None:
        self.spec, self.words, self.settings = spec, words, settings

    def completion(self, body: CompletionRequest) -> Asked:
        """Every prompt's choices (RequestError, CapacityError)."""
        if isinstance(body.prompt, str):
            prompts = [self.words.encode(body.prompt)]
        else:
            several = body.prompt if isinstance(body.prompt[0], (str, list)) else [body.prompt]
            prompts = [self.words.encode(each) if isinstance(each, str) else list(each) for each in several]  # type: ignore[arg-type]
        return self._asked(body, prompts, body.max_tokens, COMPLETION_TOKENS, body.logprobs)

    def chat(self, body: ChatRequest) -> Asked:
        """The choices of a conversation's next turn (RequestError, CapacityError)."""
        if body.top_logprobs is not None and not body.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true")
        prompt = self.conversation(body.messages)
        most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        return self._asked(body, [prompt], most, None, (body.top_logprobs or 0) if body.logprobs else None)

    def conversation(self, messages: list[Message]) -> list[int]:
        """The ids of a conversation. A developer's message is the system's by another name."""
        roles = {"developer": "system"}
        return self.words.encode_chat(
            [{"role": roles.get(each.role, each.role), "content": each.text} for each in messages]
        )

    def _asked(
        self, body: Generation, prompts: list[list[int]], most: int | None, usual: int | None, logprobs: int | None
    ) -> Asked:
        settings, choices = self.settings, body.n or 1
        if len(prompts) * choices > settings.most_running + settings.most_queued:
            raise RequestError(f"{len(prompts) * choices} choices are more than this server takes at a time")
        if body.stops and self.words.tokenizer is None:
            raise RequestError("stop is text, and this bundle has no tokenizer")
        sampling = self._sampling(body)
        loops = settings.max_loops if body.max_loops is None else body.max_loops
        if loops is None:
            loops = min(self.spec.trained_loops, settings.most_loops)
        if loops > settings.most_loops:
            raise RequestError(
                f"max_loops is {loops}, but this server runs at most {settings.most_loops} (--most-loops)"
            )
        asked = settings.halt_threshold if body.halt_threshold is None else body.halt_threshold
        threshold = None if asked is None else halt_threshold(self.spec, asked)
        budget = Budget(
            settings.loops_per_token if body.loops_per_token is None else body.loops_per_token,
            settings.latency_ms if body.latency_ms is None else body.latency_ms,
        )
        requests = [
            Request(
                prompt,
                self._count(prompt, most, usual),
                max_loops=loops,
                halt_threshold=threshold,
                policy=body.policy or settings.policy,
                sampling=sampling,
                eos=frozenset() if body.ignore_eos else frozenset(self.words.entry.eos),
                row=row,
                budget=budget,
            )
            for prompt in prompts
            for row in range(choices)
        ]
        return Asked(requests, prompts, logprobs)

    def _sampling(self, body: Generation) -> SamplingOptions:
        """What the request says, else the bundle, else the protocol, which draws with a seed that nobody knows."""
        usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
        usual |= {name: value for name, value in self.words.entry.defaults.items() if name in usual}
        given = {name: getattr(body, name) for name in usual}
        chosen = usual | {name: value for name, value in given.items() if value is not None}
        seed = secrets.randbelow(_SEEDS) if body.seed is None else body.seed % _SEEDS
        return SamplingOptions(**{**chosen, "top_k": int(chosen["top_k"])}, seed=seed)

    def _count(self, prompt: list[int], most: int | None, usual: int | None) -> int:
        """How many new tokens: as asked, or as many of the usual number as fit."""
        spec, settings = self.spec, self.settings
        if not prompt:
            raise RequestError("the prompt is empty; it should hold at least one token")
        longest = min(settings.most_prompt or spec.max_seq_len, spec.max_seq_len)
        if len(prompt) > longest:
            raise CapacityError(f"the prompt has {len(prompt)} tokens, and this server takes up to {longest}")
        room = spec.max_seq_len - len(prompt) + 1  # the last token chosen is never fed back
        allowed = min(settings.most_tokens or spec.max_output_tokens, spec.max_output_tokens)
        if most is None:
            return min(int(self.words.entry.defaults.get("max_new_tokens", usual or allowed)), allowed, room)
        if most > allowed:
            raise RequestError(f"max_tokens is {most}, but at most {allowed} are given here")
        if most > room:
            raise CapacityError(
                f"{len(prompt)} prompt tokens and {most} new ones exceed the {spec.max_seq_len} that this model takes; "
                f"at most {room} new ones fit"
            )
        return most
