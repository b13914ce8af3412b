"""Secrets, ServiceAccounts and tokens as they stand in the API server."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from machinebot.errors import Conflict, Invalid, NotFound, Unavailable
from machinebot.kube.owned import Owner
from machinebot.kube.resources import SECRETS, SERVICE_ACCOUNTS, TOKEN_REVIEWS
from machinebot.kube.secrets import MAX_SECRET, SecretStore, StoredSecret
from machinebot.kube.tokens import FoundAccount, ServiceAccounts, TokenReviews
from unit.kube.fakes import Json, Script

OWNER = Owner("MachineOutput", "out", "output-1")
REFERENCE = {
    "apiVersion": "machinebot.dev/v1alpha1",
    "kind": "MachineOutput",
    "name": "out",
    "uid": "output-1",
    "controller": True,
    "blockOwnerDeletion": False,
}
LABEL = {"app.kubernetes.io/managed-by": "machinebot"}
DATA = {"key": b"\x00\xffsecret", "empty": b""}


def body(**metadata: Any) -> Json:
    return {
        "metadata": {"namespace": "ci", "name": "web", "uid": "u", "resourceVersion": "7", **metadata},
        "data": {name: base64.b64encode(value).decode() for name, value in DATA.items()},
    }


def store(*answers: Any) -> tuple[SecretStore, Script]:
    script = Script(*answers)
    return SecretStore(script), script  # type: ignore[arg-type]  # the verbs of it


STORED = StoredSecret(
    namespace="ci",
    name="web",
    uid="u",
    resource_version="7",
    owner_uid="output-1",
    managed=True,
    deleting=False,
    type="Opaque",
    labels={**LABEL, "team": "a"},
    annotations={"note": "old", "theirs": "kept"},
    data=DATA,
)


# --- Secrets -------------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_none() -> None:
    secrets, script = store(None)
    assert await secrets.read("ci", "web") is None
    assert script.calls == [("get", SECRETS, "ci", "web")]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param({}, {"owner_uid": None, "managed": False, "deleting": False, "labels": {}, "annotations": {}}, id="plain"),
        pytest.param({"labels": LABEL}, {"managed": True, "labels": LABEL}, id="with our label"),
        pytest.param({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, {"managed": False}, id="of another program"),
        pytest.param(
            {"labels": None, "annotations": None, "ownerReferences": None}, {"labels": {}, "annotations": {}}, id="nulls"
        ),
        pytest.param({"ownerReferences": [REFERENCE]}, {"owner_uid": "output-1"}, id="with an owner"),
        pytest.param({"ownerReferences": [{**REFERENCE, "controller": False}]}, {"owner_uid": None}, id="owned, not controlled"),
        pytest.param({"deletionTimestamp": "2027-01-01T00:00:00Z"}, {"deleting": True}, id="being deleted"),
        pytest.param({"annotations": {"a": "b"}}, {"annotations": {"a": "b"}}, id="annotations"),
    ],
)
async def test_a_secret_as_read(metadata: Json, expected: dict[str, Any]) -> None:
    secrets, _ = store(body(**metadata))
    found = await secrets.read("ci", "web")
    assert found is not None
    assert found.data == DATA
    assert (found.namespace, found.name, found.uid, found.resource_version) == ("ci", "web", "u", "7")
    assert {name: getattr(found, name) for name in expected} == expected


async def test_a_secret_without_data() -> None:
    empty: tuple[Any, ...] = ({}, None)
    for data in empty:
        secrets, _ = store({**body(), "data": data})
        found = await secrets.read("ci", "web")
        assert found is not None
        assert found.data == {}


async def test_its_text_form_does_not_show_the_data() -> None:
    secrets, _ = store(body())
    found = await secrets.read("ci", "web")
    assert "secret" not in repr(found)
    assert "data" not in repr(found)


async def test_a_secret_is_made_whole() -> None:
    secrets, script = store(body(labels=LABEL))
    made = await secrets.create("ci", "web", DATA, labels={"team": "a"}, annotations={"note": "x"}, owner=OWNER)
    assert made.managed
    assert script.calls == [
        (
            "create",
            SECRETS,
            "ci",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": "web",
                    "namespace": "ci",
                    "labels": {"team": "a", **LABEL},
                    "annotations": {"note": "x"},
                    "ownerReferences": [REFERENCE],
                },
                "type": "Opaque",
                "data": {"key": "AP9zZWNyZXQ=", "empty": ""},
            },
            "",
            "",
        )
    ]


async def test_a_secret_without_an_owner() -> None:
    secrets, script = store(body())
    await secrets.create("ci", "web", DATA, labels={}, annotations={}, owner=None)
    assert "ownerReferences" not in script.calls[0][3]["metadata"]


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls"])
async def test_a_secret_is_made_with_the_type_asked_for(kind: str) -> None:
    secrets, script = store({**body(), "type": kind})
    made = await secrets.create("ci", "web", DATA, labels={}, annotations={}, owner=OWNER, kind=kind)
    assert made.type == script.calls[0][3]["type"] == kind


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls"])
async def test_a_secret_is_never_replaced_with_the_type_that_somebody_else_gave_it(kind: str) -> None:
    """The API server then refuses, since a type cannot be changed; see `resources.output.SecretTemplate.type`."""
    secrets, script = store({**body(), "type": kind})
    foreign = replace(STORED, type="kubernetes.io/service-account-token")
    await secrets.replace(foreign, DATA, labels={}, annotations={}, owner=OWNER, kind=kind)
    assert script.calls[0][4]["type"] == kind


@pytest.mark.parametrize(("fields", "kind"), [({}, "Opaque"), ({"type": "kubernetes.io/tls"}, "kubernetes.io/tls")])
async def test_the_type_of_a_secret_is_read(fields: Json, kind: str) -> None:
    secrets, _ = store({**body(), **fields})
    found = await secrets.read("ci", "web")
    assert found is not None
    assert found.type == kind


async def test_nobody_takes_our_label_off() -> None:
    secrets, script = store(body())
    await secrets.create("ci", "web", {}, labels={"app.kubernetes.io/managed-by": "Helm"}, annotations={}, owner=OWNER)
    assert script.calls[0][3]["metadata"]["labels"] == LABEL


async def test_a_secret_is_replaced_where_it_still_is_as_it_was_read() -> None:
    secrets, script = store(body())
    await secrets.replace(STORED, {"key": b"new"}, labels={"team": "b"}, annotations={"note": "new"}, owner=OWNER)
    ((verb, resource, namespace, name, written),) = script.calls
    assert (verb, resource, namespace, name) == ("replace", SECRETS, "ci", "web")
    assert written["data"] == {"key": "bmV3"}
    assert written["metadata"] == {
        "name": "web",
        "namespace": "ci",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"team": "b", **LABEL},
        "annotations": {"note": "new", "theirs": "kept"},
        "ownerReferences": [REFERENCE],
    }


async def test_exactly_the_secret_that_was_read_is_deleted() -> None:
    secrets, script = store(None)
    await secrets.delete(STORED)
    assert script.calls == [("delete", SECRETS, "ci", "web", "u", "7")]


async def test_what_is_too_large_is_not_sent() -> None:
    secrets, script = store(body())
    await secrets.create("ci", "web", {"a": b"x" * (MAX_SECRET - 1), "b": b"x"}, labels={}, annotations={}, owner=None)
    for call in (
        secrets.create("ci", "web", {"a": b"x" * MAX_SECRET, "b": b"x"}, labels={}, annotations={}, owner=None),
        secrets.replace(STORED, {"a": b"x" * (MAX_SECRET + 1)}, labels={}, annotations={}, owner=None),
    ):
        with pytest.raises(Invalid) as caught:
            await call
        assert caught.value.reason == "SecretTooLarge"
    assert len(script.calls) == 1


@pytest.mark.parametrize("verb", ["create", "replace"])
async def test_a_conflict_is_told(verb: str) -> None:
    secrets, _ = store(Conflict("Conflict", "changed"))
    call: Any = (
        secrets.create("ci", "web", DATA, labels={}, annotations={}, owner=OWNER)
        if verb == "create"
        else secrets.replace(STORED, DATA, labels={}, annotations={}, owner=OWNER)
    )
    with pytest.raises(Conflict):
        await call


# --- ServiceAccounts -----------------------------------------------------------------------------------------------


def accounts(*answers: Any) -> tuple[ServiceAccounts, Script]:
    script = Script(*answers)
    return ServiceAccounts(script), script  # type: ignore[arg-type]  # the verbs of it


@pytest.mark.parametrize(
    ("answer", "found", "uid"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param(body(), FoundAccount("u", None, managed=False, deleting=False), "u", id="somebody's"),
        pytest.param(
            body(labels=LABEL, ownerReferences=[REFERENCE]),
            FoundAccount("u", "output-1", managed=True, deleting=False),
            "u",
            id="ours",
        ),
        pytest.param(
            body(deletionTimestamp="2027-01-01T00:00:00Z"),
            FoundAccount("u", None, managed=False, deleting=True),
            None,
            id="being deleted",
        ),
    ],
)
async def test_a_service_account_as_read(answer: Any, found: FoundAccount | None, uid: str | None) -> None:
    found_accounts, script = accounts(answer, answer)
    assert await found_accounts.look("ci", "web") == found
    assert await found_accounts.uid("ci", "web") == uid
    assert script.calls == [("get", SERVICE_ACCOUNTS, "ci", "web")] * 2


async def test_a_service_account_is_made_without_a_mounted_token() -> None:
    made, script = accounts({"metadata": {"uid": "sa-1"}})
    assert await made.create("ci", "machinebot-deployer", OWNER) == "sa-1"
    written = script.calls[0][3]
    assert written["automountServiceAccountToken"] is False
    assert written["metadata"] == {
        "name": "machinebot-deployer",
        "namespace": "ci",
        "labels": LABEL,
        "ownerReferences": [REFERENCE],
    }


async def test_a_token_is_for_one_audience_and_ten_minutes() -> None:
    made, script = accounts({"status": {"token": "t0ken"}})
    assert await made.token("ci", "machinebot-deployer", "example.test") == "t0ken"
    ((verb, resource, namespace, written, name, subresource),) = script.calls
    assert (verb, resource, namespace, name, subresource) == ("create", SERVICE_ACCOUNTS, "ci", "machinebot-deployer", "token")
    assert written["spec"] == {"audiences": ["example.test"], "expirationSeconds": 600}


async def test_a_service_account_that_is_missing_is_named() -> None:
    made, _ = accounts(NotFound("NotFound", "gone"))
    with pytest.raises(Unavailable) as caught:
        await made.token("ci", "deployer", "example.test")
    assert caught.value.reason == "ServiceAccountMissing"
    assert "'deployer'" in caught.value.message
    assert "serviceAccountName" in caught.value.message


@pytest.mark.parametrize("answer", [{}, {"status": None}], ids=["no status", "null"])
async def test_a_review_without_a_status_says_nothing(answer: Any) -> None:
    script = Script(answer)
    assert await TokenReviews(script).review("t0ken", "example.test") == {}  # type: ignore[arg-type]  # the verbs of it
    assert script.calls[0][1:4] == (
        TOKEN_REVIEWS,
        "",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "t0ken", "audiences": ["example.test"]},
        },
    )


async def test_a_review_is_handed_on_as_it_is() -> None:
    reviews = TokenReviews(Script({"status": {"authenticated": True}}))  # type: ignore[arg-type]  # the verbs of it
    assert await reviews.review("t0ken", "example.test") == {"authenticated": True}
