"""The examples of containers: linted, since no container engine runs where they were written; their options exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mythos_runtime.cli.serve import serve

KUBERNETES = Path(__file__).parents[3] / "examples" / "kubernetes"
OPTIONS = {name for parameter in serve.params for name in parameter.opts}


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / "mythos.yaml").read_text()))


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_the_manifest_is_what_the_api_takes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_manifest_s_options_are_the_command_s() -> None:
    (container,) = documents()[0]["spec"]["template"]["spec"]["containers"]
    given = dict(argument.split("=", 1) for argument in container["args"])
    assert set(given) <= OPTIONS
    grace = documents()[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace > wait + int(given["--drain-seconds"])


def test_the_dockerfile() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, KUBERNETES / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    text = (KUBERNETES / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("ENTRYPOINT", "CMD"))]
    started = [json.loads(line.split(" ", 1)[1]) for line in lines]
    given = {word for words in started for word in words if word.startswith("--")}
    assert "--host" in given and given <= OPTIONS
