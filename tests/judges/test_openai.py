from __future__ import annotations

import asyncio
import dataclasses
import gzip
import logging
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from chat_server import HANG, KEY, RESET, USAGE, Response, completion, drip, flood, refusal
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ivcp.core.errors import UserError
from ivcp.judges.guarded_client import MAX_BYTES
from ivcp.judges.openai import GIVE_UP, OpenAIJudge

CONF = Path(__file__).parents[2] / "conf" / "judge"


def troubled(*troubles):
    """The first calls meet these, later ones are answered."""
    return lambda number, prompt: troubles[number] if number < len(troubles) else None


def test_replies_come_in_the_order_of_the_prompts(chat, judge) -> None:
    one = judge(workers=4, max_tokens=7, temperature=0, price_in=2.0, price_out=10.0)
    prompts = [f"q{number} é" for number in range(12)]
    assert one.complete(prompts) == [f"{prompt}!" for prompt in prompts]
    assert sorted(chat.prompts()) == sorted(prompts)
    assert chat.requests[0]["path"] == "/v1/chat/completions"
    settings = {name: chat.requests[0][name] for name in ("model", "temperature", "max_tokens")}
    assert settings == {"model": "grader", "temperature": 0.0, "max_tokens": 7}
    assert {headers["Authorization"] for headers in chat.headers} == {f"Bearer {KEY}"}
    assert one.account() == {
        "model": "grader",
        "base_url": chat.url,
        "sent": 12,
        "from_cache": 0,
        "failed": 0,
        "retries": 0,
        "prompt_tokens": 120,
        "completion_tokens": 24,
        "cost": pytest.approx(120 * 2e-6 + 24 * 10e-6),
        "last_error": None,
    }


def test_values_that_are_none_are_not_sent(chat, judge) -> None:
    judge(temperature=None, max_tokens=None).complete(["q"])
    assert set(chat.requests[0]) == {"model", "messages", "path"}


NESTED = b"[" * 200_000
PASSING = {
    "500": refusal(500, "oops"),
    "503 in words": Response(503, b"<html>busy</html>"),
    "408": refusal(408, "slow"),
    "409": refusal(409, "conflict"),
    "429": refusal(429, "wait"),
    "reset": RESET,
    "cut JSON": Response(body=b'{"choices": [{"mess'),
    "cut transfer": Response(body=b'{"choices": []', length=900),
    "no choices": Response(body=b'{"choices": []}'),
    "other shape": Response(body=b"[1, 2]"),
    "error in a reply": Response(body=b'{"error": {"message": "overloaded"}}'),
    "no text": completion(None),
    "list of texts": completion([{"type": "text", "text": "1.0"}]),
    "nested deeply": Response(body=NESTED),
    "nested error": Response(500, b'{"error":' * 100_000),
    "huge number": Response(body=b'{"choices": [{"index": %b}]}' % (b"9" * 5000)),
    "no UTF-8": Response(body=b"\xff\xfe{"),
    "negative length": Response(body=b"{}", length=-5),
    "nothing": Response(204),
    "compressed": Response(
        body=gzip.compress(completion("q!").body), headers={"Content-Encoding": "gzip"}
    ),
    "flood": Response(body=flood),
    "flood of an error": Response(500, flood),
    "drip": Response(body=drip),
    "silence": HANG,
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(chat, judge, trouble) -> None:
    chat.script = troubled(trouble, trouble)
    one, started = judge(timeout=1), time.monotonic()
    assert one.complete(["q"]) == ["q!"]
    account = one.account()
    assert (account["sent"], account["retries"], account["failed"]) == (1, 2, 0)
    assert time.monotonic() - started < 8
    assert chat.flooded < 100 * MAX_BYTES  # what fits into buffers on the way


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (HANG, "timed out, no complete response within 0.2 seconds"),
        (Response(body=drip), "timed out, no complete response within 0.2 seconds"),
        (Response(body=flood), "a response of more than 1,048,576 bytes"),
        (Response(body=NESTED), "no completion in [[["),
        (refusal(503, "busy"), "status 503: busy"),
        (Response(503, b"<p>busy</p>"), "status 503: <p>busy</p>"),
        (Response(503), "status 503: an empty response"),
        (completion(None), "no completion in {"),
    ],
)
def test_the_last_error_says_what_happened(chat, judge, trouble, message) -> None:
    chat.script = lambda number, prompt: trouble
    one = judge(timeout=0.2, retries=0)
    assert one.complete(["q"]) == [None]
    assert message in one.account()["last_error"]
    assert one.account()["failed"] == 1


def test_one_prompt_that_hangs_holds_up_no_other(chat, judge) -> None:
    chat.script = lambda number, prompt: Response(body=drip) if prompt == "0" else None
    one, started = judge(timeout=1, retries=0, workers=2), time.monotonic()
    prompts = [str(number) for number in range(20)]
    assert one.complete(prompts) == [None, *(f"{prompt}!" for prompt in prompts[1:])]
    assert time.monotonic() - started < 3


def test_the_longest_response_that_is_read(chat, judge) -> None:
    room = MAX_BYTES - len(completion("").body)
    replies = {"long": "x" * room, "longer": "x" * (room + 1)}
    chat.script = lambda number, prompt: completion(replies[prompt])
    assert judge(retries=0).complete(["long", "longer"]) == ["x" * room, None]


def test_the_server_says_when(chat, judge) -> None:
    later = [refusal(429, "wait", Retry_After="0.3"), refusal(429, "wait", Retry_After_ms="300")]
    chat.script = troubled(*later)
    started = time.monotonic()
    assert judge().complete(["q"]) == ["q!"]
    assert 0.6 <= time.monotonic() - started < 3
    chat.script = lambda number, prompt: refusal(429, "wait", Retry_After="9" * 400)
    assert judge().complete(["r"]) == [None]  # nobody waits for that
    assert time.monotonic() - started < 6


def test_a_prompt_that_is_never_answered_is_counted_and_the_others_go_on(chat, judge) -> None:
    chat.script = lambda number, prompt: RESET if prompt == "bad" else None
    one = judge(retries=8)
    assert one.complete(["a", "bad", "b"]) == ["a!", None, "b!"]
    told = one.account()
    assert (told["sent"], told["failed"], told["retries"]) == (3, 1, 8)
    assert judge(retries=0).complete(["bad"]) == [None]


def test_an_endpoint_that_never_replies_is_given_up(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(429, "You exceeded your quota.")
    one = judge(retries=1)
    with pytest.raises(UserError, match=r"8 prompts in a row .*429: You exceeded your quota\)"):
        one.complete([f"q{number}" for number in range(50)])
    assert len(chat.requests) == GIVE_UP * 2


def test_replies_until_the_end_are_used(chat, judge) -> None:
    chat.script = lambda number, prompt: None if prompt == "0" else refusal(429, "Quota used up.")
    one = judge(retries=0, workers=1)
    replies = one.complete([str(number) for number in range(2 * GIVE_UP)])
    assert replies == ["0!", *[None] * (2 * GIVE_UP - 1)]
    assert "Quota used up" in one.account()["last_error"]


def test_failures_between_replies_do_not_end_it(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(500, "no") if int(prompt) % GIVE_UP else None
    replies = judge(retries=0).complete([str(number) for number in range(3 * GIVE_UP)])
    assert [reply for reply in replies if reply] == ["0!", "8!", "16!"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301, 307, 418])
def test_a_refusal_ends_it_at_once(chat, judge, status) -> None:
    echo = f"Bad key '{KEY}' or 'K3y-****42' for grader."
    chat.script = lambda number, prompt: refusal(status, echo, Location=f"{chat.url}/else")
    with pytest.raises(UserError) as caught:
        judge(workers=3).complete([f"q{number}" for number in range(30)])
    sentence = str(caught.value)
    assert f"judge grader at {chat.url} refuses (status {status}: Bad key" in sentence
    assert "HOUSE_KEY" in sentence
    assert KEY not in sentence
    assert "K3y" not in sentence
    assert len(chat.requests) <= 3
    assert len(chat.headers) == len(chat.requests)  # a redirect was not followed


def test_nobody_waits_on_after_a_refusal(chat, judge) -> None:
    waits, started = threading.Event(), time.monotonic()

    def script(number, prompt):
        if prompt == "wait":
            waits.set()
            return refusal(503, "busy", Retry_After="30")
        waits.wait(5)
        return refusal(401, "no")

    chat.script = script
    with pytest.raises(UserError, match="401"):
        judge(workers=2).complete(["wait", "refused"])
    assert time.monotonic() - started < 10


@pytest.fixture
def listening_to_ctrl_c():
    """The handler that Python starts with; a worker of pytest-xdist ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("trouble", [refusal(503, "busy", Retry_After="30"), Response(body=drip)])
def test_an_interruption_ends_it_at_once_and_keeps_what_came(
    chat, judge, trouble, listening_to_ctrl_c
) -> None:
    def script(number, prompt):
        if prompt == "wait":
            main = threading.main_thread().ident
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
            return trouble
        return None

    chat.script = script
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        judge().complete(["a", "wait", "b"])
    assert time.monotonic() - started < 10
    assert chat.prompts() == ["a", "wait"]
    chat.script = lambda number, prompt: None
    again = judge()
    assert again.complete(["a", "b"]) == ["a!", "b!"]
    assert again.account()["from_cache"] == 1


def test_a_notebook_with_an_event_loop_may_call_it(judge) -> None:
    async def cell():
        return judge().complete(["a"])

    assert asyncio.run(cell()) == ["a!"]


def test_a_refused_prompt_fails_alone_where_others_were_answered(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(400, "too long") if prompt == "long" else None
    assert judge().complete(["a", "long", "b"]) == ["a!", None, "b!"]
    again = judge()
    assert again.complete(["long", "a"]) == [None, "a!"]
    assert again.account()["failed"] == 1
    assert again.account()["retries"] == 0


def test_workers_at_a_time(chat, judge) -> None:
    together = threading.Barrier(3, timeout=2)
    chat.script = lambda number, prompt: together.wait() and None
    one = judge(workers=3)
    assert None not in one.complete([f"q{number}" for number in range(9)])
    assert chat.most == 3


def test_requests_per_minute_hold_for_tries_and_workers_too(chat, judge) -> None:
    chat.script = troubled(completion(None))
    one, started = judge(requests_per_minute=300, workers=4, timeout=0.6), time.monotonic()
    one.complete(["a", "b", "c"])
    one.complete(["d", "e", "f", "g"])  # the last waits for longer than a try may take
    assert len(chat.requests) == 8
    assert 1.4 <= time.monotonic() - started < 6
    assert one.account()["failed"] == 0


def test_nothing_is_sent_twice(chat, judge) -> None:
    assert judge().complete(["a", "b", "a"]) == ["a!", "b!", "a!"]
    assert len(chat.requests) == 2
    again = judge(price_in=1, price_out=1)
    assert again.complete(["b", "a", "c", "b"]) == ["b!", "a!", "c!", "b!"]
    assert len(chat.requests) == 3
    told = again.account()
    assert (told["sent"], told["from_cache"], told["cost"]) == (1, 2, pytest.approx(12e-6))


@pytest.mark.parametrize("change", [{"model": "b"}, {"temperature": 1.0}, {"max_tokens": 9}])
def test_other_settings_share_no_replies(chat, judge, change) -> None:
    judge().complete(["a"])
    judge(**change).complete(["a"])
    assert len(chat.requests) == 2


def test_without_a_cache_nothing_is_kept(chat, judge, tmp_path) -> None:
    one = judge(cache=None)
    assert one.complete(["a", "a"]) == ["a!", "a!"]
    one.complete(["a"])
    assert len(chat.requests) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [3],
        {"prompt_tokens": "3"},
        {"prompt_tokens": 3},
        {"prompt_tokens": 10**400, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": float("nan")},
    ],
)
def test_a_reply_counts_whatever_its_usage_looks_like(chat, judge, usage) -> None:
    chat.script = troubled(completion("yes", usage))
    one = judge(price_in=1.0, price_out=1.0)
    assert one.complete(["a"]) == ["yes"]
    assert one.account()["cost"] is None


def test_a_reply_counts_whatever_type_it_is_said_to_have(chat, judge) -> None:
    body = completion("yes").body
    chat.script = lambda number, prompt: Response(body=body, headers={"Content-Type": "text/html"})
    assert judge(retries=0).complete(["a"]) == ["yes"]


def test_no_price_or_no_counts_is_no_cost(chat, judge) -> None:
    assert judge().account()["cost"] is None
    priced = judge(price_in=1.0, price_out=1.0)
    assert priced.account()["cost"] == 0
    chat.script = troubled(completion("yes"))
    priced.complete(["a", "b"])
    assert priced.account()["cost"] is None
    assert priced.account()["prompt_tokens"] == USAGE["prompt_tokens"]


def test_half_a_surrogate_pair_is_replaced(chat, judge) -> None:
    chat.script = lambda number, prompt: completion("ok \ud83d")
    assert judge().complete(["a \ud83d"]) == ["ok ?"]
    assert chat.prompts() == ["a ?"]
    assert judge().complete(["a \ud83d"]) == ["ok ?"]
    assert len(chat.requests) == 1


ECHOES = {
    "status": lambda key: refusal(500, f"Bearer {key}"),
    "plain text": lambda key: Response(500, f"<b>{key}".encode()),
    "no completion": lambda key: Response(body=f"['{key}".encode()),
    "escaped": lambda key: Response(500, b'{"error": "%s"}' % key.replace("K", "\\u004b").encode()),
    "cut": lambda key: refusal(500, "x" * 290 + " " + key),
    "reason": lambda key: f"HTTP/1.1 200 {key}\r\n\r\n".encode(),
    "status line": lambda key: f"{key}\r\n\r\n".encode(),
    "header name": lambda key: f"HTTP/1.1 200 OK\r\n{key} {key}\r\n\r\n".encode(),
    "header": lambda key: Response(200, headers={"Content-Length": f"{key}"}),
    "location": lambda key: Response(302, headers={"Location": f"http://{key}/"}),
    "reply": lambda key: completion(f"0.5 {key}"),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_the_key_is_written_nowhere(chat, judge, tmp_path, capfd, caplog, echo) -> None:
    caplog.set_level(logging.DEBUG)
    chat.script = lambda number, prompt: echo(KEY) if prompt == "q1" else None
    one, texts = judge(retries=1, workers=3), []
    try:
        texts += one.complete([f"q{number}" for number in range(8)])
    except UserError as error:
        texts.append(f"{error} {error!r} {error.__cause__!r}")
    files = [path.read_bytes().decode("latin") for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    texts += [*files, str(one), repr(one.account()), repr(vars(one)), *capfd.readouterr()]
    texts.append(caplog.text)
    assert not any(KEY in str(text) or KEY[:12] in str(text) for text in texts)


def test_a_short_key_is_no_secret_to_mask_in_replies(chat, judge, monkeypatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", "1")
    chat.script = lambda number, prompt: completion("0.1")
    assert judge().complete(["a"]) == ["0.1"]


def test_a_server_cannot_paint_on_the_terminal(chat, judge, capfd) -> None:
    evil = "\x1b[2J\x1b]0;title\x07 \u202e \x9b31m no [/INST] \r\n" + "long " * 1000
    chat.script = lambda number, prompt: refusal(401, evil)
    with pytest.raises(UserError) as caught:
        judge().complete([f"q{number}" for number in range(8)])
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert "no [/INST] long" in sentence
    assert len(sentence) < 600
    out, err = capfd.readouterr()
    assert "title" not in out + err


def test_no_request_is_logged(judge, caplog) -> None:
    caplog.set_level(logging.INFO)
    judge().complete(["a"])
    assert not caplog.records


def test_only_what_a_call_needs_is_sent(chat, judge, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-house")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-another-house")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-house")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-another-house")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://another.house/v1")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another-house\nX-Key: another-house"
    )
    monkeypatch.setenv("HTTP_PROXY", "http://another.house:1")
    monkeypatch.setenv("ALL_PROXY", "socks5://another.house:1")
    judge().complete(["a"])
    judge(key_variable=None).complete(["b"])
    assert [headers.get("Authorization") for headers in chat.headers] == [f"Bearer {KEY}", None]
    assert "another" not in str(chat.headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "ftp://proxy:1"),
        ("HTTPS_PROXY", "http://user:pa ss@[proxy:x"),
        ("ALL_PROXY", "socks5://proxy:1"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ],
)
def test_what_the_environment_names_and_cannot_be_used_is_a_sentence(
    judge, monkeypatch, name, value
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=name) as caught:
        judge(base_url="https://localhost.example.org/v1", retries=0).complete(["a"])
    assert "pa ss" not in str(caught.value)


def test_the_proxies_of_the_environment_are_used_for_other_machines(chat, judge, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", chat.url.removesuffix("/v1"))
    one = judge(base_url="http://judge.example.org/v1", key_over_http=True)
    assert one.complete(["a"]) == ["a!"]
    assert chat.requests[0]["path"] == "http://judge.example.org/v1/chat/completions"


def test_progress_goes_to_stderr_for_more_than_a_few(judge, capsys) -> None:
    judge().complete(["a", "b"])
    assert capsys.readouterr() == ("", "")
    judge().complete([f"q{number}" for number in range(8)])
    out, err = capsys.readouterr()
    assert not out
    assert "judging" in err
    assert "100%" in err


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_no_key(monkeypatch, key) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("SOME_KEY", key)
    one = OpenAIJudge(key_variable="SOME_KEY")
    assert one.missing().startswith("No key in SOME_KEY: ")
    with pytest.raises(UserError, match="No key in SOME_KEY"):
        one.complete(["a"])
    for here in ("http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        assert OpenAIJudge(key_variable="SOME_KEY", base_url=here).missing() is None
    assert OpenAIJudge(key_variable=None, base_url="http://10.0.0.7/v1").missing() is None
    elsewhere = OpenAIJudge(key_variable="SOME_KEY", base_url="http://localhost.example.org/v1")
    assert elsewhere.missing()


def test_no_key_goes_to_another_machine_by_http_without_consent(chat, judge, monkeypatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", chat.url.removesuffix("/v1"))
    for address in ("http://10.0.0.7/v1", "http://localhost.example.org/v1", "http://[::2]/v1"):
        with pytest.raises(UserError, match=r"unencrypted.*judge\.key_over_http=true"):
            judge(base_url=address).complete(["a"])
        assert judge(base_url=address, key_variable=None).missing() is None
        assert judge(base_url=address, key_over_http=True).missing() is None
        assert judge(base_url=address.replace("http:", "https:")).missing() is None
    assert not chat.requests
    assert judge(base_url="http://10.0.0.7/v1", key_variable=None).complete(["b"]) == ["b!"]
    assert "Authorization" not in chat.headers[0]


def test_any_key_will_do_but_one_that_cannot_be_sent(monkeypatch, chat, judge) -> None:
    for key in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("HOUSE_KEY", key)
        assert "HOUSE_KEY" in judge().missing()
        assert key not in judge().missing()
    monkeypatch.setenv("HOUSE_KEY", "0abc\n")
    assert judge().complete(["a"]) == ["a!"]
    assert chat.headers[0]["Authorization"] == "Bearer 0abc"
    monkeypatch.delenv("HOUSE_KEY")
    judge().complete(["b"])
    assert "Authorization" not in chat.headers[1]


WRONG = {
    "base_url": ["api.openai.com/v1", "ftp://a/v1", "https://me:pass@a/v1", "https://a/v1?k=1",
                 "https://", "http://[::1/v1", "http://a:port/v1", "http://a b/v1", "http://a..b/v1",
                 "HTTP://a/v1", f"http://{'a' * 64}.org/v1"],
    "key_variable": ["sk-abc", "", "A KEY"],
    "retries": [-1, "x", 1.5],
    "workers": [0, True],
    "requests_per_minute": [0],
    "max_tokens": [0],
    "timeout": [0, "long"],
    "model": [None, 3],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_values_that_cannot_be_used(name, value) -> None:
    with pytest.raises(UserError, match=rf"judge\.{name} must be") as caught:
        OpenAIJudge(**{name: value})
    assert "pass" not in str(caught.value).replace("password", "")
    assert "sk-" not in str(caught.value)


def test_the_yaml_states_every_field_and_its_default() -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONF / "openai.yaml"))
    fields = {field.name: field.default for field in dataclasses.fields(OpenAIJudge)}
    assert config == {"_target_": "ivcp.judges.openai.OpenAIJudge", **fields}
    assert instantiate(config) == OpenAIJudge()
    assert not instantiate(OmegaConf.load(CONF / "none.yaml"))
