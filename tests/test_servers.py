"""The client of chat servers: order, bounds, patience, every way to fail, and secrets that stay secret."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from chat_server import Reaction, completion, echo, free_port, question, serving
from hypothesis import given
from hypothesis import strategies as st

from unmirage.errors import UserError
from unmirage.servers import Chat, ChatServer, Completion

KEY = "sk-do-not-tell-0123456789"


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def ask(text: str) -> Chat:
    return Chat([{"role": "user", "content": text}], {"temperature": 0, "max_tokens": 5})


def mocked(handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> ChatServer:
    options = {"backoff": 0.001, **options}
    return ChatServer("http://server", "m", transport=httpx.MockTransport(handler), **options)


def always(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Callable[..., httpx.Response]:
    if isinstance(body, str):
        return lambda _: httpx.Response(status, text=body, headers=headers)
    return lambda _: httpx.Response(status, json=body, headers=headers)


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "requested"),
    [
        ("http://h:8000", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/v1", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/v1/", "http://h:8000/v1/chat/completions"),
        ("http://h:8000/v1/chat/completions", "http://h:8000/v1/chat/completions"),
        ("localhost:8000", "http://localhost:8000/v1/chat/completions"),
        (" https://h/api/v1 ", "https://h/api/v1/chat/completions"),
        ("https://h/api", "https://h/api/v1/chat/completions"),
        ("https://h/v1beta", "https://h/v1beta/chat/completions"),
        ("https://h/v1beta/openai/chat/completions", "https://h/v1beta/openai/chat/completions"),
        ("https://h/deployment?api-version=2", "https://h/deployment/v1/chat/completions?api-version=2"),
    ],
)
def test_an_address_may_end_anywhere(given: str, requested: str) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json=completion("yes"))

    server = ChatServer(given, "m", transport=httpx.MockTransport(handler))
    assert server.chat(ask("x")) == Completion("yes", "stop")
    assert seen == [requested]


@pytest.mark.parametrize("address", ["", "http://", "ftp://h/v1", "http://h:port", "file:///etc/hosts"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"is no address; give one such as http://localhost:8000\.$"):
        ChatServer(address, "m")


# ---- order and bounds ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 7))
def test_completions_come_in_the_order_of_requests(delays: list[int], concurrency: int) -> None:
    now = peak = 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        text = json.loads(request.content)["messages"][0]["content"]
        await asyncio.sleep(int(text.split()[1]) / 5000)
        now -= 1
        return httpx.Response(200, json=completion(text))

    server = mocked(handler, concurrency=concurrency)
    asked = [f"{number} {delay}" for number, delay in enumerate(delays)]
    assert [done.text for done in server.chats(map(ask, asked))] == asked
    assert peak == min(concurrency, len(asked)) or peak < concurrency


def test_so_many_at_once_and_never_more() -> None:
    barrier = threading.Barrier(4, timeout=10)

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        barrier.wait()  # passes only where four requests are there together
        time.sleep(0.02)
        return echo(body, attempt)

    with serving(script) as (url, fake):
        server = ChatServer(url, "m", concurrency=4)
        asked = [f"q{number}" for number in range(16)]
        assert [done.text for done in server.chats(map(ask, asked))] == [f"echo {text}" for text in asked]
    assert fake.peak == 4
    assert all(path == "/v1/chat/completions" for path in fake.paths)


def test_requests_are_made_as_they_are_needed() -> None:
    """Pictures are encoded with their request: not all of them may lie in memory at once."""
    made: list[int] = []

    def requests() -> Any:
        for number in range(100):
            made.append(number)
            yield ask(f"q{number}")

    replies = mocked(lambda _: httpx.Response(200, json=completion("a")), concurrency=2).chats(requests())
    next(replies)
    assert len(made) <= 10
    assert sum(1 for _ in replies) == 99


def test_whoever_stops_early_leaves_nothing_at_work() -> None:
    with serving(lambda body, _: Reaction(body=completion("a"), hang=0 if question(body) == "0" else 30)) as (url, _):
        before = threading.active_count()
        replies = ChatServer(url, "m", concurrency=4).chats(ask(str(number)) for number in range(20))
        assert next(replies).text == "a"
        start = time.monotonic()
        replies.close()
        assert time.monotonic() - start < 5, "the requests under way are given up, not waited for"
        names = [thread.name for thread in threading.enumerate()]
        assert "unmirage-requests" not in names, (before, names)


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook() -> Completion:
        return mocked(always(200, completion("a"))).chat(ask("x"))

    assert asyncio.run(notebook()).text == "a"


# ---- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (completion(" Red. "), Completion("Red.", "stop")),
        (completion("It is", "length"), Completion("It is", "length")),
        (completion(None, "length"), Completion("", "length")),
        (completion("", "stop"), Completion("", "stop")),
        (completion("a", "tool_calls"), Completion("a", None)),
        (completion([{"type": "text", "text": "Re"}, {"type": "text", "text": "d"}]), Completion("Red", "stop")),
        (completion("It is m", "content_filter"), Completion("It is m", "filter")),
        (completion(None, refusal="I can't help with that."), Completion("I can't help with that.", "filter")),
        (completion("a", refusal=None), Completion("a", "stop")),
        ({"choices": [{"message": {"content": "a"}}]}, Completion("a", None)),
    ],
)
def test_how_an_answer_ended_is_told(body: Any, expected: Completion) -> None:
    assert mocked(always(200, body)).chat(ask("x")) == expected


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "content_filter", "message": "The response was filtered", "param": "prompt"}),
        (400, {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "filtered"}),
        (400, {"code": "content_policy_violation", "message": "no"}),
        (403, {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}),
    ],
)
def test_a_request_that_a_filter_holds_back_is_no_error(status: int, error: Any) -> None:
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(status, json={"error": error})

    assert mocked(handler).chat(ask("x")) == Completion("", "filter")
    assert len(calls) == 1, "a filter says the same every time"


# ---- patience ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(status, text="busy") if len(calls) < 4 else httpx.Response(200, json=completion("a"))

    assert mocked(handler, retries=3).chat(ask("x")) == Completion("a", "stop")
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (always(500, "oops\n on two lines"), "HTTP 500 oops on two lines (3 attempts)"),
        (always(503, {"error": {"message": "loading"}}), "HTTP 503 loading (3 attempts)"),
        (always(429, {"error": "slow down"}), "HTTP 429 slow down (3 attempts)"),
        (always(200, "<html>"), "the reply is no chat completion <html> (3 attempts)"),
        (always(200, {"choices": []}), "the reply is no chat completion (3 attempts)"),
        (always(200, {"choices": [{"message": "a"}]}), "the reply is no chat completion (3 attempts)"),
        (always(200, completion({"a": 1})), "the reply is no chat completion (3 attempts)"),  # type: ignore[arg-type]
        (always(200, [1]), "the reply is no chat completion (3 attempts)"),
        (always(200, {"error": {"message": "upstream"}}), "the reply is no chat completion upstream (3 attempts)"),
        (always(200, completion("a", "error")), "the server broke the answer off (3 attempts)"),
        (always(400, {"detail": "too long"}), "HTTP 400 too long"),
        (always(413, "too large"), "HTTP 413 too large"),
        (always(422, {"detail": [{"loc": ["seed"]}]}), "HTTP 422"),
        (always(301, "", {"location": "http://elsewhere/"}), "HTTP 301"),
    ],
)
def test_what_fails_for_good_is_a_short_error(response: Callable[..., httpx.Response], error: str) -> None:
    done = mocked(response, retries=2).chat(ask("x"))
    assert done == Completion("", None, done.error)
    assert done.error is not None
    assert done.error.strip() == error


def test_a_long_error_is_cut() -> None:
    error = mocked(always(400, "x" * 5000)).chat(ask("x")).error
    assert error is not None
    assert len(error) <= 160
    assert error.endswith("...")


def test_waits_double_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("unmirage.servers.asyncio.sleep", sleep)
    assert mocked(always(500), backoff=1.0, retries=7).chat(ask("x")).error
    own = [wait for wait in waits if wait > 0]
    for wait, most in zip(own, (1, 2, 4, 8, 16, 30, 30), strict=True):
        assert most / 2 <= wait <= most
    assert len(set(own)) == 7


@pytest.mark.parametrize("said", ["0.3", None])
def test_a_wait_that_the_server_asks_for_is_kept(said: str | None) -> None:
    """As a number of seconds or as a date, which counts whole seconds."""
    wanted = 0.3 if said else 1.0
    when: list[float] = []

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        when.append(time.monotonic())
        header = said or formatdate(time.time() + 2, usegmt=True)
        return echo(body, attempt) if attempt else Reaction(429, {}, {"Retry-After": header})

    with serving(script) as (url, _):
        assert ChatServer(url, "m", backoff=0.001).chat(ask("x")).text == "echo x"
    assert when[1] - when[0] >= wanted


def test_one_request_that_must_wait_holds_the_others() -> None:
    when: dict[str, list[float]] = {}

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        when.setdefault(question(body), []).append(time.monotonic())
        limited = question(body) == "0" and attempt == 0
        return Reaction(429, {}, {"Retry-After": "0.4"}) if limited else echo(body, attempt)

    with serving(script) as (url, _):
        done = list(ChatServer(url, "m", concurrency=1, backoff=0.001).chats(map(ask, "012")))
    assert [one.error for one in done] == [None] * 3
    assert when["1"][0] - when["0"][0] >= 0.4


def test_a_wait_of_an_hour_is_not_sat_out() -> None:
    done = mocked(always(429, "busy", {"Retry-After": "3600"})).chat(ask("x"))
    assert done.error == "HTTP 429 busy"


def test_hanging_and_dropped_connections_and_broken_json_are_survived() -> None:
    """Every third attempt of each kind goes well; no row is lost or exchanged."""

    def script(body: dict[str, Any], attempt: int) -> Reaction:
        if attempt == 2:
            return echo(body, attempt)
        kind = int(question(body)) % 4
        return [
            Reaction(hang=1.5, body=completion("late")),
            Reaction(drop=True),
            Reaction(body=b'{"choices": [{"mess'),
            Reaction(500, {"error": "oops"}),
        ][kind]

    with serving(script) as (url, fake):
        server = ChatServer(url, "m", timeout=0.3, backoff=0.01)
        done = list(server.chats(ask(str(number)) for number in range(12)))
    assert [one.text for one in done] == [f"echo {number}" for number in range(12)]
    assert [one.error for one in done] == [None] * 12
    assert len(fake.bodies) == 36


def test_a_server_that_hangs_is_an_error_after_all_attempts() -> None:
    with serving(lambda *_: Reaction(hang=5)) as (url, fake):
        done = ChatServer(url, "m", timeout=0.1, retries=2, backoff=0.01).chat(ask("x"))
    assert done == Completion("", None, "no answer within 0.1 s (3 attempts)")
    assert len(fake.bodies) == 3


def test_a_timeout_counts_from_the_start_and_not_from_the_last_byte() -> None:
    async def drip() -> Any:
        for _ in range(50):
            yield b" "
            await asyncio.sleep(0.05)

    server = mocked(lambda _: httpx.Response(200, content=drip()), timeout=0.2, retries=0)
    start = time.monotonic()
    assert server.chat(ask("x")).error == "no answer within 0.2 s"
    assert time.monotonic() - start < 1.5


# ---- where no request can succeed ----------------------------------------------------------------------------------


def test_nobody_there_is_said_at_once() -> None:
    port, start = free_port(), time.monotonic()
    with pytest.raises(UserError, match=rf"http://127\.0\.0\.1:{port}/v1: there is no connection .*; start it, or"):
        list(ChatServer(f"127.0.0.1:{port}", "m").chats(map(ask, "abc")))
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_and_not_shown(status: int) -> None:
    response = always(status, {"error": {"message": f"Incorrect API key provided: {KEY}."}})
    with pytest.raises(UserError, match=rf"refuses the key .*HTTP {status}.*set the environment") as caught:
        mocked(response, api_key=KEY).chat(ask("x"))
    assert KEY not in str(caught.value)
    with pytest.raises(UserError, match="refuses requests without a key"):
        mocked(response).chat(ask("x"))


def test_a_model_that_is_not_there_is_said_with_those_that_are() -> None:
    missing = Reaction(404, {"error": {"message": "no such model"}})
    said = r"has no model 'm'.*no such model.*it serves one, two; correct"
    with serving(lambda *_: missing, ["one", "two"]) as (url, _), pytest.raises(UserError, match=said):
        ChatServer(url, "m").chat(ask("x"))


def test_a_spent_quota_is_not_tried_again() -> None:
    with pytest.raises(UserError, match="quota of this key is used up"):
        mocked(always(429, {"error": {"code": "insufficient_quota", "message": "billing"}})).chat(ask("x"))


def test_a_setting_that_a_model_does_not_take_ends_the_run() -> None:
    body = {"error": {"code": "unsupported_value", "message": "'temperature' does not support 0"}}
    with pytest.raises(UserError, match=r"m does not take a setting that is needed .*temperature"):
        mocked(always(400, body)).chat(ask("x"))


def test_a_server_that_goes_away_ends_the_run_after_what_it_had_answered() -> None:
    done: list[Completion] = []
    with serving() as (url, _):
        server = ChatServer(url, "m", concurrency=1, retries=1, backoff=0.01)
        replies = server.chats(ask(str(number)) for number in range(500))
        done.append(next(replies))
    with pytest.raises(UserError, match=r"no longer answers: no connection .*run the same command again"):
        done.extend(replies)
    answered = [one for one in done if one.error is None]
    assert [one.text for one in answered] == [f"echo {number}" for number in range(len(answered))]
    assert len(done) < 500


def test_a_server_that_falls_silent_ends_the_run() -> None:
    with serving(lambda body, n: Reaction(hang=0 if question(body) == "0" else 9, body=completion("a"))) as (url, fake):
        replies = ChatServer(url, "m", concurrency=3, timeout=0.1, retries=1, backoff=0.01).chats(
            ask(str(number)) for number in range(500)
        )
        assert next(replies).text == "a"
        with pytest.raises(UserError, match=r"no longer answers: no answer within 0\.1 s \(2 attempts\); see what"):
            list(replies)
    assert len(fake.bodies) <= 1 + 2 * 6


def test_slow_requests_among_answered_ones_are_errors() -> None:
    with serving(lambda body, n: Reaction(hang=9 * (int(question(body)) % 2), body=completion("a"))) as (url, _):
        server = ChatServer(url, "m", concurrency=2, timeout=0.1, retries=0)
        done = list(server.chats(ask(str(number)) for number in range(12)))
    assert [one.error for one in done] == [None, "no answer within 0.1 s"] * 6


def test_when_nothing_was_ever_answered_the_rest_is_not_tried() -> None:
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(400, json={"detail": "Server is pinned to 'other'; requested 'm'."})

    with pytest.raises(UserError, match=r"none of the first 10 requests was answered.*pinned to 'other'"):
        list(mocked(handler, concurrency=1).chats(ask(str(number)) for number in range(100)))
    assert 10 <= len(calls) <= 13  # at most three more had been started: four are under way at any time


def test_errors_among_answers_stay_errors() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        text = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(200, json=completion("a")) if text == "0" else httpx.Response(400, text="too long")

    done = list(mocked(handler, concurrency=1).chats(ask(str(number)) for number in range(40)))
    assert [one.error for one in done] == [None] + ["HTTP 400 too long"] * 39


# ---- secrets -------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with serving(lambda *_: Reaction(400, {"error": {"message": f"bad request by {KEY}"}})) as (url, fake):
        server = ChatServer(url, "m")
        done = server.chat(ask("x"))
        assert server.served() == ["m"]
    assert [headers["Authorization"] for headers in fake.headers] == [f"Bearer {KEY}"] * 2
    assert done.error == "HTTP 400 bad request by ***"
    assert KEY not in repr(server) + server.url + "".join(capsys.readouterr())


def test_without_a_key_none_is_sent_and_an_empty_one_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as (url, fake):
        ChatServer(url, "m").chat(ask("x"))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        ChatServer(url, "m", api_key="").chat(ask("x"))
    assert all("Authorization" not in headers for headers in fake.headers)


def test_secrets_in_an_address_are_not_shown() -> None:
    server = ChatServer("http://me:secret@127.0.0.1:1/v1?token=secret", "m")
    with pytest.raises(UserError) as caught:
        server.chat(ask("x"))
    assert "secret" not in str(caught.value) + server.url
    with pytest.raises(UserError) as caught:
        ChatServer("http://me:secret@h:port/v1?token=secret", "m")
    assert "secret" not in str(caught.value)


def test_a_key_that_cannot_be_one_is_not_repeated() -> None:
    with pytest.raises(UserError, match="holds a character that no key has") as caught:
        ChatServer("http://h", "m", api_key="sk-schlüssel")
    assert "sk-" not in str(caught.value)


# ---- the list of models --------------------------------------------------------------------------------------------


def test_of_a_model_is_told_what_does_not_change() -> None:
    entry = {"id": "m", "created": 5, "owned_by": "vllm", "root": "/models/m", "max_model_len": 4096, "permission": [1]}
    server = mocked(always(200, {"data": [{"id": "other", "root": "x"}, entry]}))
    assert server.about() == {"owned_by": "vllm", "root": "/models/m", "max_model_len": 4096}
    assert server.served() == ["other", "m"]


@pytest.mark.parametrize("response", [always(404, "no"), always(500, "no"), always(403, "no"), always(200, "<html>")])
def test_a_server_without_a_list_is_no_failure(response: Callable[..., httpx.Response]) -> None:
    server = mocked(response)
    assert server.served() is None
    assert server.about() == {}


def test_a_list_that_fails_in_passing_is_asked_for_again() -> None:
    """Otherwise the same model would have two identities."""
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        return httpx.Response(503) if len(calls) < 3 else httpx.Response(200, json={"data": [{"id": "m", "root": "r"}]})

    assert mocked(handler).about() == {"root": "r"}
    with pytest.raises(UserError, match=r"does not say which models it has: HTTP 503 \(3 attempts\)"):
        mocked(always(503), retries=2).about()
    with pytest.raises(UserError, match="refuses requests without a key"):
        mocked(always(401)).about()
