"""Trust bundles in the forms that SSH reads: known_hosts lines and files of CA keys."""

from collections.abc import Iterable, Sequence

from machinebot.policy.credential import TrustAnchor


def known_hosts(anchors: Iterable[TrustAnchor], patterns: Sequence[str]) -> bytes:
    """One `@cert-authority` line for each generation of the host CA (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

    Args:
        anchors: Generations of the host CA.
        patterns: Host patterns that the CA is trusted for.
    """
    hosts = ",".join(patterns).encode()
    return b"".join(b"@cert-authority " + hosts + b" " + anchor.public + b"\n" for anchor in anchors)


def key_lines(anchors: Iterable[TrustAnchor]) -> bytes:
    """One CA key a line: sshd's `TrustedUserCAKeys` (sshd_config(5))."""
    return b"".join(anchor.public + b"\n" for anchor in anchors)


def certificates(anchors: Iterable[TrustAnchor]) -> bytes:
    """The CA certificates as one PEM file, the active one first."""
    return b"".join(anchor.public for anchor in anchors)
