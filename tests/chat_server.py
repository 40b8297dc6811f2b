"""A chat server for tests, on 127.0.0.1 and a free port: what it answers, and how it fails, is scripted."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Reaction:
    """What the server does with one request. `hang`: seconds before it does anything; `drop`: hangs up instead."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    drop: bool = False


def completion(text: str | None, finish: str = "stop", **message: Any) -> Body:
    """A chat completion as servers send it."""
    said = {"role": "assistant", "content": text, **message}
    return {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": said, "finish_reason": finish}]}


def question(body: Body) -> str:
    """The text that is asked, whatever form the message has."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def echo(body: Body, _attempt: int) -> Reaction:
    """Says the question again."""
    return Reaction(body=completion(f"echo {question(body)}"))


Script = Callable[[Body, int], Reaction]
"""Takes a request's body and how often the same question was asked before."""


class FakeServer:
    """What it was asked, and how many requests there were at once at most."""

    def __init__(self, script: Script, models: Any) -> None:
        self.script, self.models = script, models
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections: list[socket.socket] = []
        self.peak = 0
        self._now = 0
        self._lock = threading.Lock()
        self._attempts: Counter[str] = Counter()

    def react(self, body: Body) -> Reaction:
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
            self.bodies.append(body)
            attempt = self._attempts[question(body)]
            self._attempts[question(body)] += 1
        try:
            reaction = self.script(body, attempt)
            time.sleep(reaction.hang)
            return reaction
        finally:
            with self._lock:
                self._now -= 1

    @property
    def asked(self) -> list[str]:
        return [question(body) for body in self.bodies]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeServer

    def setup(self) -> None:
        super().setup()
        self.fake.connections.append(self.connection)

    def do_GET(self) -> None:
        self._note()
        listed = {"object": "list", "data": [{"id": name, "created": time.time()} for name in self.fake.models or []]}
        self._send(Reaction(200 if self.fake.models is not None else 404, listed))

    def do_POST(self) -> None:
        self._note()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reaction = self.fake.react(body)
        if reaction.drop:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._send(reaction)

    def _note(self) -> None:
        self.fake.paths.append(self.path)
        self.fake.headers.append(dict(self.headers))

    def _send(self, reaction: Reaction) -> None:
        content = reaction.body if isinstance(reaction.body, bytes) else json.dumps(reaction.body).encode()
        headers = {"Content-Length": str(len(content)), **reaction.headers}
        try:
            self.send_response(reaction.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # whoever asked has given up
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(script: Script = echo, models: Any = ("m",)) -> Iterator[tuple[str, FakeServer]]:
    """The address of a running server, and the server."""
    fake = FakeServer(script, models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for connection in fake.connections:  # those that are kept alive would be served on
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
