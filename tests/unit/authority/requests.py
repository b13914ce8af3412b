"""Requests as the signers get them, for the tests of what is held against them."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from machinebot.authority.profiles import (
    IDENTITY,
    SSH_USER,
    WORKLOAD_TOKEN,
    SSHRequest,
    Stamp,
    Subject,
    TokenRequest,
    X509Request,
)
from machinebot.errors import Denied
from machinebot.policy.credential import Purpose
from unit.authority.builders import CLUSTER, DAY, ISSUER, MINUTE, NOW, ca, subject_key

STAMP = Stamp(serial=7, not_before=NOW - MINUTE, not_after=NOW - MINUTE + DAY)
KEY = subject_key().public_key()
OTHER = ec.generate_private_key(ec.SECP256R1())
X509_CA = ca(Purpose.IDENTITY)
SSH_CA = ca(Purpose.SSH_USER)
X509_REQUEST = X509Request(
    profile=IDENTITY,
    stamp=STAMP,
    public_key=KEY,
    subject=Subject(organizations=(CLUSTER,), common_name="bot:ci:deployer", spiffe_id=f"spiffe://{CLUSTER}/ns/ci/bot/deployer"),
)
SSH_REQUEST = SSHRequest(
    profile=SSH_USER,
    stamp=STAMP,
    public_key=KEY,
    key_id="bot:ci:deployer",
    principals=("deploy", "web"),
    extensions=(b"permit-pty",),
    source_addresses=("10.0.0.0/8",),
)
TOKEN_REQUEST = TokenRequest(
    profile=WORKLOAD_TOKEN,
    stamp=STAMP,
    issuer=ISSUER,
    subject=f"spiffe://{CLUSTER}/ns/ci/bot/deployer",
    audiences=("api", "vault"),
)


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(Denied) as caught:
        call(*arguments)
    assert caught.value.reason == "CertificateRefused"
    assert "eyJ" not in f"{caught.value} {caught.value!r}", "a token in a message"
    return caught.value.message


def stamped(request: Any, **fields: Any) -> Any:
    return replace(request, stamp=replace(request.stamp, **fields))
