"""Trust bundles in the forms that verifiers read: one table of pieces, the same for HTTPS, the CLI and ConfigMaps."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from machinebot.policy.credential import Purpose, TrustAnchor, TrustBundle

REFRESH: Final = timedelta(minutes=5)
"""How long a verifier may keep a piece before it asks again: a small part of the overlap of two CA generations, 25 h at least,
so that some hundred attempts may fail before a credential does."""

_SEQUENCE_STEP: Final = 64
"""More than the generations that one CA can have: see `_sequence`."""


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


def host_patterns(cluster_name: str) -> tuple[str, ...]:
    """The hosts that every known_hosts of ours trusts the host CA for: the cluster's own name and everything below it."""
    return (cluster_name, f"*.{cluster_name}")


def jwks(anchors: Iterable[TrustAnchor]) -> bytes:
    """The keys that sign JWTs (RFC 7517, section 5): prepared ones too, so that verifiers know them before they sign."""
    return _json({"keys": [_signing_key(anchor) for anchor in anchors]})


def spiffe_bundle(anchors: Sequence[TrustAnchor]) -> bytes:
    """A trust domain's bundle (SPIFFE Trust Domain and Bundle, section 4): for X509-SVIDs and for JWT-SVIDs."""
    x509_keys = [_x509_key(anchor) for anchor in anchors]
    jwt_keys = [{**_signing_key(anchor), "use": "jwt-svid"} for anchor in anchors]
    return _json(
        {
            "spiffe_sequence": _sequence(anchors),
            "spiffe_refresh_hint": int(REFRESH.total_seconds()),
            "keys": [*x509_keys, *jwt_keys],
        }
    )


def openid_configuration(bundle: TrustBundle) -> bytes:
    """What verifiers of JWTs look for below the issuer (OpenID Connect Discovery 1.0, section 3).

    It has what kube-apiserver's own has: nobody logs in here, so that there is no authorization endpoint.
    """
    algorithms = (_signing_key(anchor)["alg"] for anchor in bundle.of(Purpose.WORKLOAD))
    return _json(
        {
            "issuer": bundle.issuer,
            "jwks_uri": f"{bundle.issuer}/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": list(dict.fromkeys(algorithms)),
        }
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """One form of one CA.

    Attributes:
        name: In addresses, on the command line, and as the key in a ConfigMap.
        purpose: The CA.
        description: Who reads it.
        content_type: Media type.
        render: The bundle to the file.
    """

    name: str
    purpose: Purpose
    description: str
    content_type: str
    render: Callable[[TrustBundle], bytes]


def pieces(bundle: TrustBundle) -> Mapping[str, bytes]:
    """Every piece by its name. One whose CA is not there is left out: an empty file would look like an answer."""
    return {piece.name: piece.render(bundle) for piece in PIECES.values() if bundle.of(piece.purpose)}


JWKS: Final = "jwks"
"""The piece that the discovery document points to."""

JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"
_PEM: Final = "application/x-pem-file"
_JWK_SET: Final = "application/jwk-set+json"  # RFC 7517, section 8.5.2


def _keys_of(purpose: Purpose) -> Callable[[TrustBundle], bytes]:
    return lambda bundle: key_lines(bundle.of(purpose))


def _certificates_of(purpose: Purpose) -> Callable[[TrustBundle], bytes]:
    return lambda bundle: certificates(bundle.of(purpose))


def _known_hosts(bundle: TrustBundle) -> bytes:
    return known_hosts(bundle.of(Purpose.SSH_HOST), host_patterns(bundle.cluster_name))


def _pem(purpose: Purpose, description: str) -> Piece:
    return Piece(f"{purpose}-ca", purpose, description, _PEM, _certificates_of(purpose))


PIECES: Final[Mapping[str, Piece]] = MappingProxyType(
    {
        piece.name: piece
        for piece in (
            Piece(
                "ssh-user-ca",
                Purpose.SSH_USER,
                "sshd, TrustedUserCAKeys: the CA keys that users log in with, one a line",
                _TEXT,
                _keys_of(Purpose.SSH_USER),
            ),
            Piece(
                "ssh-host-ca",
                Purpose.SSH_HOST,
                "the CA keys of SSH hosts, one a line, for a known_hosts of your own",
                _TEXT,
                _keys_of(Purpose.SSH_HOST),
            ),
            Piece(
                "known-hosts",
                Purpose.SSH_HOST,
                "ssh, known_hosts: the CA of hosts, for the cluster's name and everything below it",
                _TEXT,
                _known_hosts,
            ),
            _pem(Purpose.IDENTITY, "TLS servers that bots log in to, such as nginx; and clients of Machinebot's own HTTPS, PEM"),
            _pem(Purpose.DATABASE, "databases, such as ssl_ca_file of PostgreSQL, and their clients, PEM"),
            _pem(Purpose.KUBERNETES, "kube-apiserver, --client-ca-file, PEM"),
            _pem(Purpose.WORKLOAD, "verifiers of X509-SVIDs, PEM"),
            Piece(
                JWKS,
                Purpose.WORKLOAD,
                "verifiers of JWTs, such as Vault and clouds (RFC 7517)",
                _JWK_SET,
                lambda bundle: jwks(bundle.of(Purpose.WORKLOAD)),
            ),
            Piece(
                "spiffe-bundle",
                Purpose.WORKLOAD,
                "SPIFFE implementations: the bundle of the trust domain",
                JSON,
                lambda bundle: spiffe_bundle(bundle.of(Purpose.WORKLOAD)),
            ),
        )
    }
)
"""Every piece, in the order that people read them."""

# --- keys as JSON (RFC 7517; RFC 7518, section 6) -----------------------------------------------------------------

_CURVES: Final = {"secp256r1": ("P-256", "ES256"), "secp384r1": ("P-384", "ES384")}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _signing_key(anchor: TrustAnchor) -> dict[str, str]:
    """The key as a JWK that tokens name by `kid`."""
    parameters, algorithm = _key_parameters(x509.load_pem_x509_certificate(anchor.public))
    return {**parameters, "use": "sig", "alg": algorithm, "kid": anchor.id}


def _x509_key(anchor: TrustAnchor) -> dict[str, str | list[str]]:
    """The CA certificate as a JWK: x5c holds exactly one (X509-SVID, section 6.2.1)."""
    certificate = x509.load_pem_x509_certificate(anchor.public)
    der = certificate.public_bytes(Encoding.DER)
    return {**_key_parameters(certificate)[0], "use": "x509-svid", "x5c": [base64.b64encode(der).decode()]}


def _key_parameters(certificate: x509.Certificate) -> tuple[dict[str, str], str]:
    """The parameters of a key as a JWK has them, and the algorithm of its signatures: CAs of X.509 are EC or RSA.

    Raises:
        ValueError: Another key: a fault of ours.
    """
    match certificate.public_key():
        case ec.EllipticCurvePublicKey() as key:
            numbers, length = key.public_numbers(), (key.curve.key_size + 7) // 8
            curve, algorithm = _CURVES[key.curve.name]
            return {"kty": "EC", "crv": curve, "x": _base64url(numbers.x, length), "y": _base64url(numbers.y, length)}, algorithm
        case rsa.RSAPublicKey() as key:
            public, length = key.public_numbers(), key.key_size // 8
            return {
                "kty": "RSA",
                "n": _base64url(public.n, length),
                "e": _base64url(public.e, (public.e.bit_length() + 7) // 8),
            }, "RS256"
        case other:
            raise ValueError(f"no JWK is made of a {type(other).__name__}")


def _base64url(number: int, length: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(length, "big")).rstrip(b"=").decode()


def _sequence(anchors: Sequence[TrustAnchor]) -> int:
    """A number that grows with each change of the keys, made of nothing but the keys, so that every replica says the same.

    A newer key makes it grow by a second's worth at least, and a key that goes by one.
    """
    newest = max(int(x509.load_pem_x509_certificate(anchor.public).not_valid_before_utc.timestamp()) for anchor in anchors)
    return newest * _SEQUENCE_STEP + _SEQUENCE_STEP - len(anchors)
