"""ConfigMaps: when one is as it should be, and what is written where it is not."""

from collections.abc import Callable
from typing import Any

import pytest

from machinebot.kube.configmaps import ConfigMapStore, Content, StoredConfigMap
from machinebot.kube.owned import Owner
from machinebot.kube.resources import CONFIG_MAPS
from unit.kube.fakes import Json, Script

OWNER = Owner("MachineAuthority", "default", "uid-of-it")
CONTENT = Content(
    data={"jwks": "{}", "known-hosts": "x"},
    labels={"machinebot.dev/authority": "default"},
    annotations={"machinebot.dev/digest": "d"},
    owner=OWNER,
)


def stored(**changes: Any) -> Json:
    metadata: Json = {
        "name": "machinebot-trust",
        "namespace": "ci",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"app.kubernetes.io/managed-by": "machinebot", **CONTENT.labels},
        "annotations": dict(CONTENT.annotations),
        "ownerReferences": [OWNER.reference()],
    }
    return {"metadata": metadata, "data": dict(CONTENT.data), **changes}


def without(field: str) -> Callable[[], Json]:
    def body() -> Json:
        made = stored()
        del made["metadata"][field]
        return made

    return body


def with_more() -> Json:
    body = stored()
    body["metadata"]["labels"]["team"] = "a"
    body["metadata"]["annotations"]["note"] = "b"
    body["metadata"]["ownerReferences"].insert(0, {"kind": "Secret", "name": "x", "uid": "other"})
    return body


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        pytest.param(stored, True, id="as it was written"),
        pytest.param(with_more, True, id="with labels, annotations and owners of others"),
        pytest.param(lambda: stored(data={"jwks": "{}"}), False, id="a key short"),
        pytest.param(lambda: stored(data={**CONTENT.data, "mine": ""}), False, id="a key more"),
        pytest.param(lambda: stored(data=None), False, id="empty"),
        pytest.param(lambda: stored(binaryData={"mine": "MQ=="}), False, id="bytes"),
        pytest.param(lambda: stored(immutable=True), False, id="immutable: the next rotation could not be written"),
        pytest.param(without("labels"), False, id="no labels"),
        pytest.param(without("annotations"), False, id="no digest"),
        pytest.param(without("ownerReferences"), False, id="no owner"),
    ],
)
def test_whether_one_is_as_it_should_be(body: Callable[[], Json], holds: bool) -> None:
    assert StoredConfigMap(body()).holds(CONTENT) is holds


async def test_one_is_made_whole() -> None:
    client = Script(stored())
    await ConfigMapStore(client).create("ci", "machinebot-trust", CONTENT)  # type: ignore[arg-type]  # the verbs of it
    (call,) = client.calls
    assert call[:3] == ("create", CONFIG_MAPS, "ci")
    expected = stored()
    for field in ("uid", "resourceVersion"):
        del expected["metadata"][field]
    assert call[3] == {"apiVersion": "v1", "kind": "ConfigMap", **expected}


async def test_one_is_replaced_as_it_was_read_and_keeps_what_others_put_on_it() -> None:
    client = Script(stored())
    old = with_more()
    old["data"] = {}
    await ConfigMapStore(client).replace(StoredConfigMap(old), CONTENT)  # type: ignore[arg-type]  # the verbs of it
    (call,) = client.calls
    assert call[:4] == ("replace", CONFIG_MAPS, "ci", "machinebot-trust")
    body = call[4]
    assert (body["metadata"]["uid"], body["metadata"]["resourceVersion"]) == ("u", "7")
    assert (body["metadata"]["labels"]["team"], body["metadata"]["annotations"]["note"]) == ("a", "b")
    assert body["data"] == CONTENT.data
    assert body["metadata"]["ownerReferences"] == [OWNER.reference()]


async def test_what_is_not_there_is_none() -> None:
    assert await ConfigMapStore(Script(None)).read("ci", "x") is None  # type: ignore[arg-type]  # the verbs of it
