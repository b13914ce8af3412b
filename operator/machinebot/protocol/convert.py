"""Between the messages of the join API and the value types of the core, in both directions."""

import base64
import binascii
from datetime import timedelta
from functools import lru_cache
from typing import Final

from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Invalid, MachinebotError
from machinebot.policy.credential import AnchorState, Issued, IssueRequest, TrustAnchor, TrustBundle, Wish
from machinebot.policy.grants import NO_SSH, Grant
from machinebot.policy.lifetimes import Lifetime
from machinebot.policy.templates import Origin
from machinebot.protocol.messages import Anchor, Credential, OutputAnswer, OutputRequest, Problem, TrustAnswer

_CACHED: Final = 16
"""Trust bundles that are kept as messages: each answer has the one of its authority in it, which changes with a CA."""

# --- who serves ---------------------------------------------------------------------------------------------------------


def public_key(text: str) -> bytes:
    """The DER of a public key in a message.

    Raises:
        Invalid: It is no base64.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Invalid("InvalidPublicKey", "a public key is sent as base64 of its DER SubjectPublicKeyInfo") from None


def issue_request(output: OutputRequest) -> IssueRequest:
    """What the authority is asked for.

    Raises:
        Invalid: The public key is no base64.
    """
    return IssueRequest(
        output=output.name,
        wish=Wish(usages=frozenset(output.usages), names=dict(output.names)),
        roles=output.roles,
        lifetime=timedelta(seconds=output.lifetime_seconds),
        public_key=None if output.public_key is None else public_key(output.public_key),
    )


def credential(issued: Issued) -> Credential:
    """What was issued, as it is sent."""
    return Credential(
        serial=str(issued.serial),
        not_before=rfc3339(issued.not_before),
        not_after=rfc3339(issued.not_after),
        ssh_certificate=_text(issued.ssh_certificate),
        x509_certificate=_text(issued.x509_certificate),
        token=_text(issued.token),
        authorities=dict(issued.authorities),
        roles=issued.grant.roles,
        names={kind: issued.grant.plain(kind) for kind in issued.grant.names},
        lifetime_seconds=int(issued.lifetime.length.total_seconds()),
        reduced_by=issued.lifetime.reduced_by,
    )


@lru_cache(maxsize=_CACHED)
def trust_answer(bundle: TrustBundle) -> TrustAnswer:
    """The trust bundle, as it is sent."""
    return TrustAnswer(
        cluster_name=bundle.cluster_name,
        issuer=bundle.issuer,
        anchors=tuple(
            Anchor(
                purpose=anchor.purpose,
                id=anchor.id,
                state=anchor.state,
                public=anchor.public.decode(),
                fingerprint=anchor.fingerprint,
                not_after=rfc3339(anchor.not_after),
            )
            for anchor in bundle.anchors
        ),
    )


def refused(name: str, error: MachinebotError) -> OutputAnswer:
    """The answer for an output that was refused."""
    return OutputAnswer(name=name, problem=Problem(reason=error.reason, message=error.message))


# --- who asks -----------------------------------------------------------------------------------------------------------


def output_request(request: IssueRequest) -> OutputRequest:
    """What the authority is asked for, as it is sent."""
    return OutputRequest(
        name=request.output,
        usages=tuple(sorted(request.wish.usages)),
        names={kind: names for kind, names in request.wish.names.items() if names},
        roles=request.roles,
        lifetime_seconds=max(1, int(request.lifetime.total_seconds())),
        public_key=None if request.public_key is None else base64.b64encode(request.public_key).decode(),
    )


def issued(sent: Credential) -> Issued:
    """What was issued. Of the grant it has the names and roles; where each came from is known to the authority alone.

    Raises:
        ValueError: A date or number is none.
    """
    role = ", ".join(sent.roles)
    return Issued(
        serial=int(sent.serial),
        not_before=parse_rfc3339(sent.not_before),
        not_after=parse_rfc3339(sent.not_after),
        ssh_certificate=_bytes(sent.ssh_certificate),
        x509_certificate=_bytes(sent.x509_certificate),
        token=_bytes(sent.token),
        authorities=dict(sent.authorities),
        grant=Grant(
            roles=sent.roles,
            names={kind: tuple(Origin(name=name, role=role) for name in names) for kind, names in sent.names.items()},
            denied={},
            taken={},
            ssh=NO_SSH,
            limits=(),
        ),
        lifetime=Lifetime(length=timedelta(seconds=sent.lifetime_seconds), reduced_by=sent.reduced_by),
    )


def trust_bundle(sent: TrustAnswer) -> TrustBundle:
    """The trust bundle.

    Raises:
        ValueError: A date or state is none.
    """
    return TrustBundle(
        cluster_name=sent.cluster_name,
        issuer=sent.issuer,
        anchors=tuple(
            TrustAnchor(
                purpose=anchor.purpose,
                id=anchor.id,
                state=AnchorState(anchor.state),
                public=anchor.public.encode(),
                fingerprint=anchor.fingerprint,
                not_after=parse_rfc3339(anchor.not_after),
            )
            for anchor in sent.anchors
        ),
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
