"""The OpenAI protocol, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from served_bundles import NAME, Serving, all_free, serving

from mythos_runtime import load
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.knobs import halt_threshold

PROMPT = "why? "
DRAWN: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 24, "temperature": 1.0, "seed": 7}


def test_the_model_says_what_it_can(server: Serving) -> None:
    (card,) = server.openai().models.list().data
    spec = server.app.state.served.spec
    extra = card.model_extra or {}
    assert card.id == NAME and server.openai().models.retrieve(NAME).id == NAME
    assert (extra["trained_loops"], extra["max_model_len"], extra["chat"]) == (10, spec.max_seq_len, True)
    assert extra["state"] == "verified"
    served = server.app.state.served
    endless = replace(served, settings=replace(served.settings, halt_threshold=-math.inf))
    told = endless.card(0).model_dump(mode="json")["halt_threshold"]
    assert told is not None and halt_threshold(spec, told) == halt_threshold(spec, -math.inf)


def test_a_completion_is_the_engine_s(server: Serving, small: Path) -> None:
    client = server.openai()
    ask = {"model": NAME, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    answer = client.completions.create(**ask, extra_body={"return_depth": True, "return_token_ids": True})
    choice = answer.choices[0]
    extra, usage = choice.model_extra or {}, answer.usage
    engine = open_engine(small, EngineOptions(memory=16 << 20))
    running = engine.submit(Request(list(PROMPT.encode()), 12))
    while engine.busy:
        engine.tick()
    assert extra["token_ids"] == running.tokens and extra["depth"] == running.depth
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT), 12)
    counted = usage.model_extra or {}
    assert counted["loops"] == sum(running.depth) and counted["mean_depth"] == pytest.approx(np.mean(running.depth))
    assert choice.finish_reason == "length" and "depth" not in (
        client.completions.create(**ask).choices[0].model_extra or {}
    )


def test_streams_together_are_the_answers_alone(server: Serving) -> None:
    asks = [DRAWN | {"prompt": f"{PROMPT}{n}", "seed": n} for n in range(12)]
    alone = [server.openai().completions.create(**ask).choices[0].text for ask in asks]

    async def together() -> list[str]:
        client = server.async_openai()

        async def streamed(ask: dict[str, Any]) -> str:
            stream = await client.completions.create(**ask, stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

        return await asyncio.gather(*map(streamed, asks))

    assert asyncio.run(together()) == alone and len(set(alone)) > 6
    assert all_free(server.loop)


def test_chat_renders_the_template_and_streams(server: Serving) -> None:
    client = server.openai()
    messages: Any = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "wh"}, {"type": "text", "text": "y?"}]},
    ]
    ask: dict[str, Any] = {"model": NAME, "max_tokens": 9, "temperature": 1, "seed": 3}
    said = client.chat.completions.create(messages=messages, **ask)
    prompt = "[system] be brief\n[user] why?\n[assistant] "
    assert said.choices[0].message.content == client.completions.create(prompt=prompt, **ask).choices[0].text
    assert said.usage is not None and said.usage.prompt_tokens == len(prompt)
    extra = {"return_depth": True}
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(messages=messages, stream=True, stream_options=options, extra_body=extra, **ask)
    )
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == said.choices[0].message.content
    depths = [depth for c in chunks[1:-1] for depth in (c.choices[0].model_extra or {})["depth"]]
    assert chunks[-1].usage == said.usage and sum(depths) == (said.usage.model_extra or {})["loops"]
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    tokens = server.http().post("/tokenize", json={"messages": messages}).json()
    assert tokens["tokens"] == list(prompt.encode()) and tokens["count"] == len(prompt)


def test_choices_draw_their_own_numbers(server: Serving) -> None:
    client = server.openai()
    answer = client.completions.create(**DRAWN | {"prompt": [list(PROMPT.encode()), [119, 104]]}, n=3)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == list(range(6)) and len(set(texts[:3])) == 3
    assert texts[0] == client.completions.create(**DRAWN).choices[0].text  # and the first one's as if alone
    streamed = [""] * 6
    for chunk in client.completions.create(**DRAWN | {"prompt": [PROMPT, "wh"]}, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == texts
    assert answer.usage is not None and answer.usage.prompt_tokens == len(PROMPT) + 2


def test_a_seed_decides_and_none_is_chance(server: Serving) -> None:
    client = server.openai()
    ask = DRAWN | {"seed": -1}
    assert client.completions.create(**ask).choices[0].text == client.completions.create(**ask).choices[0].text
    ask.pop("seed")
    assert len({client.completions.create(**ask).choices[0].text for _ in range(3)}) > 1


def test_a_stop_text_ends_a_choice_and_is_not_shown(server: Serving) -> None:
    client = server.openai()
    text = client.completions.create(**DRAWN).choices[0].text
    stop = text[6:8]
    expected = text[: text.index(stop)]
    answer = client.completions.create(**DRAWN, stop=["never there", stop])
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (expected, "stop")
    assert answer.usage is not None and answer.usage.completion_tokens < 24
    streamed = list(client.completions.create(**DRAWN, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected
    assert streamed[-1].choices[0].finish_reason == "stop"
    assert all_free(server.loop)  # the engine knows that it ended


def test_logprobs_are_the_model_s(server: Serving, small: Path) -> None:
    client = server.openai()
    ask = DRAWN | {"prompt": PROMPT, "max_tokens": 4}
    answer = client.completions.create(**ask, logprobs=3, extra_body={"return_token_ids": True}).choices[0]
    tokens = (answer.model_extra or {})["token_ids"]
    with load(small) as model:
        logits = model.forward([[*PROMPT.encode(), *tokens[:-1]]]).logits[0, len(PROMPT) - 1 :].astype(np.float64)
    expected = (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )
    table = answer.logprobs
    assert table is not None and table.top_logprobs is not None
    assert table.token_logprobs == pytest.approx(expected[range(4), tokens], abs=1e-4)
    best = [sorted(row, reverse=True)[:3] for row in expected.tolist()]
    assert [list(row.values()) for row in table.top_logprobs] == [pytest.approx(row, abs=1e-4) for row in best]
    messages: Any = [{"role": "user", "content": "why?"}]
    said = client.chat.completions.create(
        model=NAME, messages=messages, max_tokens=2, temperature=0, logprobs=True, top_logprobs=2
    )
    content = said.choices[0].logprobs and said.choices[0].logprobs.content
    assert content and all(row.top_logprobs[0].logprob == row.logprob for row in content)
    assert all(len(row.top_logprobs) == 2 for row in content)


def test_depth_is_bounded_by_request(server: Serving) -> None:
    client = server.openai()
    for extra, most in (({"max_loops": 2}, 2), ({"halt_threshold": -1.0}, 1)):
        answer = client.completions.create(**DRAWN, extra_body=extra | {"return_depth": True})
        assert max((answer.choices[0].model_extra or {})["depth"]) <= most, extra
    texts, rows = [], [server.metrics()["mythos_rows_total"]]
    for policy in ("lazy", "full"):
        answer = client.completions.create(**DRAWN, extra_body={"policy": policy, "halt_threshold": -1.0})
        texts.append(answer.choices[0].text)
        rows.append(server.metrics()["mythos_rows_total"])
    assert texts[0] == texts[1]  # lazy is exact
    assert rows[1] - rows[0] < rows[2] - rows[1]


def test_budgets(server: Serving, small: Path) -> None:
    client = server.openai()
    for extra, most in (({"loops_per_token": 2}, 2.0), ({"latency_ms": 1e-3}, 1.0)):
        answer = client.completions.create(**DRAWN, extra_body=extra)
        assert answer.usage is not None and (answer.usage.model_extra or {})["mean_depth"] <= most, extra
    huge = client.completions.create(**DRAWN, extra_body={"latency_ms": 1e308})
    assert huge.choices[0].text == client.completions.create(**DRAWN).choices[0].text
    with serving(small, loops_per_token=1.5) as frugal:  # as a default of the server
        answer = frugal.openai().completions.create(**DRAWN)
        assert answer.usage is not None and (answer.usage.model_extra or {})["mean_depth"] <= 1.5
        extra = {"loops_per_token": 10}
        generous = frugal.openai().completions.create(**DRAWN, extra_body=extra).choices[0].text
        assert generous == client.completions.create(**DRAWN).choices[0].text


def test_prompts_that_begin_alike_are_computed_once(server: Serving, small: Path) -> None:
    ask = DRAWN | {"prompt": "x" * 70, "max_tokens": 20}
    alone = server.openai().completions.create(**ask).choices[0].text
    with serving(small, prefixes=4) as keeping:
        client = keeping.openai()
        for expected in (0, 69):  # the last one's answer is wanted, so it is computed
            answer = client.completions.create(**ask)
            assert answer.choices[0].text == alone and answer.usage is not None
            details = answer.usage.prompt_tokens_details
            assert details is not None and details.cached_tokens == expected
        figures = keeping.metrics()
        assert (figures["mythos_prefixes"], figures["mythos_reused_tokens_total"]) == (1, 69)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "tools is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "repetition_penalty is there"),
        ({"colour": "red"}, "colour", "Unrecognized request argument supplied: colour"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1, found 0"),
        ({"max_tokens": "5"}, "max_tokens", "valid integer, found '5'"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"stop": ""}, "stop", "stop should be a text of at least one character"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "found 'tool'"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "is not UTF-8: the lone surrogate 0xd800"),
        ({"max_tokens": 500}, None, "exceed the 128 that this model takes"),
        ({"max_loops": 11}, None, "max_loops is 11, but this server runs at most 10 (--most-loops)"),
        ({"halt_threshold": 1e300}, None, "halt_threshold should be a float32 from"),
        ({"top_logprobs": 2}, None, "top_logprobs needs logprobs"),
        ({"model": "\udcff"}, "model", "there is no model"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocol_s_form(
    server: Serving, change: dict[str, Any], param: str | None, words: str
) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "x"}]} | change
    json_type = {"Content-Type": "application/json"}
    answer = server.http().post("/v1/chat/completions", content=json.dumps(body), headers=json_type)
    error = answer.json()["error"]
    assert answer.status_code == (404 if "model" in change else 400), error
    assert error["type"] == "invalid_request_error" and words in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "/v1/completions",
            None,
            "the body should be a JSON object, with the header Content-Type: application/json; f",
        ),
        ("/v1/completions", "null", "the body should be a JSON object; found null"),
        ("/v1/completions", "[1]", "the body should be a JSON object; found [1]"),
        ("/v1/completions", "", "the body should be a JSON object; found nothing"),
        ("/v1/completions", "{", "the body is not valid JSON"),
        ("/v1/completions", '{"model": "x"}', "prompt is missing; it should be a text, a list of ids, or"),
        ("/v1/chat/completions", '{"model": "x"}', "messages is missing"),
        ("/tokenize", "{}", "prompt is missing; give that, a text, or messages"),
        ("/tokenize", '{"prompt": 7}', "prompt: Input should be a valid string, found 7"),
        ("/tokenize", '{"messages": [{"role": "user"}]}', "messages.0.content is missing"),
        (
            "/tokenize",
            '{"messages": [{"role": "user", "content": "x"}], "a": 1}',
            "Unrecognized request argument supplied: a",
        ),
    ],
)
def test_what_a_body_lacks(server: Serving, path: str, body: str | None, words: str) -> None:
    json_type = {} if body is None else {"Content-Type": "application/json"}
    answer = server.http().post(path, content='{"model": "x"}' if body is None else body, headers=json_type)
    assert answer.status_code == 400 and answer.json()["error"]["message"].startswith(words), answer.json()


def test_the_client_raises_what_is_refused(server: Serving) -> None:
    client = server.openai()
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="vocabulary has the ids 0 to 601"):
        client.completions.create(model=NAME, prompt=[602])
    with pytest.raises(openai.BadRequestError, match="the prompt has 129 tokens") as caught:
        client.completions.create(model=NAME, prompt="x" * 129)
    assert caught.value.code == "context_length_exceeded"
    answer = server.http().post("/v1/completions", content=b'{"model": ', headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("depth", [3, 300, 800])
def test_a_prompt_of_lists_in_lists_is_refused(server: Serving, depth: int) -> None:
    body = f'{{"model": "{NAME}", "prompt": {"[" * depth}1{"]" * depth}}}'
    with server.http() as http:
        answer = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "prompt" in answer.json()["error"]["message"]
