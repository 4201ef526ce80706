"""Asks a Triton server through NVIDIA's clients; run by an environment that has them, prints one line of JSON.

python triton_client.py HTTP_PORT GRPC_PORT MODEL '[{"ids": [1, 2], "settings": {...}}, ...]'
"""

import json
import queue
import sys

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client


def ask(client, answers, model, number, request):
    """The responses to one request, joined; or its error."""
    tensor = (
        ("input_ids", np.array(request["ids"], np.int64), "INT64")
        if "ids" in request
        else ("text", np.frombuffer(request["text"].encode(), np.uint8), "UINT8")
    )
    given = grpc_client.InferInput(tensor[0], list(tensor[1].shape), tensor[2])
    given.set_data_from_numpy(tensor[1])
    client.async_stream_infer(model, [given], request_id=str(number), parameters=request["parameters"])
    whole = {"text": "", "token_ids": [], "depth": [], "finished": 0, "responses": 0}
    while not whole["finished"]:
        result, error = answers.get(timeout=60)
        if error is not None:
            return {"error": str(error)}
        whole["text"] += result.as_numpy("text").tobytes().decode()
        whole["token_ids"] += result.as_numpy("token_ids").tolist()
        whole["depth"] += result.as_numpy("depth").tolist()
        whole["finished"] = int(result.as_numpy("finished")[0])
        whole["responses"] += 1
    return whole


def main():
    http_port, grpc_port, model, requests = sys.argv[1:]
    over_http = http_client.InferenceServerClient(f"127.0.0.1:{http_port}")
    assert over_http.is_server_ready() and over_http.is_model_ready(model)
    answers = queue.Queue()
    with grpc_client.InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        found = [ask(client, answers, model, number, each) for number, each in enumerate(json.loads(requests))]
        client.stop_stream()
    print(json.dumps(found))


main()
