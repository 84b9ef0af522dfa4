from __future__ import annotations

import dataclasses
import threading
import time as clock
from pathlib import Path

import pytest
from chat_server import HANG, KEY, RESET, USAGE, Told, completion, refusal
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ivcp.core.errors import UserError
from ivcp.judges.openai import GIVE_UP, OpenAIJudge
from ivcp.judges.pace import Pace

CONF = Path(__file__).parents[2] / "conf" / "judge"


def troubled(*troubles):
    """The first calls meet these, later ones are answered."""
    return lambda number, prompt: troubles[number] if number < len(troubles) else None


def test_replies_come_in_the_order_of_the_prompts(chat, judge) -> None:
    one = judge(workers=4, max_tokens=7, temperature=0, price_in=2.0, price_out=10.0)
    prompts = [f"q{number} é" for number in range(12)]
    assert one.ask(prompts) == [f"{prompt}!" for prompt in prompts]
    assert sorted(chat.prompts()) == sorted(prompts)
    assert chat.requests[0]["path"] == "/v1/chat/completions"
    asked = {name: chat.requests[0][name] for name in ("model", "temperature", "max_tokens")}
    assert asked == {"model": "grader", "temperature": 0.0, "max_tokens": 7}
    assert {headers["Authorization"] for headers in chat.headers} == {f"Bearer {KEY}"}
    assert one.account() == {
        "model": "grader",
        "base_url": chat.url,
        "asked": 12,
        "from_cache": 0,
        "failed": 0,
        "retries": 0,
        "prompt_tokens": 120,
        "completion_tokens": 24,
        "cost": pytest.approx(120 * 2e-6 + 24 * 10e-6),
        "last_problem": None,
    }


def test_values_that_are_none_are_not_sent(chat, judge) -> None:
    judge(temperature=None, max_tokens=None).ask(["q"])
    assert set(chat.requests[0]) == {"model", "messages", "path"}


PASSING = {
    "500": refusal(500, "oops"),
    "503 in words": Told(503, b"<html>busy</html>"),
    "408": refusal(408, "slow"),
    "409": refusal(409, "conflict"),
    "429": refusal(429, "wait"),
    "reset": RESET,
    "cut JSON": Told(body=b'{"choices": [{"mess'),
    "cut transfer": Told(body=b'{"choices": []', length=900),
    "no choices": Told(body=b'{"choices": []}'),
    "other shape": Told(body=b"[1, 2]"),
    "error in a reply": Told(body=b'{"error": {"message": "overloaded"}}'),
    "no text": completion(None),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(chat, judge, time, trouble) -> None:
    chat.script = troubled(trouble, trouble)
    one = judge()
    assert one.ask(["q"]) == ["q!"]
    told = one.account()
    assert (told["asked"], told["retries"], told["failed"]) == (1, 2, 0)
    first, second = time.slept
    assert 0.5 <= first <= 1 <= second <= 2
    assert told["last_problem"]


def test_silence_is_tried_again(chat, judge) -> None:
    chat.script = troubled(HANG)
    one = judge(timeout=0.2)
    assert one.ask(["q"]) == ["q!"]
    assert one.account()["retries"] == 1
    assert "timed out" in one.account()["last_problem"]


def test_the_server_says_when_up_to_a_minute(chat, judge, time) -> None:
    later = [refusal(429, "wait", Retry_After=text) for text in ("7", "90000", "Fri, 1 Jan 2100")]
    chat.script = troubled(*later)
    assert judge().ask(["q"]) == ["q!"]
    assert time.slept[:2] == [7.0, 60.0]
    assert 2 <= time.slept[2] <= 4


def test_a_prompt_that_is_never_answered_is_counted_and_the_others_go_on(chat, judge, time) -> None:
    chat.script = lambda number, prompt: RESET if prompt == "bad" else None
    one = judge(retries=8)
    assert one.ask(["a", "bad", "b"]) == ["a!", None, "b!"]
    told = one.account()
    assert (told["asked"], told["failed"], told["retries"]) == (3, 1, 8)
    assert len(time.slept) == 8
    assert max(time.slept) <= 60 < 2 * max(time.slept) + 1
    assert judge(retries=0).ask(["bad"]) == [None]


def test_an_endpoint_that_never_replies_is_given_up(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(429, "You exceeded your quota.")
    one = judge(retries=1)
    with pytest.raises(UserError, match=r"8 prompts in a row .* You exceeded your quota\)"):
        one.ask([f"q{number}" for number in range(50)])
    assert len(chat.requests) == GIVE_UP * 2


def test_replies_until_the_end_are_used(chat, judge) -> None:
    chat.script = lambda number, prompt: None if prompt == "0" else refusal(429, "Quota used up.")
    one = judge(retries=0, workers=1)
    replies = one.ask([str(number) for number in range(2 * GIVE_UP)])
    assert replies == ["0!", *[None] * (2 * GIVE_UP - 1)]
    assert "Quota used up" in one.account()["last_problem"]


def test_failures_between_replies_do_not_end_it(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(500, "no") if int(prompt) % GIVE_UP else None
    replies = judge(retries=0).ask([str(number) for number in range(3 * GIVE_UP)])
    assert [reply for reply in replies if reply] == ["0!", "8!", "16!"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301, 418])
def test_a_refusal_ends_it_at_once(chat, judge, time, status) -> None:
    echo = f"Bad key '{KEY}' or 'K3y-****42' for grader."
    chat.script = lambda number, prompt: refusal(status, echo, Location=f"{chat.url}/else")
    with pytest.raises(UserError) as caught:
        judge(workers=3).ask([f"q{number}" for number in range(30)])
    sentence = str(caught.value)
    assert f"{chat.url}/chat/completions refuses model grader (status {status}: Bad key" in sentence
    assert "HOUSE_KEY" in sentence
    assert KEY not in sentence
    assert "K3y" not in sentence
    assert len(chat.requests) <= 3
    assert not time.slept


def waiting(judge):
    """A judge with a clock that does go."""
    one = judge(workers=2)
    one.pace = Pace(None, clock.monotonic, one._halt.wait)
    return one


def test_nobody_waits_on_after_a_refusal_or_an_interruption(chat, judge, monkeypatch) -> None:
    asked, started = threading.Event(), clock.monotonic()

    def script(number, prompt):
        if prompt == "wait":
            asked.set()
            return refusal(503, "busy", Retry_After="30")
        asked.wait(5)
        return refusal(401, "no")

    def interrupted(calls):
        asked.wait(5)
        raise KeyboardInterrupt

    chat.script = script
    with pytest.raises(UserError, match="401"):
        waiting(judge).ask(["wait", "refused"])
    asked.clear()
    monkeypatch.setattr("ivcp.judges.openai.as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        waiting(judge).ask(["wait"])
    assert clock.monotonic() - started < 10


def test_a_refused_prompt_fails_alone_where_others_were_answered(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(400, "too long") if prompt == "long" else None
    assert judge().ask(["a", "long", "b"]) == ["a!", None, "b!"]
    again = judge()
    assert again.ask(["long", "a"]) == [None, "a!"]
    assert again.account()["failed"] == 1
    assert again.account()["retries"] == 0


def test_workers_at_a_time(chat, judge) -> None:
    together = threading.Barrier(3, timeout=2)
    chat.script = lambda number, prompt: together.wait() and None
    one = judge(workers=3)
    assert None not in one.ask([f"q{number}" for number in range(9)])
    assert chat.most == 3


def test_requests_per_minute_hold_for_tries_and_threads_too(chat, judge, time) -> None:
    chat.script = troubled(completion(None))
    one = judge(requests_per_minute=30, workers=4)
    one.ask(["a", "b", "c"])
    one.ask(["d"])
    assert len(chat.requests) == 5
    assert time.now >= 100 + 4 * 2


def test_nothing_is_asked_twice(chat, judge) -> None:
    assert judge().ask(["a", "b", "a"]) == ["a!", "b!", "a!"]
    assert len(chat.requests) == 2
    again = judge(price_in=1, price_out=1)
    assert again.ask(["b", "a", "c", "b"]) == ["b!", "a!", "c!", "b!"]
    assert len(chat.requests) == 3
    told = again.account()
    assert (told["asked"], told["from_cache"], told["cost"]) == (1, 2, pytest.approx(12e-6))


@pytest.mark.parametrize("change", [{"model": "b"}, {"temperature": 1.0}, {"max_tokens": 9}])
def test_other_settings_share_no_replies(chat, judge, change) -> None:
    judge().ask(["a"])
    judge(**change).ask(["a"])
    assert len(chat.requests) == 2


def test_without_a_cache_nothing_is_kept(chat, judge, tmp_path) -> None:
    one = judge(cache=None)
    assert one.ask(["a", "a"]) == ["a!", "a!"]
    one.ask(["a"])
    assert len(chat.requests) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("usage", [None, [3], {"prompt_tokens": "3"}, {"prompt_tokens": 3}])
def test_a_reply_counts_whatever_its_usage_looks_like(chat, judge, usage) -> None:
    chat.script = troubled(completion("yes", usage))
    one = judge(price_in=1.0, price_out=1.0)
    assert one.ask(["a"]) == ["yes"]
    assert one.account()["cost"] is None


def test_no_price_or_no_counts_is_no_cost(chat, judge) -> None:
    assert judge().account()["cost"] is None
    priced = judge(price_in=1.0, price_out=1.0)
    assert priced.account()["cost"] == 0
    chat.script = troubled(completion("yes"))
    priced.ask(["a", "b"])
    assert priced.account()["cost"] is None
    assert priced.account()["prompt_tokens"] == USAGE["prompt_tokens"]


def test_half_a_letter_is_mended(chat, judge) -> None:
    chat.script = troubled(completion("ok \ud83d"))
    assert judge().ask(["a"]) == ["ok ?"]


def test_the_key_is_written_nowhere(chat, judge, tmp_path, capfd) -> None:
    chat.script = lambda number, prompt: refusal(500, f"Bearer {KEY}") if number == 0 else None
    one = judge()
    one.ask([f"q{number}" for number in range(8)])
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    seen = [*files, str(one), repr(one.account()), repr(vars(one)), *capfd.readouterr()]
    assert not any(KEY in text for text in seen)


def test_progress_goes_to_stderr_for_more_than_a_few(judge, capsys) -> None:
    judge().ask(["a", "b"])
    assert capsys.readouterr() == ("", "")
    judge().ask([f"q{number}" for number in range(8)])
    out, err = capsys.readouterr()
    assert not out
    assert "judging" in err
    assert "8/8" in err


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_no_key(monkeypatch, key) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("SOME_KEY", key)
    one = OpenAIJudge(key_variable="SOME_KEY")
    assert one.missing().startswith("No key in SOME_KEY: ")
    with pytest.raises(UserError, match="No key in SOME_KEY"):
        one.ask(["a"])
    for here in ("http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        assert OpenAIJudge(key_variable="SOME_KEY", base_url=here).missing() is None
    assert OpenAIJudge(key_variable=None, base_url="http://10.0.0.7/v1").missing() is None
    elsewhere = OpenAIJudge(key_variable="SOME_KEY", base_url="http://localhost.example.org/v1")
    assert elsewhere.missing()


def test_any_key_will_do_but_one_that_cannot_be_sent(monkeypatch, chat, judge) -> None:
    for key in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("HOUSE_KEY", key)
        assert "HOUSE_KEY" in judge().missing()
        assert key not in judge().missing()
    monkeypatch.setenv("HOUSE_KEY", "0abc\n")
    assert judge().ask(["a"]) == ["a!"]
    assert chat.headers[0]["Authorization"] == "Bearer 0abc"
    monkeypatch.delenv("HOUSE_KEY")
    judge().ask(["b"])
    assert "Authorization" not in chat.headers[1]


WRONG = {
    "base_url": ["api.openai.com/v1", "ftp://a/v1", "https://me:pass@a/v1", "https://a/v1?k=1",
                 "https://", "http://[::1/v1", "http://a:port/v1", "http://a b/v1"],
    "key_variable": ["sk-abc", "", "A KEY"],
    "retries": [-1],
    "workers": [0],
    "requests_per_minute": [0],
    "max_tokens": [0],
    "timeout": [0],
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
