"""Which certificate our HTTPS shows: one that an authority signed in this process, or files that somebody else renews."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from machinebot.authority.generations import Generation
from machinebot.authority.serving import ServingCertificate, serving_certificate
from machinebot.clock import Clock, rfc3339
from machinebot.errors import Invalid

log = logging.getLogger(__name__)

MAX_FILE: Final = 256 * 1024
"""Longest certificate or key file that is read, bytes: a long chain has some ten KiB."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its chain, and its private key, both PEM."""

    certificate: bytes
    private_key: bytes = field(repr=False)


class CertificateSource(Protocol):
    """Where the certificate comes from."""

    def look(self) -> KeyPair | None:
        """Another pair to be used from now on; None where the last one is still the right one, or there is none yet.

        Raises:
            MachinebotError: It cannot be had; the last one stays.
        """
        ...


class SignedCertificate:
    """A certificate that an authority of ours signs: 24 hours at most, replaced at half of its life and when the CA rotates.

    Args:
        issuer: Who signs now: the cluster name and the active CA of identities; None where there is none yet.
        dns_names: What it must be good for.
        clock: The time.
    """

    def __init__(self, issuer: Callable[[], tuple[str, Generation] | None], dns_names: tuple[str, ...], clock: Clock) -> None:
        self._issuer = issuer
        self._dns_names = dns_names
        self._clock = clock
        self._current: ServingCertificate | None = None

    def look(self) -> KeyPair | None:
        """See `CertificateSource`."""
        found = self._issuer()
        if found is None:
            return None
        cluster_name, generation = found
        now = self._clock.now()
        if self._current is not None and not self._current.is_due(generation, self._dns_names, now):
            return None
        made = self._current = serving_certificate(generation, cluster_name, self._dns_names, now)
        log.info("HTTPS certificate made", extra={"issuer": made.issuer, "not_after": rfc3339(made.not_after)})
        return KeyPair(made.certificate, made.private_key)


class FileCertificate:
    """A certificate in files, such as a mounted Secret; read again when they change.

    Args:
        certificate: PEM, the chain behind the certificate.
        private_key: PEM, without a passphrase.
    """

    def __init__(self, certificate: Path, private_key: Path) -> None:
        self._paths = (certificate, private_key)
        self._seen: object = None

    def look(self) -> KeyPair | None:
        """See `CertificateSource`."""
        try:
            # Before the reading: a change that comes in between is found by the next look.
            seen = [(about.st_mtime_ns, about.st_ino, about.st_size) for about in map(os.stat, self._paths)]
            if seen == self._seen:
                return None
            certificate, private_key = (_read(path) for path in self._paths)
        except OSError as error:
            raise Invalid(
                "ServingCertificateUnreadable",
                f"the certificate of our HTTPS cannot be read ({error}): mount a Secret of the type kubernetes.io/tls",
            ) from error
        self._seen = seen
        return KeyPair(certificate, private_key)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE)
