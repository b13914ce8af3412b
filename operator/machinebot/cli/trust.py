"""`machinebot trust`: one piece of the trust bundle for a shell, from the API server or over HTTPS."""

import ssl
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from machinebot.cli.cluster import on_cluster
from machinebot.client.pins import pins_of
from machinebot.clock import parse_rfc3339
from machinebot.errors import Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube.client import Json
from machinebot.kube.commandline import CommandLineClient
from machinebot.kube.resources import AUTHORITIES
from machinebot.outputs.trust import PIECES, pieces
from machinebot.policy.credential import AnchorState, Purpose, TrustAnchor, TrustBundle
from machinebot.resources.authority import CAStatus, MachineAuthority

TIMEOUT: Final = 30.0
"""Seconds for one request."""

MAX_ANSWER: Final = 1024 * 1024
"""Longest answer that is read, bytes: the largest piece has some ten KiB."""

OK: Final = 200

REASON: Final = "TrustUnavailable"
"""Reason where the piece cannot be had from where it was looked for."""


def listing() -> str:
    """Every piece and what it is for."""
    width = max(map(len, PIECES))
    return "\n".join(f"{piece.name:<{width}}  {piece.description}" for piece in PIECES.values())


def check_piece(name: str) -> None:
    """Refuses what is no piece.

    Raises:
        Invalid: It is none.
    """
    if name not in PIECES:
        raise Invalid("PieceUnknown", f"there is no piece {name!r}: write one of {', '.join(PIECES)}")


def from_https(url: str, authority: str, piece: str, ca_file: Path | None) -> bytes:
    """The piece as an operator serves it.

    Args:
        url: Address of the operator's HTTPS, with or without a path before ours.
        authority: Name of the MachineAuthority.
        piece: Name of the piece.
        ca_file: CA certificates that the server is verified by; the machine's own without it.

    Raises:
        MachinebotError: It cannot be had; the message says what to do.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Invalid(REASON, f"{url!r} is no address: write one such as https://machinebot.machinebot.svc")
    path = f"{parts.path.rstrip('/')}/authorities/{quote(authority, safe='')}/trust/{quote(piece, safe='')}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
        connection = HTTPSConnection(parts.hostname, parts.port or 443, timeout=TIMEOUT, context=context)
    except (OSError, ValueError) as error:
        raise Invalid(REASON, f"the address or the CA file cannot be used: {error}") from error
    try:
        connection.request("GET", path, headers={"User-Agent": "machinebot"})
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER)
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(
            REASON,
            f"the server is not the one it should be ({error.verify_message}): write --ca-file FILE, with the piece identity-ca, "
            "which `machinebot trust identity-ca` prints where there is a kubeconfig",
        ) from error
    except (OSError, HTTPException) as error:
        raise Unavailable(REASON, f"{parts.hostname} does not answer ({error}): check the address and the network") from error
    finally:
        connection.close()
    if answer.status != OK:
        raise Unavailable(REASON, f"{parts.hostname} answers {answer.status}: {body[:512].decode(errors='replace').strip()}")
    return body


def from_cluster(authority: str, piece: str, context: str | None) -> bytes:
    """The piece as the status of the MachineAuthority has it; takes RBAC `get` on machineauthorities.

    Args:
        authority: Name of the MachineAuthority.
        piece: Name of the piece.
        context: Context of the kubeconfig; None for its current one.

    Raises:
        MachinebotError: It cannot be had; the message says what to do.
    """
    body = on_cluster(context, lambda client: _read(client, authority))
    found = pieces(_bundle(body)).get(piece)
    if found is None:
        raise Unavailable(
            "AuthorityNotReady",
            f"the MachineAuthority {authority!r} does not tell this CA yet: see kubectl describe machineauthority {authority}",
        )
    return found


def pins(piece: str, content: bytes) -> tuple[str, ...]:
    """The pins of the CA certificates in a piece.

    Raises:
        Invalid: It holds none.
    """
    try:
        return pins_of(content)
    except ValueError as error:
        raise Invalid(
            "NoCertificates", f"{piece} holds no CA certificates, so that there are no pins: leave --pins out"
        ) from error


async def _read(client: CommandLineClient, name: str) -> Json:
    try:
        body = await client.get(AUTHORITIES, "", name)
    except MachinebotError as error:
        raise Unavailable(
            error.reason, f"{error.message}; this takes the verb get on machineauthorities, or --url for no cluster at all"
        ) from error
    if body is None:
        raise NotFound("AuthorityMissing", f"there is no MachineAuthority {name!r}: see kubectl get machineauthorities")
    return body


def _bundle(body: Json) -> TrustBundle:
    try:
        authority = MachineAuthority.model_validate(body)
        anchors = tuple(_anchor(each) for each in authority.status.authorities if each.public is not None)
    except (ValidationError, ValueError) as error:
        raise Invalid(REASON, "the status of the MachineAuthority cannot be read: use the CLI of its version") from error
    return TrustBundle(cluster_name=authority.spec.cluster_name, issuer=authority.spec.issuer or "", anchors=anchors)


def _anchor(status: CAStatus) -> TrustAnchor:
    return TrustAnchor(
        purpose=Purpose(status.purpose),
        id=status.id,
        state=AnchorState(status.state),
        public=(status.public or "").encode(),
        fingerprint=status.fingerprint,
        not_after=parse_rfc3339(status.not_after),
    )
