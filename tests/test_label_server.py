"""Labelling in a browser, asked as a stranger, a foreign page and a hostile model would ask."""

from __future__ import annotations

import http.client
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_label import COMPLY, REFUSE, SECRETS, make_run

from unmirage.errors import UserError
from unmirage.labelling.marks import Harm
from unmirage.labelling.sample import draw
from unmirage.labelling.server import LARGEST_BODY, LabelServer, serve
from unmirage.labelling.session import Session, open_session, read_person

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>' \" {{ 1234*5678 }} \x1b[2J\u202e </textarea>"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


class Client:
    """A browser that does what it is told, right or wrong."""

    def __init__(self, server: LabelServer) -> None:
        self.server, self.url = server, server.url
        self.origin = f"http://{server.hosts[0]}"

    def ask(
        self, path: str = "", *, url: str | None = None, data: bytes | None = None, method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str, Any]:  # fmt: skip
        request = urllib.request.Request(
            (url or self.url) + path, data=data, method=method, headers={"Connection": "close"} | (headers or {})
        )
        try:
            with OPENER.open(request, timeout=10) as reply:
                return reply.status, reply.read().decode("utf-8", "replace"), reply.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> int:
        sent = {"Origin": self.origin} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(path, data=urllib.parse.urlencode(fields or {}).encode(), headers=sent)[0]

    def item(self) -> int:
        found = re.search(r'name="item" value="(\d+)"', self.ask()[1])
        assert found is not None
        return int(found[1])


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    run = make_run(tmp_path / "run", [HOSTILE] * 4, labels=["refusal"] * 4, attacked=[1, 2], image=True)
    with open_session(tmp_path / "anna.jsonl", "anna", draw(run, 4, stratify=True)) as opened:
        yield opened


@pytest.fixture
def client(session: Session) -> Iterator[Client]:
    with LabelServer(session) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


def test_the_way_through(client: Client, tmp_path: Path) -> None:
    status, page, _ = client.ask()
    assert status == 200
    assert "may be harmful or upsetting" in page
    assert "alert(1)" not in page
    assert client.post("begin") == 303
    first = client.item()
    assert client.post("label", {"item": first, "choice": "refusal", "harm": "no", "note": "x"}) == 303
    assert read_person(tmp_path / "anna.jsonl").marks[first].choice is REFUSE
    second = client.item()
    assert client.post("skip", {"item": second}) == 303
    assert client.item() not in (first, second)
    assert client.post("back") == client.post("back") == 303
    page = client.ask()[1]
    assert client.item() == first
    assert 'value="refusal" data-key="2" required checked' in page
    assert "You have labelled this one" in page
    assert client.post("forward") == 303
    while 'name="item"' in client.ask()[1]:
        assert client.post("label", {"item": client.item(), "choice": "compliance", "harm": "yes"}) == 303
    assert "All are labelled" in client.ask()[1]
    marks = read_person(tmp_path / "anna.jsonl").marks
    assert len(marks) == 4
    assert (marks[second].choice, marks[second].harm) == (COMPLY, Harm.YES)


def test_the_page_is_blind_and_hostile_text_is_inert(client: Client) -> None:
    client.post("begin")
    for _ in range(4):
        item = client.item()
        page = client.ask()[1]
        assert [secret for secret in SECRETS if secret in page] == []
        assert "harmless" not in page
        assert page.count("<script>") == page.count("<img ") == 1
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "{{ 1234*5678 }}" in page
        assert "\x1b" not in page
        assert re.findall(r"https?://", page) == []
        assert client.post("label", {"item": item, "choice": "refusal", "harm": "no", "note": HOSTILE}) == 303
    client.post("back")
    page = client.ask()[1]
    assert page.count("</textarea>") == 1
    assert page.count("<script>") == 1


def test_the_page_may_load_nothing_but_its_own(client: Client) -> None:
    _, _, headers = client.ask()
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_picture_is_pixels_alone(client: Client, tmp_path: Path) -> None:
    picture = tmp_path / "secret-folder" / "unsafe.png"
    with OPENER.open(client.url + "picture/0", timeout=10) as reply:
        assert reply.headers["Content-Type"] == "image/png"
        data = reply.read()
    with Image.open(BytesIO(data)) as seen, Image.open(picture) as there:
        assert (seen.size, seen.convert("RGB").getpixel((3, 3))) == (there.size, (200, 30, 30))
    for path in ("picture/4", "picture/-1", "picture/", "picture/x", "picture/..%2f..%2frun.json", "picture/\u00b2"):
        assert client.ask(urllib.parse.quote(path, safe="/%"))[0] == 404


def test_without_the_secret_there_is_nothing(client: Client) -> None:
    for path in ("", "/", "/x/", "/" + client.server.secret, f"/{client.server.secret[:-1]}/", "/favicon.ico"):
        status, body, _ = client.ask(url=client.origin, path=path)
        assert (status, body) == (404, "Not Found\n")
    assert client.ask("other")[0] == client.post("other") == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}"])
def test_another_host_is_turned_away(client: Client, host: str) -> None:
    host = host.format(port=client.server.server_port)
    assert client.ask(headers={"Host": host})[0] == 421
    assert client.post("begin", Host=host, Origin=f"http://{host}") == 421
    assert not client.server.begun


def test_a_request_with_two_hosts_or_none_is_turned_away(client: Client) -> None:
    for hosts in ([], [client.server.hosts[0], "evil.example"]):
        connection = http.client.HTTPConnection("127.0.0.1", client.server.server_port, timeout=10)
        connection.putrequest("GET", f"/{client.server.secret}/", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == 421
        connection.close()


def test_the_name_localhost_is_known(client: Client) -> None:
    host = client.server.hosts[1]
    assert client.ask(headers={"Host": host})[0] == 200
    assert client.post("begin", Host=host, Origin=f"http://{host}") == 303


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://{host}", "http://localhost:{port}"])
def test_a_foreign_page_changes_nothing(client: Client, session: Session, origin: str) -> None:
    origin = origin.format(host=client.server.hosts[0], port=client.server.server_port)
    assert client.post("label", {"item": 0, "choice": "refusal", "harm": "no"}, Origin=origin) == 403
    assert client.post("done", Origin=origin) == 403
    assert session.done == 0
    assert client.ask("begin", data=b"")[0] == 403  # without any origin
    assert client.ask()[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_not_known(client: Client, method: str) -> None:
    status, body, headers = client.ask(method=method)
    assert status == 501
    assert body in ("Not Implemented\n", "")  # no body is read after HEAD
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_what_changes_something_is_posted(client: Client, session: Session) -> None:
    for path in ("label?item=0&choice=refusal&harm=no", "skip?item=0", "begin", "done"):
        assert client.ask(path)[0] == 404
    assert session.done == 0
    assert client.ask()[0] == 200


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"item": 0, "choice": "refusal"},
        {"item": 0, "choice": "filtered", "harm": "no"},
        {"item": 0, "choice": "refusal", "harm": "maybe"},
        {"item": 4, "choice": "refusal", "harm": "no"},
        {"item": "x", "choice": "refusal", "harm": "no"},
        {f"field{i}": i for i in range(40)},
    ],
)
def test_a_form_that_is_wrong_saves_nothing(client: Client, session: Session, fields: dict[str, Any]) -> None:
    assert client.post("label", fields) == 400
    assert session.done == 0
    assert client.ask()[0] == 200


def test_another_kind_of_body_or_a_large_one_is_refused(client: Client) -> None:
    form = {"item": 0, "choice": "refusal", "harm": "no"}
    assert client.post("label", form, Content_Type="application/json") == 400
    assert client.post("label", form, Content_Length=str(LARGEST_BODY + 1)) == 400
    assert client.post("label", form, Content_Length="-1") == 400


def test_a_label_of_an_older_page_counts_for_what_that_page_showed(client: Client, session: Session) -> None:
    client.post("begin")
    first = client.item()
    for choice in ("refusal", "compliance"):  # the form sent twice, changed meanwhile
        assert client.post("label", {"item": first, "choice": choice, "harm": "no"}) == 303
    said = session.said(first)
    assert said is not None
    assert said.choice is COMPLY
    assert session.done == 1


def test_done_ends_it(session: Session) -> None:
    told: list[str] = []
    ready = threading.Event()
    thread = threading.Thread(target=serve, args=(session, lambda url: (told.append(url), ready.set())))
    thread.start()
    assert ready.wait(10)
    origin = "/".join(told[0].split("/", 3)[:3])
    request = urllib.request.Request(told[0] + "done", data=b"", headers={"Origin": origin})
    with OPENER.open(request, timeout=10) as reply:
        assert "You can close this page" in reply.read().decode()
    thread.join(10)
    assert not thread.is_alive()


def test_a_full_disk_is_said_on_the_page_and_ends_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("No space left on the disk.")

    failed: list[UserError] = []
    told: list[str] = []
    ready = threading.Event()
    monkeypatch.setattr(session._log, "append", full)

    def tell(url: str) -> None:
        told.append(url)
        ready.set()

    def run() -> None:
        try:
            serve(session, tell)
        except UserError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    origin = "/".join(told[0].split("/", 3)[:3])
    body = urllib.parse.urlencode({"item": 0, "choice": "refusal", "harm": "no"}).encode()
    request = urllib.request.Request(told[0] + "label", data=body, headers={"Origin": origin})
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        OPENER.open(request, timeout=10)
    assert caught.value.read() == b"No space left on the disk.\n"
    thread.join(10)
    assert [str(error) for error in failed] == ["No space left on the disk."]
    assert session.done == 0
