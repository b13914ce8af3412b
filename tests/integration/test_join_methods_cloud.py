"""Joins from AWS and Azure: the agent's proof, over real HTTP, to the authority's verdict, over real HTTPS.

AWS's Security Token Service is moto in a process of its own, which checks signatures; Azure's documents are signed by OpenSSL.
"""

import base64
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controlplane.ports import LOOPBACK
from machinebot.agent.proofs import azure as azure_proof
from machinebot.agent.proofs import iam as iam_proof
from machinebot.agent.proofs.base import Wanted
from machinebot.errors import Denied
from machinebot.issuers.fetching import Issuers
from machinebot.joins.base import Asked, Proved
from machinebot.joins.methods import azure, iam
from support.azure import AUDIENCE, PLACE, SIGNER, SUBSCRIPTION, TENANT, VM, VM_ID, Issued, issue
from support.clouds import AWS_HOSTS, AZURE_HOSTS, Cloud, environment_of, serving_aws, today, written
from support.local_http import serve
from workbench.moto import ACCOUNT, MotoServer

CHALLENGE = "Nn7qT1lq0s5oX3b0Yk4v9fB2eW8rJ6uA"


@pytest.fixture(scope="module")
def web() -> Issued:
    """The authority of the servers' own certificates."""
    return issue("Web Root", is_ca=True, **today())


@pytest.fixture(scope="module")
def context(web: Issued) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=web.pem)


async def no_review(token: str, audience: str) -> Mapping[str, Any]:
    raise AssertionError(token, audience)


def asked(challenge: str = CHALLENGE) -> Asked:
    return Asked(cluster_name="example.test", challenge=challenge, now=datetime.now(UTC).replace(microsecond=0))


# --- AWS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(web: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MotoServer, dict[str, dict[str, str]]]]:
    """AWS with a user and a role, and the environment variables of both."""
    with serving_aws(web, tmp_path_factory.mktemp("moto")) as aws:
        yield aws.server, {"user": environment_of(aws.user), "role": environment_of(aws.role)}


@pytest.fixture
def as_(moto: tuple[MotoServer, dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process the user or the role."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def become(who: str) -> None:
        for name, value in moto[1][who].items():
            monkeypatch.setenv(name, value)

    return become


async def join_by_iam(moto: MotoServer, context: ssl.SSLContext, proof: Mapping[str, str], *rules: Mapping[str, str]) -> Proved:
    issuers = Issuers(review=no_review, ssl_context=context, connect=dict.fromkeys(AWS_HOSTS, (LOOPBACK, moto.port)))
    try:
        settings = iam.IAMSettings.model_validate({"allow": rules or [{"account": ACCOUNT}]})
        return await iam.verify(settings, iam.SignedRequestProof.model_validate(proof), asked(), issuers)
    finally:
        await issuers.close()


WANTED = Wanted(audience=None, challenge=CHALLENGE, cluster_name="example.test")


@pytest.mark.parametrize("settings", [{"region": "eu-central-1"}, {}], ids=["a region", "no region"])
async def test_role_joins(moto: Any, as_: Any, context: ssl.SSLContext, settings: Mapping[str, str]) -> None:
    as_("role")
    rule = {"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/*"}
    proved = await join_by_iam(moto[0], context, iam_proof.prove(settings, WANTED), rule)
    assert proved.subject == f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/i-0abc"
    assert proved.attributes["account"] == ACCOUNT
    assert proved.attributes["userID"].endswith(":i-0abc")


async def test_user_joins_and_is_not_the_role(moto: Any, as_: Any, context: ssl.SSLContext) -> None:
    as_("user")
    proof = iam_proof.prove({"region": "eu-central-1"}, WANTED)
    assert (await join_by_iam(moto[0], context, proof)).subject == f"arn:aws:iam::{ACCOUNT}:user/deployer"
    with pytest.raises(Denied) as caught:
        await join_by_iam(moto[0], context, proof, {"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/*"})
    assert caught.value.reason == "RulesNotMatched"


async def test_secret_of_another(moto: Any, as_: Any, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    as_("role")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    with pytest.raises(Denied) as caught:
        await join_by_iam(moto[0], context, iam_proof.prove({"region": "eu-central-1"}, WANTED))
    assert caught.value.reason == "SignatureInvalid"


async def test_key_that_aws_does_not_know(moto: Any, as_: Any, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    as_("user")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    with pytest.raises(Denied) as caught:
        await join_by_iam(moto[0], context, iam_proof.prove({"region": "eu-central-1"}, WANTED))
    assert caught.value.reason == "SignatureInvalid"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(b"X-Amz-Date: 2", b"X-Amz-Date: 3", "SignatureInvalid", id="another date"),
        pytest.param(b"charset=utf-8", b"charset=UTF-8", "RequestNotTaken", id="another form"),
        pytest.param(b"form-urlencoded; charset=utf-8", b"form-urlencoded", "SignatureInvalid", id="another form that is taken"),
        pytest.param(b"Host: sts.eu-central-1.", b"Host: sts.eu-west-1.", "HostNotTaken", id="another region"),
    ],
)
async def test_request_that_was_changed_after_signing(
    moto: Any, as_: Any, context: ssl.SSLContext, old: bytes, new: bytes, reason: str
) -> None:
    as_("role")
    signed = base64.b64decode(iam_proof.prove({"region": "eu-central-1"}, WANTED)["request"])
    assert old in signed
    proof = {"request": base64.b64encode(signed.replace(old, new)).decode()}
    with pytest.raises(Denied) as caught:
        await join_by_iam(moto[0], context, proof)
    assert caught.value.reason == reason


async def test_challenge_that_was_put_in_after_signing(moto: Any, as_: Any, context: ssl.SSLContext) -> None:
    """A request that somebody was made to sign for another challenge: AWS finds that the signature does not cover ours."""
    as_("role")
    theirs = Wanted(audience=None, challenge="A" * 32, cluster_name="example.test")
    signed = base64.b64decode(iam_proof.prove({"region": "eu-central-1"}, theirs)["request"])
    proof = {"request": base64.b64encode(signed.replace(b"A" * 32, CHALLENGE.encode())).decode()}
    with pytest.raises(Denied) as caught:
        await join_by_iam(moto[0], context, proof)
    assert caught.value.reason == "SignatureInvalid"


# --- Azure ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


async def join_by_azure(cloud: Cloud, web: Issued, context: ssl.SSLContext, challenge: str = CHALLENGE) -> Proved:
    server = issue("azure", web, names=AZURE_HOSTS, **today())
    certificate, key = written(cloud.directory, "server", server)
    settings = azure.AzureSettings.model_validate(
        {"tenantID": TENANT, "rootCertificates": cloud.root.pem, "allow": [{"subscriptionID": SUBSCRIPTION}]}
    )
    wanted = Wanted(audience=azure.METHOD.audience(settings, "example.test"), challenge=CHALLENGE, cluster_name="example.test")
    with serve(cloud.metadata) as metadata, serve(cloud.services, certificate=certificate, key=key) as services:
        proof = azure_proof.prove({"metadataURL": f"http://{LOOPBACK}:{metadata}"}, wanted)
        issuers = Issuers(review=no_review, ssl_context=context, connect=dict.fromkeys(AZURE_HOSTS, (LOOPBACK, services)))
        try:
            return await azure.verify(settings, azure.AzureProof.model_validate(proof), asked(challenge), issuers)
        finally:
            await issuers.close()


async def test_machine_joins(cloud: Cloud, web: Issued, context: ssl.SSLContext) -> None:
    proved = await join_by_azure(cloud, web, context)
    assert proved.subject == VM
    assert proved.attributes["vmID"] == VM_ID
    assert proved.attributes["subscriptionID"] == SUBSCRIPTION
    assert AUDIENCE == "https://management.azure.com/"


async def test_document_of_another_join(cloud: Cloud, web: Issued, context: ssl.SSLContext) -> None:
    with pytest.raises(Denied) as caught:
        await join_by_azure(cloud, web, context, challenge="A" * 32)
    assert caught.value.reason == "WrongChallenge"


async def test_document_of_a_signer_that_is_not_azures(cloud: Cloud, web: Issued, context: ssl.SSLContext) -> None:
    cloud.signs_as(issue(SIGNER, names=(SIGNER,), place=PLACE, **today()))
    with pytest.raises(Denied) as caught:
        await join_by_azure(cloud, web, context)
    assert caught.value.reason == "SignerNotTrusted"
