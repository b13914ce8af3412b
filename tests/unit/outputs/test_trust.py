"""Trust bundles as SSH and TLS read them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from machinebot.outputs.trust import certificates, key_lines, known_hosts
from machinebot.policy.credential import AnchorState, Purpose, TrustAnchor

PEM = b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n"


def anchor(public: bytes, state: AnchorState = AnchorState.ACTIVE) -> TrustAnchor:
    return TrustAnchor(
        purpose=Purpose.SSH_HOST,
        id="1",
        state=state,
        public=public,
        fingerprint="SHA256:abc",
        not_after=datetime(2027, 1, 1, tzinfo=UTC),
    )


ACTIVE = anchor(b"ecdsa-sha2-nistp256 AAAA")
OLD = anchor(b"ssh-ed25519 BBBB", AnchorState.OLD)


@pytest.mark.parametrize(
    ("anchors", "patterns", "text"),
    [
        ((), ("example.test",), b""),
        ((ACTIVE,), ("example.test",), b"@cert-authority example.test ecdsa-sha2-nistp256 AAAA\n"),
        (
            (ACTIVE, OLD),
            ("example.test", "*.example.test", "[git.example.test]:2222"),
            (
                b"@cert-authority example.test,*.example.test,[git.example.test]:2222 ecdsa-sha2-nistp256 AAAA\n"
                b"@cert-authority example.test,*.example.test,[git.example.test]:2222 ssh-ed25519 BBBB\n"
            ),
        ),
    ],
    ids=["no-ca", "one", "rotation"],
)
def test_known_hosts_has_one_line_for_each_generation(
    anchors: Sequence[TrustAnchor], patterns: Sequence[str], text: bytes
) -> None:
    assert known_hosts(anchors, patterns) == text


def test_key_lines_have_one_key_for_each_generation() -> None:
    assert key_lines((ACTIVE, OLD)) == b"ecdsa-sha2-nistp256 AAAA\nssh-ed25519 BBBB\n"
    assert key_lines(()) == b""


def test_certificates_are_one_file() -> None:
    assert certificates((anchor(PEM), anchor(PEM))) == PEM + PEM
