"""`azure`: a virtual machine of Azure, by what its metadata service signs and by the access token of its managed identity.

The signed document shows which machine asks, now and for us: it holds our challenge. The token shows which resource its identity
belongs to. That both are of one machine, the Resource Manager says: it is asked with the token for the resource's own id
(learn.microsoft.com, "Azure Instance Metadata Service").
"""

import base64
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final, Literal

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from machinebot.errors import Denied, Unavailable
from machinebot.joins import cms, jwts
from machinebot.joins.azure_clouds import CLOUDS, Cloud
from machinebot.joins.base import Asked, HTTPSRequest, JoinMethod, NotMatched, Outside, Proof, Proved
from machinebot.joins.claims import MAX_PATTERN, MAX_RULES, UUID
from machinebot.joins.jwts import Expected, VerifiedClaims
from machinebot.joins.strict import json_object
from machinebot.policy import globs
from machinebot.resources.meta import Model, written_as

MAX_PEM: Final = 64 * 1024
"""Longest list of certificates in settings, characters; one has some 2,000."""

MAX_ROOTS: Final = 16
"""Most certificates of such a list."""

API_VERSION: Final = "2024-07-01"
"""Version of the Resource Manager's API for virtual machines that is asked."""

_ID: Final = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

_OK: Final = 200
_NOT_SHOWN: Final = frozenset({401, 403, 404})
"""HTTP status where the Resource Manager does not show a machine."""


@lru_cache(maxsize=64)
def _certificates(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a list in PEM."""
    return tuple(x509.load_pem_x509_certificates(pem.encode())) if pem else ()


def _authorities(pem: str) -> str:
    """The list as it stands, once each certificate in it was found to be an authority's.

    Raises:
        ValueError: One is not, there is none, or there are too many.
    """
    try:
        listed = _certificates(pem)
        good = 0 < len(listed) <= MAX_ROOTS and all(
            each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for each in listed
        )
    except cms.UNREADABLE:
        good = False
    if not good:
        raise ValueError(f"must be 1 to {MAX_ROOTS} certificates of authorities in PEM")
    return pem


CertificatesPEM = Annotated[
    str,
    written_as(
        r"-----BEGIN CERTIFICATE-----",
        "must be certificates in PEM, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
    ),
    Field(max_length=MAX_PEM),
    AfterValidator(_authorities),
]
"""Certificates of authorities, PEM."""


class AzureRule(Model):
    """One rule: it fits when all of its fields do."""

    subscription_id: UUID = Field(alias="subscriptionID", description="Id of the subscription that the machine is in.")
    resource_groups: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=90)], ...],
            Field(min_length=1, max_length=MAX_RULES),
        ]
        | None
    ) = Field(
        default=None, description="Resource groups, of which the machine is in one. Small and capital letters are the same."
    )
    vm_name: (
        Annotated[
            str,
            written_as(
                r"^[A-Za-z0-9._/*?-]*[A-Za-z0-9._-][A-Za-z0-9._/*?-]*$",
                "must be the name of a virtual machine, and hold more than wildcards, such as runner-*",
            ),
            Field(max_length=MAX_PATTERN),
        ]
        | None
    ) = Field(
        default=None,
        alias="vmName",
        description=(
            "Name of the machine; of one in a scale set <set>/<instance>. Small and capital letters are the same, `*` stands for "
            "any characters, `?` for one."
        ),
    )
    vm_id: UUID | None = Field(
        default=None, alias="vmID", description="Unique id of the machine (vmId), which no other machine ever has."
    )


class AzureSettings(Model):
    """Settings of `azure`."""

    tenant_id: UUID = Field(alias="tenantID", description="Id of the Entra tenant that the managed identity belongs to.")
    cloud: Literal["public", "usGovernment", "china"] = Field(default="public", description="The cloud of Azure.")
    root_certificates: CertificatesPEM = Field(
        description=(
            "Root certificates that signers of attested data are held against, PEM: those of `Azure Certificate Authority "
            "details` at learn.microsoft.com, DigiCert Global Root G2 among them."
        )
    )
    intermediate_certificates: CertificatesPEM | None = Field(
        default=None,
        description=(
            "Certificates that stand between root and signer, PEM, where the authority cannot fetch them. Default: the one that "
            "the signer's certificate names is fetched from Microsoft or DigiCert."
        ),
    )
    allow: tuple[AzureRule, ...] = Field(
        min_length=1,
        max_length=MAX_RULES,
        description="Who is let in: a rule fits when all of its fields do; one that fits is enough.",
    )


class AzureProof(Proof):
    """What a client sends.

    Attributes:
        attested_data: `signature` of the metadata service's /metadata/attested/document: PKCS #7 in base64.
        access_token: Token of the managed identity for the Resource Manager.
    """

    attested_data: SecretStr
    access_token: SecretStr


async def verify(settings: AzureSettings, proof: AzureProof, asked: Asked, outside: Outside, /) -> Proved:
    """Finds which machine asks, by document, token and Resource Manager, and holds it against the rules. See `base.Verify`."""
    cloud = CLOUDS[settings.cloud]
    attested = await _attested(settings, proof.attested_data.get_secret_value(), asked, outside)
    token = proof.access_token.get_secret_value()
    resource = _resource(await _claims(settings, token, asked, outside))
    if resource.subscription != attested.subscription_id:
        raise Denied("WrongSubscription", "the access token is of another subscription than the attested data")
    if await _vm_id(cloud, resource, token, outside) != attested.vm_id:
        raise Denied("WrongMachine", "the access token is of another virtual machine than the attested data")
    proved = Proved(
        subject=resource.path,
        attributes={
            "tenantID": settings.tenant_id,
            "subscriptionID": resource.subscription,
            "resourceGroup": resource.group,
            "vmName": resource.name,
            "vmID": attested.vm_id,
        },
    )
    if not any(_fits(rule, resource, attested.vm_id) for rule in settings.allow):
        raise NotMatched(proved)
    return proved


def _fits(rule: AzureRule, resource: "Resource", vm_id: str) -> bool:
    groups = rule.resource_groups
    return (
        rule.subscription_id == resource.subscription
        and (groups is None or resource.group.lower() in {group.lower() for group in groups})
        and (rule.vm_name is None or globs.matches(rule.vm_name.lower(), resource.name.lower()))
        and (rule.vm_id is None or rule.vm_id == vm_id)
    )


# --- the signed document --------------------------------------------------------------------------------------------------


def _date(text: object) -> datetime:
    """A date as attested data has it: 11/28/18 06:16:17 -0000."""
    return datetime.strptime(str(text), "%m/%d/%y %H:%M:%S %z")


_Date = Annotated[datetime, BeforeValidator(_date)]


class _Dates(Model):
    model_config = ConfigDict(hide_input_in_errors=True)

    created_on: _Date
    expires_on: _Date


class Attested(Model):
    """What the metadata service signs. Ids in small letters."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    nonce: str
    vm_id: Annotated[str, Field(pattern=_ID), AfterValidator(str.lower)]
    subscription_id: Annotated[str, Field(pattern=_ID), AfterValidator(str.lower)]
    time_stamp: _Dates


async def _attested(settings: AzureSettings, text: str, asked: Asked, outside: Outside) -> Attested:
    try:
        data = base64.b64decode(text, validate=True) if len(text) <= 2 * cms.MAX_MESSAGE else b""
    except ValueError:
        raise Denied("MessageUnreadable", "what was sent as attested data is no base64") from None
    message = cms.take_apart(data)
    trusted = cms.Trusted(
        roots=_certificates(settings.root_certificates),
        intermediates=_certificates(settings.intermediate_certificates or ""),
        names=re.compile(rf"([a-z0-9-]+\.|\*\.)?{re.escape(CLOUDS[settings.cloud].metadata)}"),
        now=asked.now,
    )
    return parse_attested(cms.verified_content(message, await _completed(message, trusted, outside)), asked)


def parse_attested(content: bytes, asked: Asked) -> Attested:
    """What a document says, once its challenge and its dates were checked.

    Args:
        content: From `cms.verified_content`.
        asked: The challenge and the time.

    Raises:
        Denied: `AttestedDataUnreadable`, `WrongChallenge`, `AttestedDataExpired`.
    """
    try:
        attested = Attested.model_validate(json_object(content))
    except ValueError:
        raise Denied(
            "AttestedDataUnreadable", "the attested data lacks nonce, vmId, subscriptionId or timeStamp, or is no JSON object"
        ) from None
    if asked.challenge is None or not hmac.compare_digest(attested.nonce.encode(), asked.challenge.encode()):
        raise Denied("WrongChallenge", "the nonce of the attested data is not the challenge of this join: ask for it anew")
    dates = attested.time_stamp
    if not dates.created_on - jwts.LEEWAY <= asked.now < dates.expires_on + jwts.LEEWAY:
        raise Denied("AttestedDataExpired", "the attested data has expired, or is of the future: one of the clocks is wrong")
    return attested


_ISSUERS: Final = re.compile(
    r"http://(?P<host>(?:www|caissuers)\.microsoft\.com|cacerts\.digicert\.(?:com|cn))"
    r"(?P<path>(?:/pki(?:ops)?)?(?:/[A-Za-z0-9][A-Za-z0-9%_-]*){1,4}\.(?:crt|cer))"
)
"""Where certificates of Azure's authorities lie. They are public, and believed only as far as they lead to a root."""


async def _completed(message: cms.UnverifiedMessage, trusted: cms.Trusted, outside: Outside) -> cms.Trusted:
    """With the certificate of the signer's issuer, which Azure leaves out of its messages, where nobody has it yet.

    Raises:
        Unavailable: It cannot be fetched.
    """
    known = (*message.certificates, *trusted.intermediates, *trusted.roots)
    try:
        place = _issuer_place(message.signer)
        missing = all(each.subject != message.signer.issuer for each in known)
    except cms.UNREADABLE:
        return trusted
    if not missing or place is None:
        return trusted
    answer = await outside.send(HTTPSRequest(method="GET", host=place["host"], path=place["path"], headers={}))
    try:
        fetched = x509.load_der_x509_certificate(answer.body if answer.status == _OK else b"")
    except cms.UNREADABLE:
        raise Unavailable(
            "AzureUnavailable",
            f"{place['host']} does not give the certificate of the signer's issuer (HTTP status {answer.status})",
        ) from None
    return cms.Trusted(roots=trusted.roots, intermediates=(*trusted.intermediates, fetched), names=trusted.names, now=trusted.now)


def _issuer_place(certificate: x509.Certificate) -> re.Match[str] | None:
    """Where a certificate says that its issuer's lies, if it is a place that we ask."""
    places = (
        access.access_location.value
        for access in certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS
    )
    return next((found for place in places if (found := _ISSUERS.fullmatch(str(place))) is not None), None)


# --- the token and the Resource Manager -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resource:
    """A virtual machine, as the Resource Manager calls it.

    Attributes:
        path: Its id.
        subscription: Id of its subscription, small letters.
        group: Its resource group.
        name: Its name; of one in a scale set the name of the set, a slash and the instance.
    """

    path: str
    subscription: str
    group: str
    name: str


_RESOURCE: Final = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"/resourcegroups/(?P<group>[\w.()-]{0,89}[\w()-])/providers/microsoft\.compute"
    r"/(?:virtualmachines/(?P<vm>\w[\w.-]{0,79})"
    r"|virtualmachinescalesets/(?P<set>\w[\w.-]{0,79})/virtualmachines/(?P<instance>\w[\w.-]{0,79}))",
    re.ASCII | re.IGNORECASE,
)


async def _claims(settings: AzureSettings, token: str, asked: Asked, outside: Outside) -> VerifiedClaims:
    unverified_token = jwts.take_apart(token)
    cloud = CLOUDS[settings.cloud]
    issuer = f"https://{cloud.issuer}/{settings.tenant_id}/"
    expected = Expected(issuer=issuer, audience=cloud.audience, now=asked.now)
    return jwts.verified_claims(unverified_token, await outside.keys(issuer, unverified_token.kid), expected)


def _resource(claims: VerifiedClaims) -> Resource:
    """The machine that a token was given to: by xms_az_rid, or by xms_mirid where the identity is the machine's own."""
    told = claims.text("xms_az_rid") or claims.text("xms_mirid") or ""
    found = _RESOURCE.fullmatch(told)
    if found is None:
        raise Denied(
            "NotAMachine",
            "the access token does not say which virtual machine it is of (xms_az_rid, xms_mirid): give the machine a managed "
            "identity, best its own (system-assigned)",
        )
    return Resource(
        path=told,
        subscription=found["subscription"].lower(),
        group=found["group"],
        name=found["vm"] or f"{found['set']}/{found['instance']}",
    )


class _Properties(Model):
    vm_id: str


class _Machine(Model):
    """A virtual machine, as the Resource Manager answers."""

    properties: _Properties


async def _vm_id(cloud: Cloud, resource: Resource, token: str, outside: Outside) -> str:
    """The unique id of a machine, small letters, from the Resource Manager by the machine's own right to read itself.

    Raises:
        Denied: It has no such right, or there is no such machine (`MachineNotReadable`).
        Unavailable: There is no answer that says.
    """
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    path = f"{resource.path}?api-version={API_VERSION}"
    answer = await outside.send(HTTPSRequest(method="GET", host=cloud.manager, path=path, headers=headers))
    if answer.status in _NOT_SHOWN:
        raise Denied(
            "MachineNotReadable",
            "the Resource Manager does not show the virtual machine to its managed identity: give the identity the role Reader "
            "on the machine (Microsoft.Compute/virtualMachines/read)",
        )
    try:
        return _Machine.model_validate(json_object(answer.body if answer.status == _OK else b"")).properties.vm_id.lower()
    except ValueError:
        raise Unavailable(
            "AzureUnavailable", f"the Resource Manager does not say which machine it is (HTTP status {answer.status})"
        ) from None


METHOD: Final = JoinMethod(
    name="azure",
    field="azure",
    description="Azure: a virtual machine with a managed identity, by attested data and an access token.",
    settings=AzureSettings,
    proof=AzureProof,
    verify=verify,
    audience=lambda settings, _cluster_name: CLOUDS[settings.cloud].audience,
    challenge=True,
)
