"""The join method azure: document, token and Resource Manager must speak of one machine, now, for us, and a rule must let it in."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from machinebot.errors import Denied, MachinebotError, Unavailable
from machinebot.joins import jwts
from machinebot.joins.base import Asked, HTTPSAnswer, Proved
from machinebot.joins.methods import azure as method
from support.azure import (
    AUDIENCE,
    ISSUER,
    NOW,
    PLACE,
    SIGNER,
    SUBSCRIPTION,
    TENANT,
    VM,
    VM_ID,
    Azure,
    as_azure_writes,
    document,
    issue,
    new_key,
    signed,
)

CHALLENGE = "Nn7qT1lq0s5oX3b0Yk4v9fB2eW8rJ6uA"
OTHER = "11111111-2222-3333-4444-555555555555"
RULE: Mapping[str, Any] = {"subscriptionID": SUBSCRIPTION, "resourceGroups": ["ci-runners"]}
KEY, BETWEEN_KEY, SIGNER_KEY, OTHER_KEY = (new_key() for _ in range(4))
ROOT = issue("Made Up Global Root", is_ca=True)


@pytest.fixture
def azure() -> Azure:
    """Keys are dear to make, and these never change."""
    return Azure(root=ROOT, key=KEY, between_key=BETWEEN_KEY, signer_key=SIGNER_KEY)


def settings_of(azure: Azure, *rules: Mapping[str, Any], **changes: Any) -> method.AzureSettings:
    return method.AzureSettings.model_validate(
        {"tenantID": TENANT, "rootCertificates": azure.root.pem, "allow": rules or [RULE], **changes}
    )


async def join(
    azure: Azure,
    *rules: Mapping[str, Any],
    message: bytes | None = None,
    token: str | None = None,
    challenge: str | None = CHALLENGE,
    **changes: Any,
) -> Proved:
    message = as_azure_writes(signed(document(CHALLENGE), azure.signer)) if message is None else message
    proof = method.AzureProof(
        attested_data=SecretStr(base64.b64encode(message).decode()), access_token=SecretStr(token or azure.token())
    )
    asked = Asked(cluster_name="example.test", challenge=challenge, now=NOW)
    return await method.verify(settings_of(azure, *rules, **changes), proof, asked, azure)


async def refused(azure: Azure, *rules: Mapping[str, Any], kind: type[MachinebotError] = Denied, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        await join(azure, *rules, **options)
    assert azure.token() not in str(caught.value)
    return caught.value.reason


async def test_machine_is_found_and_let_in(azure: Azure) -> None:
    proved = await join(azure)
    assert proved.subject == VM
    assert proved.attributes == {
        "tenantID": TENANT,
        "subscriptionID": SUBSCRIPTION,
        "resourceGroup": "CI-Runners",
        "vmName": "runner-1",
        "vmID": VM_ID,
    }
    issuer, machine = azure.sent
    assert (issuer.method, f"http://{issuer.host}{issuer.path}", issuer.headers) == ("GET", PLACE, {})
    assert (machine.method, machine.host) == ("GET", "management.azure.com")
    assert machine.path == f"{VM}?api-version=2024-07-01"
    assert machine.headers["Authorization"] == f"Bearer {azure.token()}"


async def test_ids_in_capital_letters_are_the_same(azure: Azure) -> None:
    message = signed(document(CHALLENGE, vmId=VM_ID.upper(), subscriptionId=SUBSCRIPTION.upper()), azure.signer)
    path = VM.replace(SUBSCRIPTION, SUBSCRIPTION.upper()).replace("resourcegroups", "resourceGroups")
    azure.knows(path, VM_ID.upper())
    proved = await join(azure, {**RULE, "vmID": VM_ID}, message=message, token=azure.token(xms_mirid=path))
    assert proved.attributes["subscriptionID"] == SUBSCRIPTION
    assert proved.attributes["vmID"] == VM_ID


# --- certificates between signer and root -----------------------------------------------------------------------------------


async def test_certificate_between_is_not_fetched_where_it_is_there(azure: Azure) -> None:
    message = signed(document(CHALLENGE), azure.signer, others=(azure.intermediate,))
    await join(azure, message=message)
    await join(azure, intermediateCertificates=azure.intermediate.pem)
    direct = issue(SIGNER, azure.root, names=(SIGNER,), key=azure.signer.key, place=PLACE)
    await join(azure, message=signed(document(CHALLENGE), direct))
    assert {request.host for request in azure.sent} == {"management.azure.com"}


PLACES = {
    "another host": "http://example.test/pkiops/certs/x.crt",
    "userinfo": "http://www.microsoft.com@example.test/pkiops/certs/x.crt",
    "a longer host": "http://www.microsoft.com.example.test/pkiops/certs/x.crt",
    "a port": "http://www.microsoft.com:8080/pkiops/certs/x.crt",
    "HTTPS": "https://www.microsoft.com/pkiops/certs/x.crt",
    "a query": "http://www.microsoft.com/pkiops/certs/x.crt?y",
    "up": "http://www.microsoft.com/pkiops/../x.crt",
    "no certificate": "http://www.microsoft.com/pkiops/certs/x.html",
    "a file": "file:///etc/passwd",
    "loopback": "http://127.0.0.1/x.crt",
    "metadata": "http://169.254.169.254/metadata/x.crt",
}


@pytest.mark.parametrize(
    "place", [*(pytest.param(each, id=name) for name, each in PLACES.items()), pytest.param(None, id="none")]
)
async def test_certificate_is_fetched_from_known_places_alone(azure: Azure, place: str | None) -> None:
    signer = issue(SIGNER, azure.intermediate, names=(SIGNER,), key=azure.signer.key, place=place)
    assert await refused(azure, message=signed(document(CHALLENGE), signer)) == "SignerNotTrusted"
    assert azure.sent == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HTTPSAnswer(404, b""), id="not found"),
        pytest.param(HTTPSAnswer(302, ROOT.der), id="a redirect"),
        pytest.param(HTTPSAnswer(200, b"<html>"), id="no certificate"),
        pytest.param(HTTPSAnswer(200, ROOT.pem.encode()), id="PEM"),
    ],
)
async def test_certificate_that_is_not_given(azure: Azure, answer: HTTPSAnswer) -> None:
    azure.answer = answer
    assert await refused(azure, kind=Unavailable) == "AzureUnavailable"


async def test_certificate_that_is_fetched_is_believed_no_more_than_its_chain(azure: Azure) -> None:
    azure.answer = HTTPSAnswer(200, issue("Made Up TLS Issuing CA 01", is_ca=True, key=azure.intermediate.key).der)
    assert await refused(azure) == "SignerNotTrusted"


# --- the document ---------------------------------------------------------------------------------------------------------


async def test_another_root(azure: Azure) -> None:
    other = Azure(key=KEY)
    message = signed(document(CHALLENGE), other.signer, others=(other.intermediate, other.root))
    assert await refused(azure, message=message) == "SignerNotTrusted"


async def test_name_of_another_cloud(azure: Azure) -> None:
    signer = issue("metadata.azure.us", azure.intermediate, names=("metadata.azure.us",), key=azure.signer.key)
    message = signed(document(CHALLENGE), signer, others=(azure.intermediate,))
    assert await refused(azure, message=message) == "SignerNotTrusted"


DOCUMENTS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "another nonce": ({"nonce": "A" * 32}, "WrongChallenge"),
    "a nonce in other letters": ({"nonce": CHALLENGE.lower()}, "WrongChallenge"),
    "an empty nonce": ({"nonce": ""}, "WrongChallenge"),
    "a nonce of other letters than ASCII": ({"nonce": "é" * 32}, "WrongChallenge"),
    "no nonce": ({"nonce": ...}, "AttestedDataUnreadable"),
    "a nonce that is a number": ({"nonce": 1}, "AttestedDataUnreadable"),
    "no machine": ({"vmId": ...}, "AttestedDataUnreadable"),
    "an empty machine": ({"vmId": ""}, "AttestedDataUnreadable"),
    "a machine that is a path": ({"vmId": "../x"}, "AttestedDataUnreadable"),
    "no subscription": ({"subscriptionId": ...}, "AttestedDataUnreadable"),
    "no dates": ({"timeStamp": ...}, "AttestedDataUnreadable"),
    "no end": ({"timeStamp": {"createdOn": "11/30/26 11:59:00 -0000"}}, "AttestedDataUnreadable"),
    "an end in another form": (
        {"timeStamp": {"createdOn": "11/30/26 11:59:00 -0000", "expiresOn": "2026-11-30T17:59:00Z"}},
        "AttestedDataUnreadable",
    ),
    "an end that is a number": (
        {"timeStamp": {"createdOn": "11/30/26 11:59:00 -0000", "expiresOn": 1796061540}},
        "AttestedDataUnreadable",
    ),
    "ended": (
        {"timeStamp": {"createdOn": "11/30/26 05:59:00 -0000", "expiresOn": "11/30/26 11:59:00 -0000"}},
        "AttestedDataExpired",
    ),
    "of the future": (
        {"timeStamp": {"createdOn": "11/30/26 12:01:00 -0000", "expiresOn": "11/30/26 18:01:00 -0000"}},
        "AttestedDataExpired",
    ),
    "another subscription": ({"subscriptionId": OTHER}, "WrongSubscription"),
    "another machine": ({"vmId": OTHER}, "WrongMachine"),
}


@pytest.mark.parametrize(("changes", "reason"), [pytest.param(*row, id=name) for name, row in DOCUMENTS.items()])
async def test_document(azure: Azure, changes: Mapping[str, Any], reason: str) -> None:
    message = signed(document(CHALLENGE, **changes), azure.signer, others=(azure.intermediate,))
    assert await refused(azure, message=message) == reason


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a list"),
        pytest.param(document(CHALLENGE)[:-1] + b', "nonce": "x"}', id="a key twice"),
        pytest.param(document(CHALLENGE) + b"{}", id="two documents"),
        pytest.param(document(CHALLENGE).decode().encode("utf-16"), id="not UTF-8"),
        pytest.param(document("\\ud800").replace(b"\\\\", b"\\"), id="half a character"),
    ],
)
async def test_content_that_is_no_document(azure: Azure, content: bytes) -> None:
    message = signed(content, azure.signer, others=(azure.intermediate,))
    assert await refused(azure, message=message) == "AttestedDataUnreadable"


async def test_without_a_challenge_nothing_is_good(azure: Azure) -> None:
    assert await refused(azure, challenge=None) == "WrongChallenge"


async def test_content_that_was_changed_after_signing(azure: Azure) -> None:
    message = signed(document(CHALLENGE, vmId=OTHER), azure.signer, others=(azure.intermediate,))
    assert await refused(azure, message=message.replace(OTHER.encode(), VM_ID.encode())) == "SignatureInvalid"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("%%%", id="no base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param("YQ", id="no padding"),
        pytest.param("", id="empty"),
        pytest.param("A" * 100_000, id="too long"),
    ],
)
async def test_attested_data_is_base64_of_a_message(azure: Azure, text: str) -> None:
    proof = method.AzureProof(attested_data=SecretStr(text), access_token=SecretStr(azure.token()))
    with pytest.raises(Denied) as caught:
        await method.verify(settings_of(azure), proof, Asked(cluster_name="example.test", challenge=CHALLENGE, now=NOW), azure)
    assert caught.value.reason == "MessageUnreadable"


# --- the token ------------------------------------------------------------------------------------------------------------

LATER = int(NOW.timestamp())
TOKENS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "of another tenant": ({"iss": f"https://sts.windows.net/{OTHER}/", "tid": OTHER}, "WrongIssuer"),
    "without the last slash": ({"iss": ISSUER.rstrip("/")}, "WrongIssuer"),
    "of another host": ({"iss": f"https://login.example.test/{TENANT}/"}, "WrongIssuer"),
    "without issuer": ({"iss": ...}, "WrongIssuer"),
    "for another audience": ({"aud": "https://vault.azure.net"}, "WrongAudience"),
    "for this cluster": ({"aud": "example.test"}, "WrongAudience"),
    "for the manager of another cloud": ({"aud": "https://management.usgovcloudapi.net/"}, "WrongAudience"),
    "without audience": ({"aud": ...}, "WrongAudience"),
    "expired": ({"exp": LATER - 60}, "TokenExpired"),
    "not yet valid": ({"nbf": LATER + 60}, "TokenNotYetValid"),
    "without end": ({"exp": ...}, "TokenUnreadable"),
    "signed by another": ({"key": OTHER_KEY}, "SignatureInvalid"),
    "of no resource": ({"xms_mirid": ...}, "NotAMachine"),
    "of an identity that is not the machine's own": (
        {
            "xms_mirid": f"/subscriptions/{SUBSCRIPTION}/resourcegroups/ci/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"
        },
        "NotAMachine",
    ),
    "of a web site": ({"xms_mirid": VM.replace("Compute/virtualMachines", "Web/sites")}, "NotAMachine"),
    "of a whole scale set": ({"xms_mirid": VM.replace("virtualMachines", "virtualMachineScaleSets")}, "NotAMachine"),
    "of an extension": ({"xms_mirid": f"{VM}/extensions/x"}, "NotAMachine"),
    "of a path that goes up": ({"xms_mirid": VM.replace("runner-1", "..")}, "NotAMachine"),
    "of a group that goes up": ({"xms_mirid": VM.replace("CI-Runners", "..")}, "NotAMachine"),
    "with a query": ({"xms_mirid": f"{VM}?x=y"}, "NotAMachine"),
    "with a newline": ({"xms_mirid": f"{VM}\n"}, "NotAMachine"),
    "with percent": ({"xms_mirid": VM.replace("runner-1", "runner%2f1")}, "NotAMachine"),
    "with a list": ({"xms_mirid": [VM]}, "NotAMachine"),
    "that runs somewhere else than its identity": ({"xms_az_rid": VM.replace("Compute/virtualMachines", "Web/sites")}, "NotAMachine"),
    "of another subscription": ({"xms_mirid": VM.replace(SUBSCRIPTION, OTHER)}, "WrongSubscription"),
    "of a machine that is gone": ({"xms_mirid": VM.replace("runner-1", "runner-9")}, "MachineNotReadable"),
    "of another machine": ({"xms_mirid": VM.replace("runner-1", "runner-2")}, "WrongMachine"),
    "that runs on another machine": ({"xms_az_rid": VM.replace("runner-1", "runner-2")}, "WrongMachine"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), [pytest.param(*row, id=name) for name, row in TOKENS.items()])
async def test_token(azure: Azure, changes: Mapping[str, Any], reason: str) -> None:
    azure.knows(VM.replace("runner-1", "runner-2"), OTHER)
    assert await refused(azure, token=azure.token(**changes)) == reason


async def test_token_that_is_none(azure: Azure) -> None:
    unsigned = ".".join(
        part.rstrip("=")
        for part in (
            base64.urlsafe_b64encode(b'{"alg":"none","kid":"azure-1"}').decode(),
            base64.urlsafe_b64encode(json.dumps({"iss": ISSUER, "aud": AUDIENCE, "xms_mirid": VM}).encode()).decode(),
            "",
        )
    )
    assert await refused(azure, token=unsigned) == "AlgorithmNotTaken"
    assert await refused(azure, token="x") == "TokenUnreadable"
    assert await refused(azure, token="x" * (jwts.MAX_TOKEN + 1)) == "TokenUnreadable"


async def test_identity_that_several_machines_share_is_told_apart_by_where_it_runs(azure: Azure) -> None:
    shared = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/ci/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"
    assert (await join(azure, token=azure.token(xms_mirid=shared, xms_az_rid=VM))).subject == VM


async def test_machine_of_a_scale_set(azure: Azure) -> None:
    path = VM.replace("virtualMachines/runner-1", "virtualMachineScaleSets/runners/virtualMachines/3")
    azure.knows(path, VM_ID)
    proved = await join(azure, {**RULE, "vmName": "runners/*"}, token=azure.token(xms_mirid=path))
    assert proved.attributes["vmName"] == "runners/3"


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param(HTTPSAnswer(403, b"{}"), Denied, "MachineNotReadable", id="no right"),
        pytest.param(HTTPSAnswer(401, b""), Denied, "MachineNotReadable", id="token not taken"),
        pytest.param(HTTPSAnswer(429, b"{}"), Unavailable, "AzureUnavailable", id="too many requests"),
        pytest.param(HTTPSAnswer(503, b""), Unavailable, "AzureUnavailable", id="away"),
        pytest.param(HTTPSAnswer(302, b""), Unavailable, "AzureUnavailable", id="a redirect"),
        pytest.param(HTTPSAnswer(200, b"<html>"), Unavailable, "AzureUnavailable", id="no JSON"),
        pytest.param(HTTPSAnswer(200, b"{}"), Unavailable, "AzureUnavailable", id="no properties"),
        pytest.param(HTTPSAnswer(200, b'{"properties": {"vmId": 1}}'), Unavailable, "AzureUnavailable", id="an id that is none"),
        pytest.param(
            HTTPSAnswer(200, b'{"properties": {"vmId": "x", "vmId": "y"}}'), Unavailable, "AzureUnavailable", id="a key twice"
        ),
    ],
)
async def test_resource_manager(azure: Azure, answer: HTTPSAnswer, kind: type[MachinebotError], reason: str) -> None:
    azure.answer = answer
    assert await refused(azure, kind=kind, intermediateCertificates=azure.intermediate.pem) == reason


# --- other clouds ---------------------------------------------------------------------------------------------------------


async def test_china(azure: Azure) -> None:
    signer = issue("metadata.azure.cn", azure.root, names=("metadata.azure.cn",), key=azure.signer.key)
    token = azure.token(iss=f"https://sts.chinacloudapi.cn/{TENANT}/", aud="https://management.chinacloudapi.cn/")
    await join(azure, message=signed(document(CHALLENGE), signer), token=token, cloud="china")
    assert azure.sent[-1].host == "management.chinacloudapi.cn"


def test_audience_is_that_of_the_clouds_resource_manager(azure: Azure) -> None:
    audiences = {
        cloud: method.METHOD.audience(settings_of(azure, cloud=cloud), "example.test")
        for cloud in ("public", "usGovernment", "china")
    }
    assert audiences == {
        "public": "https://management.azure.com/",
        "usGovernment": "https://management.usgovcloudapi.net/",
        "china": "https://management.chinacloudapi.cn/",
    }
    assert method.METHOD.challenge


# --- the rules ------------------------------------------------------------------------------------------------------------

RULES: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "the subscription": ({"subscriptionID": SUBSCRIPTION}, True),
    "another subscription": ({"subscriptionID": OTHER}, False),
    "the group in other letters": ({**RULE, "resourceGroups": ["CI-RUNNERS"]}, True),
    "one of two groups": ({**RULE, "resourceGroups": ["other", "ci-runners"]}, True),
    "another group": ({**RULE, "resourceGroups": ["ci"]}, False),
    "groups are no globs": ({**RULE, "resourceGroups": ["ci-*"]}, False),
    "a group of another subscription": ({"subscriptionID": OTHER, "resourceGroups": ["ci-runners"]}, False),
    "the name": ({**RULE, "vmName": "Runner-1"}, True),
    "a pattern of names": ({**RULE, "vmName": "runner-?"}, True),
    "another name": ({**RULE, "vmName": "runner-2"}, False),
    "the machine": ({**RULE, "vmID": VM_ID}, True),
    "another machine": ({**RULE, "vmID": OTHER}, False),
}


@pytest.mark.parametrize(("rule", "good"), [pytest.param(*row, id=name) for name, row in RULES.items()])
async def test_rules(azure: Azure, rule: Mapping[str, Any], good: bool) -> None:
    if good:
        await join(azure, rule)
        await join(azure, {"subscriptionID": OTHER}, rule)
    else:
        assert await refused(azure, rule) == "RulesNotMatched"


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({}, id="empty"),
        pytest.param({"resourceGroups": ["ci"]}, id="no subscription"),
        pytest.param({"subscriptionID": ""}, id="an empty subscription"),
        pytest.param({"subscriptionID": "*"}, id="any subscription"),
        pytest.param({**RULE, "resourceGroups": []}, id="no groups"),
        pytest.param({**RULE, "resourceGroups": [""]}, id="an empty group"),
        pytest.param({**RULE, "vmName": "*"}, id="any name"),
        pytest.param({**RULE, "vmName": "*/*"}, id="any name of any scale set"),
        pytest.param({**RULE, "vmName": ""}, id="an empty name"),
        pytest.param({**RULE, "vmID": "*"}, id="any machine"),
    ],
)
def test_rule_that_restricts_nothing_is_refused(azure: Azure, rule: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(azure, rule)


LEAF = issue(SIGNER, ROOT, names=(SIGNER,), key=KEY)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"allow": []}, id="no rules"),
        pytest.param({"tenantID": "acme.example.test"}, id="a tenant's name"),
        pytest.param({"tenantID": "common"}, id="every tenant"),
        pytest.param({"cloud": "germany"}, id="a cloud that is no more"),
        pytest.param({"rootCertificates": ""}, id="no roots"),
        pytest.param({"rootCertificates": "DigiCert Global Root G2"}, id="a root's name"),
        pytest.param({"rootCertificates": ROOT.pem.replace("MII", "AII")}, id="a broken root"),
        pytest.param({"rootCertificates": ROOT.pem + LEAF.pem}, id="a root that is no authority"),
        pytest.param({"rootCertificates": ROOT.pem * (method.MAX_ROOTS + 1)}, id="too many roots"),
        pytest.param({"rootCertificates": ROOT.pem + "x" * method.MAX_PEM}, id="roots that are too long"),
        pytest.param({"intermediateCertificates": LEAF.pem}, id="a certificate between that is no authority"),
    ],
)
def test_settings_that_cannot_work_are_refused(azure: Azure, changes: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(azure, **changes)


def test_proof_shows_no_secret() -> None:
    proof = method.AzureProof(attested_data=SecretStr("hush-a"), access_token=SecretStr("hush-b"))
    assert "hush" not in repr(proof)
    with pytest.raises(ValidationError) as caught:
        method.AzureProof.model_validate({"attestedData": "hush", "accessToken": ["hush"]})
    assert "hush" not in str(caught.value)
