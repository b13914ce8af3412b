"""What the Secret of an output holds: told from status where it was not touched since, else read from the Secret alone.

The Secret carries, beside the credential, everything that status can be made again from: the digest of the inputs, of its
own data, the CA generations and the wish that was fulfilled. So a crash between the two writes, or a restored backup, is
no reason to issue.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from machinebot.clock import parse_rfc3339
from machinebot.errors import Invalid
from machinebot.kube.secrets import StoredSecret
from machinebot.outputs import inspect
from machinebot.outputs.registry import MachineOutput
from machinebot.policy.credential import Issued
from machinebot.policy.decision import Credential
from machinebot.policy.grants import MAX_NAMES, Grant
from machinebot.policy.lifetimes import MAXIMUM, renewal_time
from machinebot.policy.names import NAME_RULES
from machinebot.policy.templates import Origin
from machinebot.resources.meta import MAX_NAME, Model
from machinebot.resources.output import Granted, GrantedName

INPUTS: Final = "machinebot.dev/inputs"
DIGEST: Final = "machinebot.dev/digest"
AUTHORITIES: Final = "machinebot.dev/authorities"
RENEWED_FOR: Final = "machinebot.dev/renewed-for"
REASON: Final = "machinebot.dev/reason"
TEMPLATE: Final = "machinebot.dev/template"
TERMS: Final = "machinebot.dev/terms"
"""Annotations on the Secret. The last one is there only where the authority is that of another cluster."""

OUTPUT_LABEL: Final = "machinebot.dev/output-uid"
"""Label on the Secret: UID of the output, for people who look for it with a selector."""

MAX_ANNOTATION: Final = 4096
"""Longest annotation of ours that is read back, characters."""

MAX_TEMPLATE: Final = 32 * 1024
"""The same for `TEMPLATE`: the keys of 32 labels and 32 annotations have up to 317 characters each."""

MAX_TERMS: Final = 64 * 1024
"""The same for `TERMS`: a credential carries some dozen names; one with more than fit is not listed after a restored backup."""

MAX_REDUCED_BY: Final = 512
"""Longest that status takes of what reduced a life, characters."""

MAX_REASON: Final = 64
MAX_FULFILLED: Final = 256
"""Longest that status takes of what the annotations say; anything longer was written by hand."""


class Terms(Model):
    """What an issue has given beside the credential itself.

    Attributes:
        granted: What it carries.
        reduced_by: What reduced the wished life, or None.
    """

    granted: Granted = Granted()
    reduced_by: str | None = None


NO_TERMS: Final = Terms()
"""Nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What an output's Secret holds.

    Attributes:
        credential: What is known of the credential, or None where there is no Secret of that name.
        version: resourceVersion of the Secret.
        uid: UID of the Secret.
        digest: SHA-256 of its data.
        serial: Of the certificates.
        fulfilled: The wish for a renewal that it fulfilled, or None.
        reason: Why it was issued.
        terms: What the issue gave, as it was kept; where the roles are those of this cluster, they tell it better.
        secret: The Secret, where it was read.
    """

    credential: Credential | None
    version: str = ""
    uid: str = ""
    digest: str = ""
    serial: str = ""
    fulfilled: str | None = None
    reason: str | None = None
    terms: Terms = NO_TERMS
    secret: StoredSecret | None = None

    @property
    def certain(self) -> Credential:
        """The credential, where a caller knows that there is one.

        Raises:
            ValueError: There is none: a fault of ours.
        """
        if self.credential is None:
            raise ValueError("there is no Secret")
        return self.credential


NOTHING: Final = Holding(credential=None)
"""There is no Secret."""


def renew_at(output: MachineOutput, credential: Credential) -> datetime:
    """When the credential is replaced, by its own dates and the output's wish."""
    return renewal_time(
        not_before=credential.not_before,
        not_after=credential.not_after,
        uid=output.metadata.uid,
        renew_before=output.spec.renew_before_length,
        renew_before_percentage=output.spec.renew_before_percentage,
    )


def from_status(output: MachineOutput, version: str, uid: str) -> Holding | None:
    """What status says the Secret holds, if that is about the Secret of that name and version; else None."""
    status = output.status
    secret = status.secret
    if secret is None or secret.name != output.secret_name or secret.resource_version != version:
        return None
    if status.inputs is None or status.not_before is None or status.not_after is None or status.serial is None:
        return None
    try:
        credential = Credential(
            damage=None,
            inputs=status.inputs,
            authorities=status.authorities,
            not_before=parse_rfc3339(status.not_before),
            not_after=parse_rfc3339(status.not_after),
        )
    except ValueError:
        return None
    if not timedelta(0) < credential.not_after - credential.not_before <= MAXIMUM.length:
        return None  # we have not written that
    return Holding(
        credential=credential,
        version=version,
        uid=uid,
        digest=secret.digest,
        serial=status.serial,
        fulfilled=status.renew_token,
        reason=status.issue_reason,
        terms=Terms(granted=status.granted or Granted(), reduced_by=status.ttl_reduced_by),
    )


def from_secret(output: MachineOutput, secret: StoredSecret) -> Holding:
    """What a Secret of ours, as it was read, holds. What does not hold together shows as damage."""
    notes = {name: text for name, text in secret.annotations.items() if len(text) <= MAX_ANNOTATION}
    digest = inspect.digest(secret.data)
    try:
        content = inspect.inspect(output, secret.data)
        authorities = _authorities(notes.get(AUTHORITIES, ""))
    except Invalid as error:
        return _damaged(secret, digest, error.message, notes)
    damage = None if notes.get(DIGEST) == digest else "the content of the Secret was changed by hand"
    credential = Credential(
        damage=damage,
        inputs=notes.get(INPUTS, ""),
        authorities=authorities,
        not_before=content.not_before,
        not_after=content.not_after,
    )
    return Holding(
        credential=credential,
        version=secret.resource_version,
        uid=secret.uid,
        digest=digest,
        serial=str(content.serial),
        fulfilled=_short(notes.get(RENEWED_FOR), MAX_FULFILLED),
        reason=_short(notes.get(REASON), MAX_REASON),
        terms=_terms(secret.annotations.get(TERMS, "{}")),
        secret=secret,
    )


def _terms(text: str) -> Terms:
    try:
        return Terms.model_validate_json(text[:MAX_TERMS])
    except ValidationError:
        return NO_TERMS


def _damaged(secret: StoredSecret, digest: str, damage: str, notes: Mapping[str, str]) -> Holding:
    never = parse_rfc3339("1970-01-01T00:00:00Z")
    return Holding(
        credential=Credential(damage=damage, inputs="", authorities={}, not_before=never, not_after=never),
        version=secret.resource_version,
        uid=secret.uid,
        digest=digest,
        fulfilled=_short(notes.get(RENEWED_FOR), MAX_FULFILLED),
        reason=_short(notes.get(REASON), MAX_REASON),
        secret=secret,
    )


def _short(text: str | None, longest: int) -> str | None:
    return text if text is not None and len(text) <= longest else None


def annotations(
    output: MachineOutput,
    *,
    inputs: str,
    digest: str,
    authorities: Mapping[str, str],
    reason: str,
    fulfilled: str | None,
    terms: Terms | None = None,
) -> dict[str, str]:
    """The annotations of the Secret: those that the output asks for, and ours.

    `terms` are for a credential whose roles are not those of this cluster.
    """
    template = {"labels": sorted(_template_labels(output)), "annotations": sorted(output.spec.secret.annotations)}
    notes = {
        **output.spec.secret.annotations,
        INPUTS: inputs,
        DIGEST: digest,
        AUTHORITIES: ",".join(f"{purpose}={generation}" for purpose, generation in sorted(authorities.items())),
        REASON: reason,
        TEMPLATE: json.dumps(template, separators=(",", ":")),
    }
    if fulfilled is not None:
        notes[RENEWED_FOR] = fulfilled
    if terms is not None:
        text = json.dumps(terms.wire(), separators=(",", ":"))
        notes[TERMS] = text if len(text) <= MAX_TERMS else "{}"
    return notes


def terms_of(issued: Issued) -> Terms:
    """What was given, as the issue tells it."""
    return Terms(
        granted=granted(issued.grant), reduced_by=issued.lifetime.reduced_by and issued.lifetime.reduced_by[:MAX_REDUCED_BY]
    )


def granted(grant: Grant) -> Granted:
    """What a credential carries, as status shows it."""
    fields: dict[str, Any] = {NAME_RULES[kind].field: _names(origins) for kind, origins in grant.names.items()}
    return Granted(roles=grant.roles, **fields)


def _names(origins: tuple[Origin, ...]) -> tuple[GrantedName, ...]:
    if len(origins) > MAX_NAMES:  # one trait in many roles: each name with the first of its origins
        origins = tuple({origin.name: origin for origin in reversed(origins)}.values())[::-1]
    return tuple(GrantedName(name=origin.name, role=origin.role[:MAX_NAME], trait=origin.trait) for origin in origins)


def labels(output: MachineOutput) -> dict[str, str]:
    """The labels of the Secret: those that the output asks for, those of its type, and ours."""
    return {**_template_labels(output), OUTPUT_LABEL: output.metadata.uid}


def _template_labels(output: MachineOutput) -> Mapping[str, str]:
    """Labels by the output's wish, and those that its type needs."""
    return {**output.spec.secret.labels, **output.type.labels(output.settings)}


def templated(secret: StoredSecret) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the labels and annotations that we put on the Secret by the output's wish, so that they can be taken off."""
    try:
        template: Any = from_json(secret.annotations.get(TEMPLATE, "{}")[:MAX_TEMPLATE])  # bounds the depth too
        return frozenset(map(str, template.get("labels", ()))), frozenset(map(str, template.get("annotations", ())))
    except (ValueError, AttributeError, TypeError):
        return frozenset(), frozenset()


def _authorities(text: str) -> dict[str, str]:
    """Reads `identity=0a1b,ssh-user=2c3d`.

    Raises:
        Invalid: It is something else.
    """
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if not pairs or not all(purpose and separator and generation for purpose, separator, generation in pairs):
        raise Invalid("SecretDamaged", f"the annotation {AUTHORITIES} of the Secret was changed by hand")
    return {purpose: generation for purpose, _, generation in pairs}


def inputs_digest(parts: Mapping[str, Any]) -> str:
    """SHA-256, hex, over everything that a credential is made from, in an order of its own."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()
