"""Somebody with `edit` in one namespace and nothing else: what the operator's great rights do not give away to them."""

import json
import re
import secrets as chance
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, KubectlError
from e2e.support.objects import (
    OURS,
    Json,
    as_list,
    bot,
    condition,
    content,
    create,
    get,
    give_edit,
    items,
    join_token,
    output,
    role,
    secret,
    wait_ready,
)
from support.waiting import eventually
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

LABEL = {"app.kubernetes.io/managed-by": "machinebot"}


@dataclass(frozen=True)
class Tenant:
    """A user with `edit` in one namespace, who may give one role, and the namespace of somebody else.

    Attributes:
        cluster: The control plane.
        user: Name of the user.
        namespace: Where the user has `edit`.
        role: The role that the user may give bots, for this namespace only.
        other: Another tenant's namespace, with a bot `victim` of the role `others` and its output `victim`.
        others: A role for the other namespace only.
    """

    cluster: ControlPlane
    user: str
    namespace: str
    role: str
    other: str
    others: str

    def kubectl(self, *arguments: str, content: Any = None) -> str:
        return self.cluster.kubectl(*arguments, user=self.user, input=None if content is None else json.dumps(content))

    def create(self, *objects: Json) -> None:
        self.cluster.kubectl("create", "--filename=-", user=self.user, input=as_list(objects))

    def refused(self, *arguments: str, content: Any = None) -> str:
        with pytest.raises(KubectlError) as caught:
            self.kubectl(*arguments, content=content)
        return str(caught.value)

    def refused_to_create(self, thing: Json) -> str:
        return self.refused("create", "--filename=-", content=thing)

    def told(self, kind: str, name: str, reason: str) -> str:
        """The message of Ready=False once it has this reason."""

        def look() -> str:
            found = condition(get(self.cluster, kind, self.namespace, name))
            assert found["status"] != "True", "it must never become Ready"
            return str(found["message"]) if found["reason"] == reason else ""

        return eventually(f"{kind} {name} is {reason}", look)


@pytest.fixture(scope="module")
def tenant(plane: ControlPlane, operator: OperatorProcess) -> Iterator[Tenant]:
    assert operator.running
    token = chance.token_hex(3)
    mine = Tenant(plane, f"jane-{token}", f"mine-{token}", f"mine-{token}", f"other-{token}", f"others-{token}")
    for namespace in (mine.namespace, mine.other):
        plane.kubectl("create", "namespace", namespace)
    create(plane, role(mine.role, [mine.namespace]), role(mine.others, [mine.other]))
    give_edit(plane, mine.user, mine.namespace, mine.role)
    create(plane, bot(mine.other, "victim", mine.others), output(mine.other, "victim", "victim"))
    wait_ready(plane, mine.other)
    eventually("the user's rights and the policy are in force", lambda: _in_force(mine))
    good = (bot, output, join_token)
    mine.create(*(make(mine.namespace, "good", mine.role if make is bot else "good") for make in good))
    wait_ready(plane, mine.namespace, "machineoutput/good", "machinejointoken/good")
    yield mine
    for namespace in (mine.namespace, mine.other):
        plane.kubectl("delete", "namespace", namespace, "--wait=false")


def _in_force(tenant: Tenant) -> bool:
    """The user may give one role and not the other."""
    allowed, refused = (bot(tenant.namespace, "probe", name) for name in (tenant.role, tenant.others))
    try:
        tenant.kubectl("create", "--dry-run=server", "--filename=-", content=allowed)
        tenant.kubectl("create", "--dry-run=server", "--filename=-", content=refused)
    except KubectlError as error:
        return f"may not give a bot the role {tenant.others}" in str(error)
    return False


# --- roles ----------------------------------------------------------------------------------------------------------


def test_a_role_without_the_right_to_give_it_is_refused_by_name(tenant: Tenant):
    reason = tenant.refused_to_create(bot(tenant.namespace, "greedy", tenant.others))
    assert f"{tenant.user} may not give a bot the role {tenant.others}" in reason
    assert "impersonate" in reason
    patch = json.dumps({"spec": {"roles": [tenant.role, tenant.others]}})
    reason = tenant.refused("patch", "machinebot", "good", "--type=merge", f"--patch={patch}", f"--namespace={tenant.namespace}")
    assert tenant.others in reason


def test_a_role_for_other_namespaces_is_refused_by_the_authority_even_where_somebody_may_give_it(tenant: Tenant):
    create(tenant.cluster, bot(tenant.namespace, "given", tenant.others))  # by an administrator's mistake
    tenant.create(output(tenant.namespace, "given", "given"))
    for kind in ("machinebot", "machineoutput"):
        message = tenant.told(kind, "given", "RoleNotForNamespace")
        assert tenant.others in message
        assert tenant.namespace in message
    assert _is_missing(tenant, "secret", "given")


def test_an_output_takes_no_role_that_its_bot_has_not(tenant: Tenant):
    tenant.create(output(tenant.namespace, "more", "good", roles=[tenant.others]))
    assert tenant.others in tenant.told("machineoutput", "more", "RoleNotOfBot")
    assert _is_missing(tenant, "secret", "more")


def _is_missing(tenant: Tenant, kind: str, name: str) -> bool:
    return tenant.cluster.kubectl("get", kind, name, f"--namespace={tenant.namespace}", "--ignore-not-found") == ""


# --- other namespaces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        pytest.param("spec.bot", {"bot": "{other}/victim"}, id="bot with a namespace"),
        pytest.param("spec.bot", {"bot": "../{other}/victim"}, id="bot with a path"),
        pytest.param("spec.bot", {"bot": "victim.{other}:x"}, id="bot with a colon"),
        pytest.param("spec.secret.name", {"secret": {"name": "{other}/victim"}}, id="Secret with a namespace"),
        pytest.param("spec.secret.name", {"secret": {"name": "../../{other}/secrets/victim"}}, id="Secret with a path"),
        pytest.param("spec.secret.name", {"secret": {"name": "victim?namespace={other}"}}, id="Secret with a query"),
        pytest.param("spec.secret.name", {"secret": {"name": ".."}}, id="Secret that is a path"),
        pytest.param("namespace", {"secret": {"name": "a", "namespace": "{other}"}}, id="namespace of the Secret"),
        pytest.param("type", {"secret": {"type": "kubernetes.io/service-account-token"}}, id="type of the Secret"),
        pytest.param("botNamespace", {"botNamespace": "{other}"}, id="namespace of the bot"),
    ],
)
def test_an_output_that_reaches_out_of_its_namespace_is_refused_by_the_schema(tenant: Tenant, field: str, spec: Json):
    spec = json.loads(json.dumps(spec).replace("{other}", tenant.other))
    reason = tenant.refused_to_create(output(tenant.namespace, "reach", "good", **spec))
    assert field in reason


def test_a_bot_of_another_namespace_is_not_found(tenant: Tenant):
    tenant.create(output(tenant.namespace, "victim", "victim"))
    assert "there is no MachineBot 'victim' in the namespace" in tenant.told("machineoutput", "victim", "BotMissing")
    assert _is_missing(tenant, "secret", "victim")


def test_a_join_token_lets_nobody_in_as_a_bot_of_another_namespace(tenant: Tenant):
    name = f"reaching-{chance.token_hex(3)}"
    tenant.create(join_token(tenant.namespace, name, "victim"))
    assert f"no MachineBot 'victim' in the namespace '{tenant.namespace}'" in tenant.told("machinejointoken", name, "BotMissing")
    assert "must be the name of an object" in tenant.refused_to_create(
        join_token(tenant.namespace, name, f"{tenant.other}/victim")
    )
    assert "forbidden" in tenant.refused_to_create(join_token(tenant.other, name, "victim"))
    assert "forbidden" in tenant.refused("get", "machinejointokens", f"--namespace={tenant.other}")


def test_who_has_used_a_secret_up_is_not_made_up_by_a_tenant(tenant: Tenant):
    name = f"made-up-{chance.token_hex(3)}"
    thing = join_token(tenant.namespace, name, "good", expires="2099-01-01T00:00:00Z", token={"secretHash": f"sha256:{'0' * 64}"})
    times = dict.fromkeys(["joinedAt", "renewedAt", "expiresAt"], "2099-01-01T00:00:00Z")
    instance = {"id": "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11", "generation": 1, "key": "0" * 64, **times}
    tenant.create(thing | {"status": {"instance": instance}})
    eventually(
        "it accepts", lambda: condition(get(tenant.cluster, "machinejointoken", tenant.namespace, name))["reason"] == "Accepting"
    )
    assert "instance" not in get(tenant.cluster, "machinejointoken", tenant.namespace, name)["status"]


@pytest.mark.parametrize("name", ["{other}/machinebot-victim", "../{other}/machinebot-victim", "system:serviceaccount:{other}:x"])
def test_a_service_account_of_another_namespace_cannot_be_named(tenant: Tenant, name: str):
    thing = bot(tenant.namespace, "reach", tenant.role, serviceAccountName=name.replace("{other}", tenant.other))
    assert "spec.serviceAccountName" in tenant.refused_to_create(thing)


def test_a_service_account_that_is_only_in_another_namespace_is_not_found(tenant: Tenant):
    tenant.create(bot(tenant.namespace, "borrower", tenant.role, serviceAccountName="machinebot-victim"))
    assert "there is no ServiceAccount 'machinebot-victim'" in tenant.told("machinebot", "borrower", "ServiceAccountMissing")


def test_another_namespaces_objects_cannot_be_read_or_written(tenant: Tenant):
    for kind in ("secrets", "machinebots", "machineoutputs"):
        assert "forbidden" in tenant.refused("get", kind, f"--namespace={tenant.other}")
    assert "forbidden" in tenant.refused_to_create(output(tenant.other, "mine", "victim"))
    annotate = ("annotate", "machineoutput", "victim", "machinebot.dev/renew=1", f"--namespace={tenant.other}")
    assert "forbidden" in tenant.refused(*annotate)


def test_two_tenants_with_the_same_names_get_different_credentials(tenant: Tenant):
    create(tenant.cluster, bot(tenant.other, "good", tenant.others), output(tenant.other, "good", "good"))
    wait_ready(tenant.cluster, tenant.other, "machineoutput/good")
    mine, theirs = (content(get(tenant.cluster, "secret", place, "good")) for place in (tenant.namespace, tenant.other))
    assert mine["key"] != theirs["key"]
    status = [get(tenant.cluster, "machineoutput", place, "good")["status"] for place in (tenant.namespace, tenant.other)]
    assert [each["granted"]["roles"] for each in status] == [[tenant.role], [tenant.others]]


# --- Secrets of others ----------------------------------------------------------------------------------------------


def forged(tenant: Tenant, name: str, *, controller: bool) -> dict[str, Any]:
    uid = get(tenant.cluster, "machineoutput", tenant.namespace, name)["metadata"]["uid"]
    owner = {"apiVersion": "machinebot.dev/v1alpha1", "kind": "MachineOutput", "name": name, "uid": uid}
    return {"ownerReferences": [owner | {"controller": controller}]}


def check_untouched(tenant: Tenant, before: Json) -> None:
    """The output is refused, and goes on being refused when it is looked at again; the Secret is as it was."""
    name = before["metadata"]["name"]
    told = tenant.told("machineoutput", name, "SecretConflict")
    assert name in told
    tenant.kubectl("label", "machineoutput", name, "look=again", f"--namespace={tenant.namespace}")
    tenant.kubectl("annotate", "machineoutput", name, "machinebot.dev/renew=1", f"--namespace={tenant.namespace}")
    patch = '--patch={"spec":{"credentialTTL":"1h"}}'
    tenant.kubectl("patch", "machineoutput", name, "--type=merge", patch, f"--namespace={tenant.namespace}")

    def looked() -> bool:
        found = get(tenant.cluster, "machineoutput", tenant.namespace, name)
        return bool(condition(found)["observedGeneration"] == found["metadata"]["generation"])

    eventually("the change was looked at", looked)
    tenant.told("machineoutput", name, "SecretConflict")
    after = get(tenant.cluster, "secret", tenant.namespace, name)
    assert after["data"] == before["data"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="plain"),
        pytest.param({"app.kubernetes.io/managed-by": "Helm"}, id="of a chart"),
        pytest.param(LABEL, id="with our label by hand"),
        pytest.param({**LABEL, "machinebot.dev/output-uid": "0000"}, id="with all our labels by hand"),
    ],
)
def test_a_secret_that_was_there_before_is_never_overwritten(tenant: Tenant, labels: dict[str, str]):
    name = f"taken-{chance.token_hex(3)}"
    create(tenant.cluster, secret(tenant.namespace, name, {"password": b"valuable"}, labels=labels))
    before = get(tenant.cluster, "secret", tenant.namespace, name)
    tenant.create(output(tenant.namespace, name, "good"))
    check_untouched(tenant, before)


@pytest.mark.parametrize(
    ("labels", "controller"),
    [
        pytest.param({}, True, id="controller, without our label"),
        pytest.param(LABEL, False, id="with our label, no controller"),
    ],
)
def test_a_secret_with_a_forged_owner_is_never_overwritten(tenant: Tenant, labels: dict[str, str], controller: bool):
    """The output is there first, refused for its bot; then the Secret that says it belongs to it; then the bot."""
    name = f"forged-{chance.token_hex(3)}"
    tenant.create(output(tenant.namespace, name, name))
    tenant.told("machineoutput", name, "BotMissing")
    owner = forged(tenant, name, controller=controller)
    tenant.create(secret(tenant.namespace, name, {"password": b"valuable"}, labels=labels, **owner))
    before = get(tenant.cluster, "secret", tenant.namespace, name)
    tenant.create(bot(tenant.namespace, name, tenant.role))
    check_untouched(tenant, before)


def test_the_secret_of_another_output_is_never_taken_over(tenant: Tenant):
    """By name: two outputs want the same Secret, and the second one gets nothing."""
    before = get(tenant.cluster, "secret", tenant.namespace, "good")
    name = f"second-{chance.token_hex(3)}"
    tenant.create(output(tenant.namespace, name, "good", secret={"name": "good"}))
    assert "'good' belongs to another output" in tenant.told("machineoutput", name, "SecretConflict")
    tenant.kubectl("delete", "machineoutput", name, f"--namespace={tenant.namespace}")
    assert get(tenant.cluster, "secret", tenant.namespace, "good") == before


def test_no_token_of_a_service_account_comes_out_of_an_output(tenant: Tenant):
    """The type is fixed and the annotation that asks for a token does nothing in an Opaque Secret."""
    name = f"token-{chance.token_hex(3)}"
    wish = {"annotations": {"kubernetes.io/service-account.name": "default"}}
    tenant.create(output(tenant.namespace, name, "good", secret=wish))
    wait_ready(tenant.cluster, tenant.namespace, f"machineoutput/{name}")
    made = get(tenant.cluster, "secret", tenant.namespace, name)
    assert made["type"] == "Opaque"
    assert "token" not in made["data"]
    eventually("the token controller had its chance", lambda: _token_of(tenant, "probe"))
    assert "token" not in get(tenant.cluster, "secret", tenant.namespace, name)["data"]


def _token_of(tenant: Tenant, name: str) -> str:
    """A Secret of that type that an administrator makes does get a token: the controller is at work."""
    thing = secret(tenant.namespace, name, {}, annotations={"kubernetes.io/service-account.name": "default"})
    tenant.cluster.kubectl("apply", "--filename=-", input=json.dumps(thing | {"type": "kubernetes.io/service-account-token"}))
    return str(get(tenant.cluster, "secret", tenant.namespace, name).get("data", {}).get("token", ""))


def test_a_service_account_token_with_our_label_and_a_forged_owner_stays_what_it_is(tenant: Tenant):
    """To the operator it is the output's own Secret, damaged; but the type of a Secret never changes."""
    name = f"account-{chance.token_hex(3)}"
    tenant.create(output(tenant.namespace, name, "good", roles=[tenant.others]))
    tenant.told("machineoutput", name, "RoleNotOfBot")
    eventually("the token controller knows the account", lambda: _token_of(tenant, "probe"))  # else it deletes the Secret
    metadata = {"labels": LABEL, **forged(tenant, name, controller=True)}
    thing = secret(tenant.namespace, name, {}, annotations={"kubernetes.io/service-account.name": "default"}, **metadata)
    tenant.create(thing | {"type": "kubernetes.io/service-account-token"})
    before = eventually("it has a token", lambda: _with_token(tenant, name))
    patch = '--patch={"spec":{"roles":null}}'
    tenant.kubectl("patch", "machineoutput", name, "--type=merge", patch, f"--namespace={tenant.namespace}")
    assert "immutable" in tenant.told("machineoutput", name, "RefusedByApiServer")
    assert get(tenant.cluster, "secret", tenant.namespace, name)["data"] == before["data"]


def _with_token(tenant: Tenant, name: str) -> Json | None:
    found = get(tenant.cluster, "secret", tenant.namespace, name)
    return found if "token" in found.get("data", {}) else None


# --- what belongs to administrators ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["machineroles", "machineauthorities", "machinelocks"])
def test_roles_authorities_and_locks_are_neither_read_nor_written(tenant: Tenant, kind: str):
    assert "forbidden" in tenant.refused("get", kind)
    name = tenant.role if kind == "machineroles" else "default"
    assert "forbidden" in tenant.refused("delete", kind, name)
    patch = json.dumps({"spec": {}})
    assert "forbidden" in tenant.refused("patch", kind, name, "--type=merge", f"--patch={patch}")
    thing = {"apiVersion": "machinebot.dev/v1alpha1", "metadata": {"name": "mine"}, "spec": {}}
    kinds = {"machineroles": "MachineRole", "machineauthorities": "MachineAuthority", "machinelocks": "MachineLock"}
    assert "forbidden" in tenant.refused("create", "--validate=false", "--filename=-", content=thing | {"kind": kinds[kind]})


@pytest.mark.parametrize("kind", ["machinebot", "machineoutput", "machinejointoken"])
def test_status_is_the_operators(tenant: Tenant, kind: str):
    patch = json.dumps({"status": {"observedGeneration": 99}})
    where = (f"--patch={patch}", f"--namespace={tenant.namespace}", "--type=merge")
    assert f"{kind}s/status" in tenant.refused("patch", kind, "good", *where, "--subresource=status")
    tenant.kubectl("patch", kind, "good", *where)  # taken, and status left out of it
    assert get(tenant.cluster, kind, tenant.namespace, "good")["status"]["observedGeneration"] != 99


def test_a_status_that_a_tenant_makes_up_at_the_creation_is_not_kept(tenant: Tenant):
    name = f"made-up-{chance.token_hex(3)}"
    thing = output(tenant.namespace, name, name)
    ready = {"type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    thing["status"] = {"conditions": [ready], "secret": {"name": "good", "resourceVersion": "1", "digest": "0"}}
    tenant.create(thing)
    tenant.told("machineoutput", name, "BotMissing")
    assert "secret" not in get(tenant.cluster, "machineoutput", tenant.namespace, name)["status"]


def test_the_authoritys_keys_and_the_operators_namespace_are_out_of_reach(tenant: Tenant, operator: OperatorProcess):
    namespace = next(re.findall("--namespace=(.*)", word)[0] for word in operator.command if word.startswith("--namespace="))
    keys = items(tenant.cluster, "secrets", namespace, f"--selector={OURS}")
    assert keys
    assert "forbidden" in tenant.refused("get", "secrets", f"--namespace={namespace}")
    token = ("create", "token", "machinebot", f"--namespace={namespace}")
    assert "forbidden" in tenant.refused(*token)
