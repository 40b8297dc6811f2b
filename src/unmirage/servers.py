"""Chat completions from a server with OpenAI's interface: many at once, in order, with patience, and no secret told.

One client for everything that asks such a server: the model under test, an LLM judge, a paraphraser.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from unmirage.errors import UserError
from unmirage.schema import Finish

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")

_AGAIN = {408, 409, 425, 429}
"""Client errors that another attempt may mend; so may every error of the server (5xx)."""
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "content_filter": "filter"}
_FILTER_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"}
_ABOUT_MODEL = ("owned_by", "root", "parent", "max_model_len")
"""What an entry of `/v1/models` says that does not change from call to call."""
_LONGEST_WAIT = 300.0
"""Seconds; where a server asks for more patience than this, the request counts as failed."""
_LONGEST_REASON = 160
_GONE_AFTER = 3
"""So many requests that end without a word from the server, while it answers no other: the rest are not tried."""
_VAIN_AFTER = 10
"""So many failed requests before any was answered: the others would fail too."""
_AHEAD = 4
"""Requests under way or done ahead of the one whose turn it is, per concurrent one."""


@dataclass(frozen=True, slots=True)
class Chat:
    """One request: messages in OpenAI's form, and further fields of the request (temperature, max_tokens, ...)."""

    messages: list[dict[str, Any]]
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back: a text and how it ended, or the reason why there is none.

    `finish` "filter": a content filter held the answer back, or it is a refusal that the service marks as one; `text`
    is what it let through. None: the server does not say, or says something else than stop and length.
    """

    text: str
    finish: Finish | None = None
    error: str | None = None


class ChatServer:
    """A server with `/v1/chat/completions`, and one of its models.

    `url` may end with `/v1` or with the whole path or not; `timeout` is in seconds and holds for one attempt from its
    start to the last byte. Requests that fail by overload (429, 5xx), time, connection or a reply that is no completion
    are made again, up to `retries` times, after a wait that doubles from `backoff` seconds on, with jitter, or after
    what the server asks for (`Retry-After`). The key comes from `api_key` or the environment's OPENAI_API_KEY; it is
    sent and never shown. `transport` stands in for the network (an `httpx.MockTransport`).
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        backoff: float = 0.5,
    ) -> None:
        """Raises UserError where the url or the key cannot be one; nothing is sent yet."""
        self._base = _base_url(url)
        self.url = _shown(str(self._base)).rstrip("/")
        self.model = model
        self.concurrency, self.timeout, self.retries, self.backoff = concurrency, timeout, retries, backoff
        self._transport = transport
        self._key = _checked_key(api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", ""))
        self._reached = self._answered = False
        self._unheard = self._vain = 0
        self._not_before = 0.0

    def chats(self, requests: Iterable[Chat]) -> Iterator[Completion]:
        """Yield the completions in the order of the requests, at most `concurrency` under way at any time.

        A request that fails is a completion with `error`. Raises UserError where no request can succeed: no server
        there, key refused, no such model, quota used up, or a server that has gone away.
        """
        with _event_loop() as loop:
            at_work: deque[Future[Completion]] = deque()
            client, gate = self._client(), asyncio.Semaphore(self.concurrency)
            try:
                for request in requests:
                    at_work.append(_start(self._gated(client, gate, request), loop))
                    if len(at_work) >= _AHEAD * self.concurrency:
                        yield _first(at_work)
                    while at_work and at_work[0].done():
                        yield _first(at_work)
                while at_work:
                    yield _first(at_work)
            finally:  # also where whoever iterates stops early: nothing goes on unseen
                for future in at_work:
                    future.cancel()
                _start(_end(client), loop).result()

    def chat(self, request: Chat) -> Completion:
        """The completion of a single request; raises as `chats` does."""
        (completion,) = self.chats([request])
        return completion

    def served(self) -> list[str] | None:
        """Names of the models that the server lists; None where it keeps no list. Raises UserError as `chats` does."""
        entries = self._entries()
        return None if entries is None else [str(entry["id"]) for entry in entries]

    def about(self) -> dict[str, Any]:
        """What the server's list says of the model and does not change from call to call; empty where nothing."""
        own = [entry for entry in self._entries() or [] if entry["id"] == self.model]
        return {name: own[0][name] for name in _ABOUT_MODEL if own and own[0].get(name) is not None}

    def _entries(self) -> list[dict[str, Any]] | None:
        with _event_loop() as loop:
            client = self._client()
            try:
                return _start(self._retried(lambda: self._list(client)), loop).result()
            except _AttemptError as error:
                reason = self._short(error)
                raise UserError(f"{self.url} does not say which models it has: {reason}; try again later.") from error
            finally:
                _start(_end(client), loop).result()

    def _client(self) -> httpx.AsyncClient:
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        # Time is kept for the whole attempt: by itself httpx would count anew with every byte.
        return httpx.AsyncClient(headers=headers, timeout=None, limits=limits, transport=self._transport)

    async def _list(self, client: httpx.AsyncClient) -> list[dict[str, Any]] | None:
        status, body, after = await self._attempt(client, "GET", "models", None)
        if status == 401:
            self._refuse(status, body)
        if _is_passing(status) and status != 500:  # 500: some servers cannot list what they were started with
            raise _AttemptError(f"HTTP {status} {_message(body)}", after=after)
        if status != 200:
            return None
        rows = body.get("data") if isinstance(body, dict) else None
        return [row for row in rows if isinstance(row, dict) and "id" in row] if isinstance(rows, list) else None

    async def _gated(self, client: httpx.AsyncClient, gate: asyncio.Semaphore, chat: Chat) -> Completion:
        content = {"model": self.model, "messages": chat.messages, **chat.settings}
        async with gate:
            try:
                completion = await self._retried(lambda: self._once(client, content))
            except _AttemptError as failure:
                completion = Completion("", error=self._short(failure))
                self._unheard = self._unheard + 1 if failure.unheard else 0
        self._count(completion)
        return completion

    async def _retried(self, once: Callable[[], Awaitable[_T]]) -> _T:
        """What `once` returns at last; raises the last _AttemptError where every attempt fails."""
        for attempt in range(self.retries + 1):
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                return await once()
            except _AttemptError as failure:
                failure.attempts = attempt + 1
                wait = self._wait(attempt, failure)
                if attempt == self.retries or wait > _LONGEST_WAIT:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, failure: _AttemptError) -> float:
        """Seconds before the next attempt; what the server asks for holds for all requests."""
        own: float = min(self.backoff * 2**attempt, 30.0) * random.uniform(0.5, 1.0)
        if failure.after is not None and failure.after <= _LONGEST_WAIT:
            self._not_before = max(self._not_before, time.monotonic() + failure.after)
        return max(own, failure.after or 0.0)

    def _count(self, completion: Completion) -> None:
        """Raises UserError where it is plain that the other requests will come to nothing too."""
        if completion.error is None:
            self._vain, self._answered = 0, True
            return
        self._vain += 1
        if self._unheard >= _GONE_AFTER:
            raise UserError(
                f"{self.url} no longer answers: {completion.error}; "
                "see what became of the server, then run the same command again."
            )
        if self._vain >= _VAIN_AFTER and not self._answered:
            raise UserError(
                f"{self.url}: none of the first {self._vain} requests was answered; "
                f"the last one: {completion.error}; put that right and run the same command again."
            )

    async def _once(self, client: httpx.AsyncClient, content: dict[str, Any]) -> Completion:
        """One attempt. Raises _AttemptError where another may do better, UserError where none can."""
        status, body, after = await self._attempt(client, "POST", "chat/completions", content)
        if _is_filtered(body):
            return Completion("", finish="filter")
        if status == 404:
            await self._refuse_model(client, body)
        self._refuse(status, body)
        if _is_passing(status):
            raise _AttemptError(f"HTTP {status} {_message(body)}", after=after)
        if status != 200:
            return Completion("", error=self._scrub(f"HTTP {status} {_message(body)}"))
        return _completion(body)

    async def _attempt(
        self, client: httpx.AsyncClient, method: str, path: str, content: dict[str, Any] | None
    ) -> tuple[int, Any, float | None]:
        """Status, body (parsed where it is JSON, else text) and the wait that is asked for, in seconds."""
        import httpx

        url = self._base.copy_with(path=f"{self._base.path}{path}")
        try:
            async with asyncio.timeout(self.timeout):
                response = await client.request(method, url, json=content)
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise self._no_connection(str(error) or type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _AttemptError(f"the connection broke ({type(error).__name__})", unheard=True) from error
        except TimeoutError as error:
            raise _AttemptError(f"no answer within {self.timeout:g} s", unheard=True) from error
        self._reached, self._unheard = True, 0
        return response.status_code, _parsed(response.text), _retry_after(response.headers)

    def _no_connection(self, reason: str) -> Exception:
        """Before the server was ever reached, a wrong address is likelier than a mishap."""
        if self._reached:
            return _AttemptError(f"no connection ({reason})", unheard=True)
        return UserError(
            f"{self.url}: there is no connection to the server ({self._scrub(reason)}); "
            "start it, or correct the address and port."
        )

    def _refuse(self, status: int, body: Any) -> None:
        """Raises UserError where every further request would be refused alike."""
        says = self._scrub(_message(body))
        if status in (401, 403):
            key = "the key that was sent" if self._key else "requests without a key"
            raise UserError(
                f"{self.url} refuses {key} (HTTP {status}{says and ': '}{says}); "
                "set the environment variable OPENAI_API_KEY to a key that this server accepts."
            )
        if status == 429 and _code(body) == "insufficient_quota":
            raise UserError(f"{self.url}: the quota of this key is used up ({says}); run the same command again later.")
        if status == 400 and _code(body) in ("unsupported_parameter", "unsupported_value"):
            raise UserError(f"{self.url}: {self.model} does not take a setting that is needed ({says}).")

    async def _refuse_model(self, client: httpx.AsyncClient, body: Any) -> None:
        """What is there instead, so that the user need not look."""
        names: list[str] = []
        with suppress(_AttemptError, UserError):
            names = [str(entry["id"]) for entry in await self._list(client) or []]
        served = f"it serves {', '.join(names[:5])}{' ...' * (len(names) > 5)}" if names else "it lists no models"
        raise UserError(
            f"{self.url} has no model {self.model!r} or no chat completions (HTTP 404: "
            f"{self._scrub(_message(body)) or 'not found'}); {served}; correct the model's name or the address."
        )

    def _short(self, failure: _AttemptError) -> str:
        times = f" ({failure.attempts} attempts)" if failure.attempts > 1 else ""
        return f"{self._scrub(failure.reason)}{times}"

    def _scrub(self, text: str) -> str:
        """One line, not too long, and without the key, which some servers repeat."""
        line = _whole(" ".join(text.split()))
        line = line.replace(self._key, "***") if self._key else line
        return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


class _AttemptError(Exception):
    """An attempt that came to nothing where another may not. `after`: seconds that the server asks to wait."""

    def __init__(self, reason: str, *, after: float | None = None, unheard: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.after, self.unheard, self.attempts = reason.strip(), after, unheard, 1


def _is_passing(status: int) -> bool:
    return status in _AGAIN or status >= 500


async def _end(client: httpx.AsyncClient) -> None:
    """Waits until what was cancelled has ended, then closes the connections."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    await client.aclose()


def _shown(url: str) -> str:
    """An address without what may be secret: a name and password before the host, a query behind the path."""
    return re.sub(r"//[^/@]*@", "//", url).split("?")[0]


def _base_url(url: str) -> httpx.URL:
    """The address up to and with `/v1/`; as it is where the whole path of chat completions is given."""
    import httpx

    given = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parsed = httpx.URL(given)
    except httpx.InvalidURL as error:
        raise UserError(f"{_shown(url)!r} is no address; give one such as http://localhost:8000.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"{_shown(url)!r} is no address; give one such as http://localhost:8000.")
    path = parsed.path.rstrip("/")
    whole = path.removesuffix("/chat/completions")
    if whole == path and not re.search(r"/v\d\w*$", path):
        whole = f"{path}/v1"
    return parsed.copy_with(path=f"{whole}/", fragment=None)


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UserError("the API key holds a character that no key has; set OPENAI_API_KEY anew.")
    return key


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, so that it works from synchronous code and inside a notebook's loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="unmirage-requests", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _first(at_work: deque[Future[_T]]) -> _T:
    """Waits for the first and takes it away only then: an interruption meanwhile must still find it there."""
    done = at_work[0].result()
    at_work.popleft()
    return done


def _start(work: Coroutine[Any, Any, _T], loop: asyncio.AbstractEventLoop) -> Future[_T]:
    return asyncio.run_coroutine_threadsafe(work, loop)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date (RFC 9110, section 10.2.3)."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def _error(body: Any) -> dict[str, Any]:
    """The error that a body tells of, by whichever of the usual names."""
    found = body.get("error") or body.get("detail") or body if isinstance(body, dict) else body
    return found if isinstance(found, dict) else {"message": found if isinstance(found, str) else ""}


def _message(body: Any) -> str:
    said = _error(body).get("message")
    return said if isinstance(said, str) else ""


def _code(body: Any) -> str:
    return str(_error(body).get("code") or _error(body).get("type") or "").lower()


def _is_filtered(body: Any) -> bool:
    """Whether an error is a content filter's: Azure's and OpenAI's codes, or flags beside the message."""
    error = _error(body)
    inner = error.get("innererror") or error.get("inner_error") or {}
    codes = {_code(body), str(inner.get("code", "")).lower() if isinstance(inner, dict) else ""}
    flagged = error.get("metadata")
    return bool(codes & _FILTER_CODES) or (isinstance(flagged, dict) and "flagged_input" in flagged)


def _completion(body: Any) -> Completion:
    """The completion in a body; raises _AttemptError where there is none."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        refusal, text = message.get("refusal"), _text(message.get("content"))
    except (TypeError, KeyError, IndexError, AttributeError):
        raise _AttemptError(f"the reply is no chat completion {_message(body)}") from None
    if refusal:
        return Completion(_whole(str(refusal)).strip(), finish="filter")
    finish = choice.get("finish_reason")
    if finish == "error":
        raise _AttemptError(f"the server broke the answer off {_message(choice)}")
    return Completion(_whole(text).strip(), finish=_FINISHES.get(str(finish)))


def _whole(text: str) -> str:
    """The text with a replacement character for each half of a pair, which JSON may hold and no file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(content: Any) -> str:
    """The text of a message; some servers send it in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if part.get("type") in ("text", "output_text"))
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""
