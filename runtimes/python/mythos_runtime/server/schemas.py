"""What goes in and out over HTTP: the OpenAI protocol, and this server's additions to it.

Additions of a request: top_k, min_p, repetition_penalty, ignore_eos, max_loops, halt_threshold, loops_per_token,
latency_ms, policy, return_depth, return_token_ids. Of an answer: depth and token_ids of a choice, mean_depth and loops
in usage.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Id = Annotated[int, Field(ge=0, lt=1 << 31)]
Stop = Annotated[str, Field(min_length=1)]
Nothing: Any = Annotated[list[Any], Field(max_length=0)]
Zero: Any = Annotated[float, Field(ge=0, le=0)]

UNSUPPORTED = {
    "echo": "false",
    "suffix": "an empty one",
    "best_of": "1",
    "frequency_penalty": "0 (repetition_penalty is there)",
    "presence_penalty": "0 (repetition_penalty is there)",
    "logit_bias": "an empty one",
    "tools": "an empty list",
    "tool_choice": "none or auto",
    "functions": "an empty list",
    "response_format": '{"type": "text"}',
    "modalities": '["text"]',
}
"""Fields of the protocol that this server knows, and the only value it takes: the one that asks for nothing."""


UNIONS = {
    "prompt": "a text, a list of ids, or up to 128 of one of these",
    "stop": "a text of at least one character, or up to 16 of them",
}
"""What a field that may be several things should be."""


class Strict(BaseModel):
    """Takes no field that it does not know, and no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, values: Any) -> Any:
        """JSON does not tell 2.0 from 2."""
        return {name: _whole(value) for name, value in values.items()} if isinstance(values, dict) else values


def _whole(value: Any, levels: int = 3) -> Any:
    if isinstance(value, list) and levels:  # no field is a list any deeper
        return [_whole(each, levels - 1) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Generation(Strict):
    """What completions and chat have in common."""

    model: str
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 64, description="Modulo 2^64: it may be negative.")
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    user: str | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    top_k: int | None = Field(None, ge=0, lt=1 << 31, description="0: off")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=1e-6, le=1e6)
    ignore_eos: bool | None = None
    max_loops: int | None = Field(None, ge=0, le=256, description="The most loops that a position may take.")
    halt_threshold: float | None = Field(None, description="Where the model's exit rule lets a position halt.")
    loops_per_token: float | None = Field(None, ge=1, description="On average: what easy tokens leave, hard ones use.")
    latency_ms: float | None = Field(None, gt=0, description="Of a new token, by what calls have taken lately.")
    policy: Literal["lazy", "full", "share"] | None = Field(
        None, description="lazy: exact; full: every loop of every position; share: approximate."
    )
    return_depth: bool | None = Field(None, description="Give the loops behind each token.")
    return_token_ids: bool | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CompletionRequest(Generation):
    prompt: (
        str
        | Annotated[list[Id], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=128)]
        | Annotated[list[Annotated[list[Id], Field(min_length=1)]], Field(min_length=1, max_length=128)]
    )
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    logprobs: int | None = Field(None, ge=0, le=5)
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    echo: Literal[False] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Strict):
    type: Literal["text"]


class ChatRequest(Generation):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    response_format: TextFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None


class TokenizeText(Strict):
    model: str | None = None
    prompt: str


class TokenizeChat(Strict):
    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]


# -- answers -----------------------------------------------------------------------------------------------------------


class PromptDetails(BaseModel):
    """cached_tokens: those whose cache entries were there already, from a request that began alike."""

    cached_tokens: int


class Usage(BaseModel):
    """mean_depth: loops behind a new token on average; loops: behind all of them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    mean_depth: float
    loops: int


class Depths(BaseModel):
    """What a choice holds where it was asked for: per new token its loops, and its id."""

    depth: list[int] | None = None
    token_ids: list[int] | None = None


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


Finish = Literal["stop", "length"] | None


class CompletionChoice(Depths):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish


class Answer(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage | None = None


class Completion(Answer):
    """Whole, or a piece of a stream."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]


class Said(BaseModel):
    role: Literal["assistant"]
    content: str


class ChatChoice(Depths):
    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(Depths):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatChunk(Answer):
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


class ModelCard(BaseModel):
    """The model, and what its clients may ask for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    family: str
    max_model_len: int
    max_output_tokens: int
    trained_loops: int
    most_loops: int
    halt_threshold: float | None
    tokenizer: str | None
    chat: bool
    state: str
    """How far the bundle was verified: "verified", "verified on a reduced twin" or "not verified"."""


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class Status(BaseModel):
    status: str


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail
