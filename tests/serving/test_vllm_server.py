"""The OpenAI server: methods and ratios by request, many at once, and mistakes as HTTP 400."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("vllm")

from openai import APIConnectionError, BadRequestError, OpenAI
from transformers import AutoConfig

from ivcp.core.types import Sample
from ivcp.integrations.vllm.plugin import hf_overrides
from serving.served import METHODS, TINY, TOKENS, reference, scenes

DEFAULT = {"pruner": "divprune", "keep_ratio": 0.5}
SCENES = scenes(3)
DEADLINE = 240  # seconds for the start
OPTIONS = (
    "--dtype float32 --enforce-eager --max-model-len 512 --max-num-seqs 8 "
    "--max-num-batched-tokens 512 --skip-mm-profiling --trust-request-mm-kwargs "
    "--served-model-name tiny --host 127.0.0.1"
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of a server that runs in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    overrides = json.dumps(hf_overrides(AutoConfig.from_pretrained(TINY), DEFAULT))
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(TINY),
        "--hf-overrides", overrides, "--port", str(port), *OPTIONS.split(),
    ]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=dict(os.environ))
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    try:
        wait(client, server, log)
        yield client
    finally:
        server.terminate()
        server.wait(60)


def wait(client: OpenAI, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers."""
    stop = time.monotonic() + DEADLINE
    while time.monotonic() < stop and server.poll() is None:
        try:
            client.models.list()
        except APIConnectionError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(log.read_text()[-5000:])


def answer(client: OpenAI, sample: Sample, settings: dict[str, Any] | None) -> str:
    """The server's answer to one question."""
    file = BytesIO()
    sample.images[0].save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    question = reference().family.question_text(sample)  # type: ignore[attr-defined]
    reply = client.chat.completions.create(
        model="tiny",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        temperature=0,
        max_tokens=TOKENS,
        extra_body={} if settings is None else {"mm_processor_kwargs": {"ivcp": settings}},
    )
    return str(reply.choices[0].message.content)


def wanted(sample: Sample, settings: dict[str, Any]) -> str:
    ((tokens, _),) = reference().answers([sample], settings)
    tokenizer = reference().processor.tokenizer
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def test_eight_requests_at_once(client: OpenAI) -> None:
    """All methods on the same images, in an order that mixes them."""
    cases = [(scene, settings) for settings in METHODS for scene in SCENES]
    Random(0).shuffle(cases)
    expected = [wanted(scene, settings or DEFAULT) for scene, settings in cases]
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda case: answer(client, *case), cases))
    assert given == expected


def test_the_server_s_own_setting(client: OpenAI) -> None:
    for scene in SCENES:
        assert answer(client, scene, None) == wanted(scene, DEFAULT)
        assert answer(client, scene, {"pruner": "none"}) == wanted(scene, {})


def test_a_mistake_is_answered_with_its_sentence(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="did you mean divprune"):
        answer(client, SCENES[0], {"pruner": "divprun"})
    with pytest.raises(BadRequestError, match="keep_ratio must be a number in"):
        answer(client, SCENES[0], {"keep_ratio": 2})
    assert answer(client, SCENES[0], None) == wanted(SCENES[0], DEFAULT)
