"""How the generations of one CA are kept: JSON for one Secret, and the checks that it must pass to be used.

{"version": 1, "purpose": "identity", "generations": [{
    "id": "16 hex digits", "state": "Active",
    "createdAt": "2027-01-01T00:00:00Z", "activatedAt": "...", "supersededAt": "...", "notAfter": "...",
    "privateKey": "PEM (PKCS#8)", "certificate": "PEM; absent for SSH"}]}
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from pydantic import ConfigDict, Field, SecretStr, ValidationError

from machinebot.authority.generations import CA_CONSTRAINTS, CA_KEY_USAGE, Generation, common_name
from machinebot.authority.keys import MAX_PRIVATE_PEM, UNREADABLE, load_pkcs8
from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Invalid
from machinebot.policy.credential import AnchorState, Purpose
from machinebot.resources.meta import Model, first_error

MAX_BYTES: Final = 256 * 1024
"""Longest stored CA that is parsed at all; eight generations with RSA-4096 have about 48 KiB."""

MAX_GENERATIONS: Final = 16
"""Most generations of one CA that are read; `rotation` keeps at most eight."""

_Moment = Annotated[str, Field(max_length=32)]


class _StoredGeneration(Model):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: str = Field(max_length=64)
    state: AnchorState
    created_at: _Moment
    activated_at: _Moment | None = None
    superseded_at: _Moment | None = None
    not_after: _Moment
    private_key: SecretStr = Field(max_length=MAX_PRIVATE_PEM)
    certificate: str | None = Field(default=None, max_length=16384)


class _Stored(Model):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Literal[1]
    purpose: Purpose
    generations: tuple[_StoredGeneration, ...] = Field(min_length=1, max_length=MAX_GENERATIONS)


def dump(generations: Iterable[Generation]) -> bytes:
    """The generations of one CA as JSON for its Secret: holds private keys.

    Raises:
        Invalid: They would not be read again: see `load`.
    """
    kept = tuple(generations)
    if not kept:
        raise Invalid("NoGenerations", "a CA without a generation is never stored")
    _check(kept, kept[0].purpose)
    stored = {"version": 1, "purpose": kept[0].purpose.value, "generations": [_stored(generation) for generation in kept]}
    return json.dumps(stored, separators=(",", ":")).encode()


def load(purpose: Purpose, data: bytes) -> tuple[Generation, ...]:
    """Reads what `dump` wrote, and holds it against a table of checks.

    Raises:
        Invalid: `CASecretDamaged`: it is none, is another purpose's, or a check fails.
    """
    if len(data) > MAX_BYTES:
        raise _damaged(purpose, f"it has {len(data)} bytes, and at most {MAX_BYTES} are read")
    try:
        stored = _Stored.model_validate_json(data)
        generations = tuple(_generation(stored.purpose, each) for each in stored.generations)
    except ValidationError as error:
        # Without the cause here and below: it may show parts of a key.
        raise _damaged(purpose, first_error(error)) from None
    except (*UNREADABLE, Invalid):
        raise _damaged(purpose, "a time, key or certificate in it is unreadable") from None
    _check(generations, purpose)
    return generations


def _stored(generation: Generation) -> dict[str, str]:
    moments = {
        "createdAt": generation.created_at,
        "activatedAt": generation.activated_at,
        "supersededAt": generation.superseded_at,
        "notAfter": generation.not_after,
    }
    entry = {"id": generation.id, "state": generation.state.value}
    entry |= {name: rfc3339(moment) for name, moment in moments.items() if moment is not None}
    entry["privateKey"] = generation.key.pkcs8().decode()
    if generation.certificate is not None:
        entry["certificate"] = generation.certificate.decode()
    return entry


def _generation(purpose: Purpose, stored: _StoredGeneration) -> Generation:
    return Generation(
        id=stored.id,
        purpose=purpose,
        state=stored.state,
        created_at=parse_rfc3339(stored.created_at),
        activated_at=_moment(stored.activated_at),
        superseded_at=_moment(stored.superseded_at),
        not_after=parse_rfc3339(stored.not_after),
        key=load_pkcs8(stored.private_key.get_secret_value().encode()),
        certificate=None if stored.certificate is None else stored.certificate.encode(),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else parse_rfc3339(text)


def _damaged(purpose: Purpose, what: str) -> Invalid:
    return Invalid(
        "CASecretDamaged",
        f"the stored CA {purpose.value} cannot be used: {what}; restore its Secret from a backup; or, to begin with new CAs "
        "that nobody trusts yet, delete the MachineAuthority, then its CA Secrets, and create it again",
    )


# --- checks -------------------------------------------------------------------------------------------------------


_MOMENTS: Final = {
    AnchorState.PREPARED: (False, False),
    AnchorState.ACTIVE: (True, False),
    AnchorState.OLD: (True, True),
}
"""Whether a generation has been activated and superseded in each state."""


def _id_of_key(generation: Generation) -> bool:
    return generation.id == generation.key.id


def _moments_of_state(generation: Generation) -> bool:
    return _MOMENTS[generation.state] == (generation.activated_at is not None, generation.superseded_at is not None)


def _certificate_of_purpose(generation: Generation) -> bool:
    if generation.purpose.is_ssh:
        return generation.certificate is None
    # Many verifiers take no Ed25519 in X.509, so that no such CA was ever made.
    return generation.certificate is not None and not isinstance(generation.key.private_key, ed25519.Ed25519PrivateKey)


def _certificate_of_key(generation: Generation) -> bool:
    return generation.issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == generation.key.spki


def _certificate_names(generation: Generation) -> bool:
    names = generation.issuer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value for name in names] == [common_name(generation.purpose, generation.id)]


def _certificate_constraints(generation: Generation) -> bool:
    return CA_CONSTRAINTS in _critical(generation.issuer)


def _certificate_key_usage(generation: Generation) -> bool:
    return CA_KEY_USAGE in _critical(generation.issuer)


def _certificate_end(generation: Generation) -> bool:
    return generation.issuer.not_valid_after_utc == generation.not_after


def _certificate_signature(generation: Generation) -> bool:
    generation.issuer.verify_directly_issued_by(generation.issuer)  # raises where it is not
    return True


def _certificate_alone(generation: Generation) -> bool:
    return generation.issuer.public_bytes(Encoding.PEM) == generation.certificate


def _critical(certificate: x509.Certificate) -> list[x509.ExtensionType]:
    return [extension.value for extension in certificate.extensions if extension.critical]


_EACH: Final[tuple[tuple[Callable[[Generation], bool], str], ...]] = (
    (_id_of_key, "the id of a generation is not the one of its key"),
    (_moments_of_state, "the times of a generation do not fit its state"),
    (_certificate_of_purpose, "an SSH generation has a certificate, or an X.509 one lacks it or has an Ed25519 key"),
)
"""What every generation must fulfil."""

_EACH_X509: Final[tuple[tuple[Callable[[Generation], bool], str], ...]] = (
    (_certificate_of_key, "a certificate is not the one of its key"),
    (_certificate_names, "the subject of a certificate is not the one of its purpose and key"),
    (_certificate_constraints, "a certificate lacks CA:true with pathlen:0"),
    (_certificate_key_usage, "a certificate lacks the keyUsage keyCertSign and cRLSign"),
    (_certificate_end, "a certificate ends at another time than its generation"),
    (_certificate_signature, "a certificate is not signed by its own key"),
    (_certificate_alone, "there is something beside a certificate"),
)
"""What every generation of an X.509 CA must fulfil."""


def _one_active(generations: Sequence[Generation]) -> bool:
    return [generation.state for generation in generations].count(AnchorState.ACTIVE) == 1


def _one_prepared(generations: Sequence[Generation]) -> bool:
    return [generation.state for generation in generations].count(AnchorState.PREPARED) <= 1


def _unique_ids(generations: Sequence[Generation]) -> bool:
    return len({generation.id for generation in generations}) == len(generations)


_ALL: Final[tuple[tuple[Callable[[Sequence[Generation]], bool], str], ...]] = (
    (_one_active, "there must be exactly one active generation"),
    (_one_prepared, "there must be at most one prepared generation"),
    (_unique_ids, "a generation stands there twice"),
)
"""What the generations of one CA must fulfil together."""


def _passes(check: Callable[[Generation], bool], generation: Generation) -> bool:
    try:
        return check(generation)
    except UNREADABLE:
        return False


def _check(generations: Sequence[Generation], purpose: Purpose) -> None:
    for generation in generations:
        if generation.purpose is not purpose:
            raise _damaged(purpose, f"it is the CA {generation.purpose.value}")
        for check, message in (*_EACH, *(() if purpose.is_ssh else _EACH_X509)):
            if not _passes(check, generation):
                raise _damaged(purpose, message)
    for together, message in _ALL:
        if not together(generations):
            raise _damaged(purpose, message)
