"""Requests over a scripted transport: what is sent, what is repeated, what is made of odd answers."""

import json
from collections.abc import Callable, Iterator
from http import HTTPMethod
from typing import Any

import httpx2
import pytest

from backupagent.cancel import Cancel
from backupagent.errors import ConfigError, KubeError, KubeInvalid, KubeNotFound, KubeUnavailable
from backupagent.kube.call import Call
from backupagent.kube.client import KubeClient
from backupagent.kube.connection import Connection, _is_local, _lines
from backupagent.kube.resources import CONFIG_MAPS, SHOOTS
from backupagent.kube.selection import Selection
from backupagent.kube.watching import TooOld

GET = Call("get", CONFIG_MAPS, "n", "a")
LIST = Call("list", CONFIG_MAPS, "n")
WATCH = Call("watch", CONFIG_MAPS, "n")
BROKEN = httpx2.RemoteProtocolError("Server disconnected without sending a response.")
OLD_PAGE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
Answer = httpx2.Response | Exception


class Script:
    """A transport with prepared answers, used in turn."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx2.Request] = []
        self._answers = list(answers)
        transport = httpx2.MockTransport(self._answer)
        self.connection = Connection(httpx2.Client(base_url="https://api", transport=transport), "https://api")

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(document: Any, code: int = 200) -> httpx2.Response:
    return httpx2.Response(code, json=document)


def page(*names: str, token: str = "", version: str = "7") -> httpx2.Response:
    items = [{"metadata": {"name": name}} for name in names]
    return answer({"items": items, "metadata": {"resourceVersion": version, "continue": token}})


@pytest.mark.parametrize("error", [BROKEN, httpx2.ReadError("reset"), httpx2.WriteError("broken pipe")])
def test_a_read_whose_connection_broke_is_made_once_more(error: Exception) -> None:
    script = Script(error, answer({"kind": "ConfigMap"}))
    assert script.connection.ask(HTTPMethod.GET, GET) == {"kind": "ConfigMap"}
    script = Script(error, error)
    with pytest.raises(KubeUnavailable):
        script.connection.ask(HTTPMethod.GET, GET)
    assert len(script.requests) == 2


@pytest.mark.parametrize("method", [HTTPMethod.POST, HTTPMethod.PUT, HTTPMethod.PATCH, HTTPMethod.DELETE])
def test_a_write_is_never_repeated(method: HTTPMethod) -> None:
    script = Script(BROKEN)
    with pytest.raises(KubeUnavailable):
        script.connection.ask(method, GET, body={})
    assert len(script.requests) == 1


def test_a_read_that_timed_out_is_not_repeated() -> None:
    script = Script(httpx2.ReadTimeout("slow"))
    with pytest.raises(KubeUnavailable):
        script.connection.ask(HTTPMethod.GET, GET)


@pytest.mark.parametrize(
    ("call", "method", "path", "content_type"),
    [
        (lambda kube: kube.apply(SHOOTS, SHOOTS.stub("s", "p")), "PATCH", "/s?", "application/apply-patch+yaml"),
        (lambda kube: kube.patch(SHOOTS, "s", "p", {}), "PATCH", "/s?", "application/merge-patch+json"),
        (
            lambda kube: kube.replace(SHOOTS, SHOOTS.stub("s", "p"), subresource="binding"),
            "PUT",
            "/s/binding?",
            "application/json",
        ),
        (lambda kube: kube.create(SHOOTS, SHOOTS.stub("s", "p")), "POST", "/shoots?", "application/json"),
    ],
)
def test_writes_name_their_manager_and_content(
    call: Callable[[KubeClient], Any], method: str, path: str, content_type: str
) -> None:
    script = Script(answer({}))
    call(KubeClient(script.connection, "me"))
    [request] = script.requests
    assert (request.method, request.headers["content-type"]) == (method, content_type)
    assert f"/apis/core.gardener.cloud/v1beta1/namespaces/p/shoots{path.removeprefix('/shoots')}" in str(request.url)
    assert request.url.params["fieldManager"] == "me"
    assert request.url.params.get("force") == ("true" if "apply" in content_type else None)


def test_a_propagation_is_asked_for_only_when_it_is_given() -> None:
    script = Script(answer({}), answer({}))
    kube = KubeClient(script.connection)
    kube.delete(CONFIG_MAPS, "a", "n")
    kube.delete(CONFIG_MAPS, "a", "n", propagation="Foreground")
    assert [dict(request.url.params) for request in script.requests] == [{}, {"propagationPolicy": "Foreground"}]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"\xff"])
def test_an_answer_that_is_no_object_is_an_error(body: bytes) -> None:
    script = Script(httpx2.Response(200, content=body))
    with pytest.raises(KubeError, match="is this an API server"):
        script.connection.ask(HTTPMethod.GET, GET)


@pytest.mark.parametrize(
    ("code", "body", "kind", "text"),
    [
        (404, b"404 page not found\n", KubeNotFound, "404 page not found"),
        (502, b"<html>bad gateway</html>", KubeUnavailable, "bad gateway"),
        (503, b"", KubeUnavailable, "answered 503"),
        (400, b'{"kind": "Other"}', KubeInvalid, "Other"),
        (599, b"", KubeUnavailable, "answered 599"),
    ],
)
def test_a_refusal_that_is_no_status_is_understood(code: int, body: bytes, kind: type[KubeError], text: str) -> None:
    script = Script(httpx2.Response(code, content=body))
    with pytest.raises(kind, match=text):
        script.connection.ask(HTTPMethod.GET, GET)


def test_a_listing_whose_pages_grew_too_old_begins_again() -> None:
    script = Script(page("a", token="t"), answer(OLD_PAGE, 410), page("a", token="u"), page("b", version="9"))
    documents, version = Selection(script.connection, CONFIG_MAPS, "n", {}).listed()
    assert ([document["metadata"]["name"] for document in documents], version) == (["a", "b"], "9")
    assert [request.url.params.get("continue") for request in script.requests] == [None, "t", None, "u"]


def test_a_listing_that_never_comes_to_its_end_is_given_up() -> None:
    script = Script(*[answer(OLD_PAGE, 410)] * 3)
    with pytest.raises(KubeUnavailable):
        KubeClient(script.connection).list(CONFIG_MAPS, "n")


@pytest.mark.parametrize("document", [{"items": "x", "metadata": {}}, {"items": []}, {"kind": "ConfigMap"}])
def test_an_answer_that_is_no_listing_is_an_error(document: Any) -> None:
    script = Script(answer(document))
    with pytest.raises(KubeError, match="not a listing"):
        KubeClient(script.connection).list(CONFIG_MAPS, "n")


def test_no_items_is_an_empty_listing() -> None:
    script = Script(answer({"items": None, "metadata": {"resourceVersion": "1"}}))
    assert KubeClient(script.connection).list(CONFIG_MAPS, "n") == []


def stream(*pieces: bytes) -> httpx2.Response:
    return httpx2.Response(200, content=iter(pieces))


def line(kind: str, told: Any) -> bytes:
    return json.dumps({"type": kind, "object": told}).encode() + b"\n"


def test_a_watch_asks_from_a_version_with_bookmarks() -> None:
    script = Script(stream(line("BOOKMARK", {"metadata": {}})))
    chosen = {"labelSelector": "a=b"}
    list(Selection(script.connection, CONFIG_MAPS, "", chosen).changes("42", Cancel()))
    [request] = script.requests
    assert request.url.path == "/api/v1/configmaps"
    asked = dict(request.url.params)
    assert 240 <= int(asked.pop("timeoutSeconds")) <= 480
    assert asked == {
        "labelSelector": "a=b",
        "watch": "true",
        "resourceVersion": "42",
        "allowWatchBookmarks": "true",
    }


def test_changes_are_cut_at_newlines_wherever_the_network_cut_them() -> None:
    told = [{"metadata": {"name": f"n{number}"}, "text": "\u0085\u2028"} for number in range(3)]
    text = b"".join(
        json.dumps({"type": "ADDED", "object": document}, ensure_ascii=False).encode() + b"\n" for document in told
    )
    for size in (1, 7, 50, len(text)):
        script = Script(stream(*(text[at : at + size] for at in range(0, len(text), size))))
        changes = list(script.connection.changes(WATCH, {}, Cancel()))
        assert changes == [("ADDED", document) for document in told]


def test_a_line_without_its_newline_was_cut_off() -> None:
    assert list(_lines([b"a\nb", b"c\n", b"rest"])) == [b"a", b"bc"]


def test_an_error_in_a_stream_is_raised() -> None:
    script = Script(stream(line("ADDED", {"metadata": {}}), line("ERROR", OLD_PAGE)))
    changes = script.connection.changes(WATCH, {}, Cancel())
    assert next(changes)[0] == "ADDED"
    with pytest.raises(TooOld):
        next(changes)


def test_a_watch_may_be_refused_at_once() -> None:
    script = Script(answer(OLD_PAGE, 410))
    with pytest.raises(TooOld):
        next(script.connection.changes(WATCH, {}, Cancel()))


@pytest.mark.parametrize("told", [b"{}\n", b"x\n", b'{"type": 1, "object": {}}\n', b'{"type": "ADDED"}\n'])
def test_a_line_that_is_no_change_is_an_error(told: bytes) -> None:
    script = Script(stream(told))
    with pytest.raises(KubeError):
        list(script.connection.changes(WATCH, {}, Cancel()))


def breaking(cancel: Cancel | None) -> Iterator[bytes]:
    yield line("ADDED", {"metadata": {}})
    if cancel is not None:
        cancel.set("test")
    raise httpx2.ReadError("reset")


def test_a_stream_that_breaks_is_an_error_unless_it_was_cancelled() -> None:
    script = Script(httpx2.Response(200, content=breaking(None)))
    with pytest.raises(KubeUnavailable, match="reset"):
        list(script.connection.changes(WATCH, {}, Cancel()))
    cancel = Cancel()
    script = Script(httpx2.Response(200, content=breaking(cancel)))
    assert len(list(script.connection.changes(WATCH, {}, cancel))) == 1


def test_a_token_that_cannot_be_sent_is_in_no_part_of_the_error() -> None:
    script = Script(httpx2.LocalProtocolError("Illegal header value b'Bearer s3cr3t'"))
    with pytest.raises(ConfigError) as caught:
        script.connection.ask(HTTPMethod.GET, GET)
    assert caught.value.__cause__ is None
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://127.1.2.3", True),
        ("https://[::1]:6443", True),
        ("https://localhost:6443", True),
        ("https://api.garden.example", False),
        ("https://10.0.0.1", False),
    ],
)
def test_a_proxy_leads_to_no_address_of_this_machine(server: str, local: bool) -> None:
    assert _is_local(server) is local
