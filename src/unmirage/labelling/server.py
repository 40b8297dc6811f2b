"""Labelling in a browser: a server for one person on this machine alone.

It listens on 127.0.0.1, and its address holds a secret. Besides, a request must name this server as its host (or a
foreign name that is made to point here could read the page) and, where it changes something, come from the page itself
(or a foreign page could send labels). The page asks nothing of any other server.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from unmirage.errors import UserError
from unmirage.labelling.marks import Choice, Harm
from unmirage.labelling.page import ended_page, item_page, policy, warning_page
from unmirage.labelling.pictures import read_picture
from unmirage.labelling.session import Session

ADDRESS = "127.0.0.1"
LARGEST_BODY = 65_536
FORM = "application/x-www-form-urlencoded"
HTML = "text/html; charset=utf-8"


def serve(session: Session, ready: Callable[[str], None]) -> None:
    """Serves the pages of one session until the person ends it; `ready` is told the address. Ctrl-C ends it too.

    Raises UserError where a label could not be saved, after the page has said so.
    """
    with LabelServer(session) as server:
        ready(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)
    if server.failure is not None:
        raise server.failure


class LabelServer(ThreadingHTTPServer):
    """The server of one session, on a free port. Threads, as browsers keep connections open that they do not use."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, session: Session) -> None:
        super().__init__((ADDRESS, 0), _Handler)
        self.session = session
        self.secret = secrets.token_urlsafe(24)
        self.begun = False
        self.failure: UserError | None = None
        self.one_at_a_time = threading.Lock()

    @property
    def hosts(self) -> tuple[str, str]:
        """How a browser on this machine may call this server."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def url(self) -> str:
        """The address of the page, with its secret."""
        return f"http://{self.hosts[0]}/{self.secret}/"

    def end(self) -> None:
        """Stops serving, once the answer to this request is out."""
        threading.Thread(target=self.shutdown, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks off is no news; the page is simply asked for again."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. Whatever is wrong with it gets a bare status, which tells a stranger nothing."""

    server: LabelServer
    server_version = "unmirage"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """The page, or the picture of an item."""
        with self.server.one_at_a_time:
            path = self._path()
            if path is None:
                return
            if path == "":
                self._send(item_page(self.server.session) if self.server.begun else warning_page(self.server.session))
            elif path.startswith("picture/"):
                self._picture(path.removeprefix("picture/"))
            else:
                self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """A label, or a step; the page is then fetched anew, so that reloading sends nothing twice."""
        with self.server.one_at_a_time:
            path = self._path()
            if path is None or not self._from_the_page():
                return
            try:
                self._do(path, self._form())
            except (KeyError, ValueError):
                self._refuse(HTTPStatus.BAD_REQUEST)
            except UserError as error:
                self.server.failure = error
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
                self.server.end()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong, such as another method, answered as barely as the rest."""
        self._refuse(HTTPStatus(code))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the terminal would fill with lines, and each would hold the secret."""

    def _do(self, path: str, form: dict[str, str]) -> None:
        session = self.server.session
        if path == "done":
            self._send(ended_page(session))
            self.server.end()
            return
        if path == "label":
            session.label(int(form["item"]), Choice(form["choice"]), Harm(form["harm"]), form.get("note", ""))
        elif path == "skip":
            session.skip(int(form["item"]))
        elif path in ("begin", "back", "forward"):
            self.server.begun = True
            {"begin": session.forward, "back": session.back, "forward": session.forward}[path]()
        else:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self._send_on()

    def _path(self) -> str | None:
        """What of the session is asked for; None, and a refusal sent, where the host or the secret is wrong."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        secret, slash, path = self.path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(secret.encode(), self.server.secret.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return path

    def _from_the_page(self) -> bool:
        """Whether a request that changes something comes from this server's own page; else a refusal is sent."""
        if self.headers.get("Origin") == f"http://{self.headers['Host']}":
            return True
        self._refuse(HTTPStatus.FORBIDDEN)
        return False

    def _form(self) -> dict[str, str]:
        """The first value of each field; ValueError where the body is no form, or too large for one."""
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get_content_type()
        if kind != FORM or not length.isascii() or not length.isdigit() or int(length) > LARGEST_BODY:
            raise ValueError("no form")
        text = self.rfile.read(int(length)).decode("utf-8", "replace")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=20)
        return {name: values[0] for name, values in fields.items()}

    def _picture(self, index: str) -> None:
        items = self.server.session.sample.items
        known = index.isascii() and index.isdigit() and int(index) < len(items)
        path = items[int(index)].image if known else None
        picture = read_picture(path) if path is not None else None
        if picture is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self._answer(HTTPStatus.OK, picture.kind, picture.data)

    def _send(self, page: str) -> None:
        self._answer(HTTPStatus.OK, HTML, page.encode())

    def _send_on(self) -> None:
        self._answer(HTTPStatus.SEE_OTHER, "text/plain; charset=utf-8", b"", location=f"/{self.server.secret}/")

    def _refuse(self, status: HTTPStatus, why: str = "") -> None:
        self.close_connection = True  # the body may not have been read
        self._answer(status, "text/plain; charset=utf-8", f"{why or status.phrase}\n".encode())

    def _answer(self, status: HTTPStatus, kind: str, data: bytes, location: str | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": policy(),
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            # "no-referrer" would make the browser hide the origin of the form, which is checked.
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        headers |= {"Location": location} if location else {}
        headers |= {"Connection": "close"} if self.close_connection else {}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
