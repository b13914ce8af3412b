"""Requests to the API server and what becomes of its answers, over a real connection."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube import client as client_module
from machinebot.kube.client import ApiServer, Page, load_configuration
from machinebot.kube.resources import DEPLOYMENTS, EVENTS, OUTPUTS, ROLES, SECRETS, SERVICE_ACCOUNTS, TOKEN_REVIEWS, Resource
from unit.kube.server import Clients, Server

BODY = {"metadata": {"name": "x"}}
Call = Callable[[ApiServer], Awaitable[Any]]


async def drain(client: ApiServer) -> list[Any]:
    return [event async for event in client.watch(SECRETS, "ci", resource_version="1")]


async def page_through(client: ApiServer) -> list[Page]:
    return [page async for page in client.pages(SECRETS, "ci")]


CALLS: dict[str, Call] = {
    "get": lambda client: client.get(SECRETS, "ci", "x"),
    "create": lambda client: client.create(SECRETS, "ci", BODY),
    "update": lambda client: client.replace(SECRETS, "ci", "x", BODY),
    "patch": lambda client: client.patch_status(OUTPUTS, "ci", "x", BODY),
    "patch of an object": lambda client: client.patch(DEPLOYMENTS, "ci", "x", BODY),
    "delete": lambda client: client.delete(SECRETS, "ci", "x", uid="u", resource_version="7"),
    "list": page_through,
    "watch": drain,
}


RESOURCES = {"patch": "machineoutputs", "patch of an object": "deployments"}
VERBS = {"patch of an object": "patch"}
"""What metrics say of these calls, where that is not the plain name and Secrets."""


def status(reason: str, message: str = "words of the API server", **details: object) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "details": details}


async def error_of(call: Awaitable[Any]) -> MachinebotError:
    with pytest.raises(MachinebotError) as caught:
        await call
    return caught.value


# --- what is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("get", "GET", "/api/v1/namespaces/ci/secrets/x", None),
        ("create", "POST", "/api/v1/namespaces/ci/secrets", BODY),
        ("update", "PUT", "/api/v1/namespaces/ci/secrets/x", BODY),
        ("patch", "PATCH", "/apis/machinebot.dev/v1alpha1/namespaces/ci/machineoutputs/x/status", BODY),
        ("patch of an object", "PATCH", "/apis/apps/v1/namespaces/ci/deployments/x", BODY),
        (
            "delete",
            "DELETE",
            "/api/v1/namespaces/ci/secrets/x",
            {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u", "resourceVersion": "7"}},
        ),
        ("list", "GET", "/api/v1/namespaces/ci/secrets", None),
        ("watch", "GET", "/api/v1/namespaces/ci/secrets", None),
    ],
)
async def test_each_verb(server: Server, clients: Clients, name: str, method: str, path: str, body: Any) -> None:
    server.answer(200, {"items": [], "metadata": {"resourceVersion": "1"}})
    await CALLS[name](clients.client(server.url, token="t0ken"))
    (seen,) = server.seen
    assert (seen.method, seen.path) == (method, path)
    assert (json.loads(seen.body) if seen.body else None) == body
    assert seen.headers["Authorization"] == "Bearer t0ken"
    assert seen.headers["User-Agent"] == "machinebot"
    assert seen.headers["Accept"] == "application/json"
    expected = "application/merge-patch+json" if name.startswith("patch") else "application/json"
    assert seen.headers["Content-Type"] == expected
    assert clients.requests(VERBS.get(name, name), RESOURCES.get(name, "secrets"), 200) == 1


async def test_without_a_token_none_is_sent(server: Server, client: ApiServer) -> None:
    server.answer(200, {})
    await client.get(SECRETS, "ci", "x")
    assert "Authorization" not in server.seen[0].headers


async def test_a_subresource_is_posted_to(server: Server, client: ApiServer) -> None:
    server.answer(201, {"status": {"token": "x"}})
    answer = await client.create(SERVICE_ACCOUNTS, "ci", {}, name="machinebot-deployer", subresource="token")
    assert answer == {"status": {"token": "x"}}
    assert server.seen[0].path == "/api/v1/namespaces/ci/serviceaccounts/machinebot-deployer/token"


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        pytest.param(SECRETS, "ci", "x", "", "/api/v1/namespaces/ci/secrets/x", id="object"),
        pytest.param(SECRETS, "", "", "", "/api/v1/secrets", id="all namespaces"),
        pytest.param(ROLES, "", "access", "", "/apis/machinebot.dev/v1alpha1/machineroles/access", id="cluster-scoped"),
        pytest.param(
            ROLES, "ci", "access", "status", "/apis/machinebot.dev/v1alpha1/machineroles/access/status", id="no namespace"
        ),
        pytest.param(TOKEN_REVIEWS, "", "", "", "/apis/authentication.k8s.io/v1/tokenreviews", id="review"),
        pytest.param(EVENTS, "ci", "", "", "/apis/events.k8s.io/v1/namespaces/ci/events", id="event"),
        pytest.param(SECRETS, "ci", "../../x", "", "/api/v1/namespaces/ci/secrets/..%2F..%2Fx", id="a name that climbs"),
        pytest.param(SECRETS, "c/i", "x?y#z", "", "/api/v1/namespaces/c%2Fi/secrets/x%3Fy%23z", id="a name with marks"),
    ],
)
def test_paths_are_escaped(resource: Resource, namespace: str, name: str, subresource: str, path: str) -> None:
    assert resource.path(namespace, name, subresource) == path


# --- what is answered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("list", "watch", "delete")])
async def test_the_answer_is_handed_on(server: Server, client: ApiServer, name: str) -> None:
    server.answer(201 if name == "create" else 200, {"metadata": {"name": "x", "uid": "u"}})
    assert await CALLS[name](client) == {"metadata": {"name": "x", "uid": "u"}}


TERMINATING: dict[str, Any] = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
ERRORS = [
    pytest.param(400, status("BadRequest"), {}, Invalid, "RefusedByApiServer", None, id="400"),
    pytest.param(401, status("Unauthorized"), {}, Unavailable, "ApiServerAway", None, id="401: credentials come anew"),
    pytest.param(403, status("Forbidden"), {}, Denied, "Forbidden", None, id="403"),
    pytest.param(403, status("Forbidden", **TERMINATING), {}, Denied, "NamespaceTerminating", None, id="403, namespace ends"),
    pytest.param(403, status("Forbidden", causes=[{"reason": "X"}, {}]), {}, Denied, "Forbidden", None, id="403, other causes"),
    pytest.param(404, status("NotFound"), {}, NotFound, "NotFound", None, id="404"),
    pytest.param(409, status("AlreadyExists"), {}, Conflict, "AlreadyExists", None, id="409, name taken"),
    pytest.param(409, status("Conflict"), {}, Conflict, "Conflict", None, id="409, changed"),
    pytest.param(410, status("Expired"), {}, Conflict, "Expired", None, id="410"),
    pytest.param(413, status("RequestEntityTooLarge"), {}, Invalid, "RefusedByApiServer", None, id="413"),
    pytest.param(422, status("Invalid"), {}, Invalid, "RefusedByApiServer", None, id="422"),
    pytest.param(429, status("TooManyRequests"), {"Retry-After": "7"}, Unavailable, "ApiServerAway", 7, id="429"),
    pytest.param(429, status("TooManyRequests"), {}, Unavailable, "ApiServerAway", None, id="429, without a word"),
    pytest.param(503, status("X"), {"Retry-After": "9" * 400}, Unavailable, "ApiServerAway", 300, id="503, for ever"),
    pytest.param(503, status("X"), {"Retry-After": "-1"}, Unavailable, "ApiServerAway", None, id="503, before now"),
    pytest.param(503, status("X"), {"Retry-After": "soon"}, Unavailable, "ApiServerAway", None, id="503, nonsense"),
    pytest.param(503, status("X"), {"Retry-After": "²"}, Unavailable, "ApiServerAway", None, id="503, a digit that is none"),
    pytest.param(
        503, status("X"), {"Retry-After": "Fri, 01 Jan 2027 12:00:00 GMT"}, Unavailable, "ApiServerAway", None, id="503, a date"
    ),
    pytest.param(500, status("InternalError"), {}, Unavailable, "ApiServerAway", None, id="500"),
    pytest.param(504, status("Timeout"), {}, Unavailable, "ApiServerAway", None, id="504"),
    pytest.param(302, status("X"), {}, Unavailable, "ApiServerAway", None, id="a redirection without a place"),
]


@pytest.mark.parametrize(("code", "body", "headers", "kind", "reason", "retry_after"), ERRORS)
@pytest.mark.parametrize("name", ["create", "list", "watch"])
async def test_an_error_becomes_one_of_ours(
    server: Server,
    clients: Clients,
    client: ApiServer,
    name: str,
    code: int,
    body: Any,
    headers: dict[str, str],
    kind: type[MachinebotError],
    reason: str,
    retry_after: float | None,
) -> None:
    server.answer(code, body, headers=headers)
    error = await error_of(CALLS[name](client))
    assert type(error) is kind
    assert (error.reason, error.message) == (reason, "words of the API server")
    assert getattr(error, "retry_after", None) == retry_after
    assert clients.requests(name, "secrets", code) == 1


@pytest.mark.parametrize("name", ["update", "patch", "patch of an object"])
async def test_what_is_gone_cannot_be_changed(server: Server, client: ApiServer, name: str) -> None:
    server.answer(404, status("NotFound"))
    assert type(await error_of(CALLS[name](client))) is NotFound


async def test_what_is_not_there_is_none(server: Server, client: ApiServer) -> None:
    server.answer(404, status("NotFound"))
    assert await client.get(SECRETS, "ci", "x") is None


async def test_what_is_gone_need_not_be_deleted(server: Server, client: ApiServer) -> None:
    server.answer(404, status("NotFound"))
    assert await client.delete(SECRETS, "ci", "x", uid="u", resource_version="7") is None  # type: ignore[func-returns-value]


async def test_another_one_of_that_name_is_not_deleted(server: Server, client: ApiServer) -> None:
    server.answer(409, status("Conflict"))
    assert type(await error_of(CALLS["delete"](client))) is Conflict


GARBAGE = {
    "nothing": b"",
    "HTML": b"<html>login here</html>",
    "half an object": b'{"metadata": {',
    "a list": b"[]",
    "a text": b'"ok"',
    "null": b"null",
    "no UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "watch"])
async def test_a_success_that_is_no_json_object_is_none(server: Server, client: ApiServer, name: str, raw: bytes) -> None:
    """A proxy or a login page has answered."""
    server.answer(200, raw=raw)
    error = await error_of(CALLS[name](client))
    assert type(error) is Unavailable
    assert "no API server" in error.message
    assert raw.decode(errors="replace")[:5] not in error.message or not raw


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize(("code", "kind"), [(403, Denied), (409, Conflict), (422, Invalid), (500, Unavailable)])
async def test_an_error_without_a_status_is_told_by_its_code(
    server: Server, client: ApiServer, code: int, kind: type[MachinebotError], raw: bytes
) -> None:
    server.answer(code, raw=raw)
    error = await error_of(CALLS["create"](client))
    assert type(error) is kind
    assert error.reason
    assert error.message


@pytest.mark.parametrize(
    "details",
    [
        None,
        [],
        "x",
        3,
        {"causes": None},
        {"causes": "x"},
        {"causes": {"reason": "NamespaceTerminating"}},
        {"causes": [None, "x", []]},
    ],
)
async def test_details_of_another_shape_are_passed_over(server: Server, client: ApiServer, details: Any) -> None:
    server.answer(403, {**status("Forbidden"), "details": details})
    assert (await error_of(CALLS["create"](client))).reason == "Forbidden"


async def test_a_reason_phrase_that_is_no_text(server: Server, client: ApiServer) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 503 \xff\xfe\r\nContent-Length: 0\r\n\r\n")
        request.transport.close()
        return web.Response()

    server.handler = odd
    error = await error_of(CALLS["create"](client))
    assert error.message.encode()


async def test_a_long_message_is_cut(server: Server, client: ApiServer) -> None:
    server.answer(422, status("Invalid", "x" * 1_000_000))
    assert len((await error_of(CALLS["create"](client))).message) == 1024


# --- no answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
async def test_a_refused_connection(clients: Clients, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = await error_of(CALLS[name](clients.client(url)))
    assert type(error) is Unavailable
    assert error.reason == "ApiServerAway"
    assert clients.requests(VERBS.get(name, name), RESOURCES.get(name, "secrets"), 0) == 1


@pytest.mark.parametrize("name", [name for name in CALLS if name != "watch"])
async def test_an_answer_that_does_not_come(server: Server, clients: Clients, name: str) -> None:
    never = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    server.handler = hang
    error = await error_of(CALLS[name](clients.client(server.url, timeout=0.1)))
    assert type(error) is Unavailable
    assert error.reason == "ApiServerAway"
    never.set()


@pytest.mark.parametrize("name", ["get", "create", "list"])
async def test_an_answer_that_breaks_off(server: Server, client: ApiServer, name: str) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"metadata": ')
        assert request.transport is not None
        request.transport.abort()
        return response

    server.handler = break_off
    error = await error_of(CALLS[name](client))
    assert type(error) is Unavailable
    assert error.reason == "ApiServerAway"


async def test_an_answer_that_never_ends(server: Server, clients: Clients) -> None:
    never = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"metadata": ')
        await never.wait()
        return response

    server.handler = drip
    assert (await error_of(CALLS["get"](clients.client(server.url, timeout=0.1)))).reason == "ApiServerAway"
    never.set()


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_all_pages_of_a_list(server: Server, client: ApiServer) -> None:
    server.answers(
        {"metadata": {"resourceVersion": "7", "continue": "a b&c"}, "items": [{"n": 1}, {"n": 2}]},
        {"metadata": {"resourceVersion": "7", "continue": "d"}, "items": None},
        {"metadata": {"resourceVersion": "7", "continue": ""}, "items": [{"n": 3}]},
    )
    pages = [page async for page in client.pages(SECRETS, "ci", selector="a=b,c", metadata_only=True)]
    assert pages == [Page([{"n": 1}, {"n": 2}], "7"), Page([], "7"), Page([{"n": 3}], "7")]
    queries = [seen.query for seen in server.seen]
    plain = {"limit": "500", "labelSelector": "a=b,c"}
    assert queries == [plain, {**plain, "continue": "a b&c"}, {**plain, "continue": "d"}]
    assert all("as=PartialObjectMetadataList;" in seen.headers["Accept"] for seen in server.seen)


async def test_a_list_without_anything(server: Server, client: ApiServer) -> None:
    server.answer(200, {})
    assert await page_through(client) == [Page([], "")]


async def test_a_list_that_took_too_long_is_begun_anew(server: Server, client: ApiServer) -> None:
    async def expire(request: web.Request) -> web.Response:
        if "continue" in request.query:
            return web.json_response(status("Expired"), status=410)
        return web.json_response({"metadata": {"continue": "x", "resourceVersion": "7"}, "items": []})

    server.handler = expire
    assert type(await error_of(page_through(client))) is Conflict


# --- watches -------------------------------------------------------------------------------------------------------


def event(number: int, size: int = 0) -> bytes:
    return json.dumps({"type": "ADDED", "object": {"metadata": {"name": f"n{number}", "x": "x" * size}}}).encode() + b"\n"


def streaming(server: Server, *chunks: bytes, end: Callable[[web.Request], Awaitable[None]] | None = None) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if end is not None:
            await end(request)
        return response

    server.handler = stream


async def collected(client: ApiServer, found: list[str], **fields: Any) -> None:
    async for each in client.watch(SECRETS, "ci", resource_version="7", **fields):
        found.append(each["object"]["metadata"]["name"])  # noqa: PERF401 - kept where the stream breaks off


async def test_a_watch_is_asked_for_with_bookmarks_and_an_end(server: Server, client: ApiServer) -> None:
    streaming(server)
    await collected(client, [], selector="a=b", metadata_only=True)
    assert server.seen[0].query == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "290",
        "resourceVersion": "7",
        "labelSelector": "a=b",
    }
    assert "as=PartialObjectMetadata;" in server.seen[0].headers["Accept"]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([event(1), event(2), event(3)], id="line by line"),
        pytest.param([event(1) + event(2) + event(3)], id="all at once"),
        pytest.param([event(1)[:9], event(1)[9:] + event(2)[:1], event(2)[1:] + event(3)], id="cut anywhere"),
        pytest.param([event(1), event(2), event(3)[:-1]], id="the last without its newline"),
        pytest.param([event(1, 500_000), event(2), event(3, 500_000)], id="long lines"),
    ],
)
async def test_lines_of_a_watch(server: Server, client: ApiServer, chunks: list[bytes]) -> None:
    streaming(server, *chunks)
    found: list[str] = []
    await collected(client, found)
    assert found == ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    "garbage",
    [b'{"type": "ADD', b"nonsense\n", b"[]\n", b"\n", b"x" * 5_000_000],
    ids=["half a line", "no JSON", "no object", "an empty line", "a line without an end"],
)
async def test_a_stream_with_garbage_is_a_stream_that_ended(server: Server, client: ApiServer, garbage: bytes) -> None:
    streaming(server, event(1), garbage)
    found: list[str] = []
    error = await error_of(collected(client, found))
    assert type(error) is Unavailable
    assert found == ["n1"]
    assert "nonsense" not in error.message


async def test_a_stream_that_breaks_off(server: Server, client: ApiServer) -> None:
    async def abort(request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()

    streaming(server, event(1), end=abort)
    error = await error_of(collected(client, []))
    assert (type(error), error.reason) == (Unavailable, "WatchEnded")


async def test_a_stream_that_falls_silent(server: Server, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def silence(_request: web.Request) -> None:
        await never.wait()

    monkeypatch.setattr(client_module, "WATCH_SILENCE_SECONDS", 2.0)
    streaming(server, event(1), end=silence)
    found: list[str] = []
    error = await error_of(collected(clients.client(server.url), found))
    assert (type(error), error.reason) == (Unavailable, "WatchEnded")
    assert found == ["n1"]
    never.set()


async def test_a_watch_outlives_the_time_of_a_request(server: Server, clients: Clients) -> None:
    """The time-out of requests is not the one of watches."""
    client = clients.client(server.url, timeout=0.05)
    over = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if "watch" in request.query:
            await response.prepare(request)
            await response.write(event(1))
        await over.wait()
        return response

    server.handler = handler
    found: list[str] = []
    watching = asyncio.create_task(collected(client, found))
    while not found:
        await asyncio.sleep(0)
    await error_of(client.get(SECRETS, "ci", "x"))  # begun later, and timed out
    assert not watching.done()
    over.set()
    await watching


# --- where the API server is ---------------------------------------------------------------------------------------


async def test_neither_a_pod_nor_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    error = await error_of(load_configuration(None))
    assert (type(error), error.reason) == (Invalid, "NoCluster")
    assert "KUBECONFIG" in error.message


@pytest.mark.parametrize(
    "text",
    [None, "", "current-context: nowhere\ncontexts: []\n", "{", "[]", "text"],
    ids=["not there", "empty", "no context", "no YAML", "a list", "a text"],
)
async def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    assert (await error_of(load_configuration(path))).reason == "NoCluster"


async def test_a_kubeconfig(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://api.example.test:6443"}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
            }
        )
    )
    configuration = await load_configuration(path)
    assert configuration.host == "https://api.example.test:6443"
    assert await configuration.get_api_key_with_prefix("BearerToken") == "Bearer t0ken"
    assert configuration.client_session_kwargs == {"trust_env": False}, "neither ~/.netrc nor proxies are read at each request"
