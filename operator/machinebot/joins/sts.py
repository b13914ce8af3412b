"""A request to AWS's Security Token Service that somebody else has signed, taken apart so that it and nothing else is sent on.

The signature (AWS Signature Version 4) is AWS's to judge: it alone has the secret. What is ours is that the request asks who one
is and nothing more, that it goes to AWS and nowhere else, and that the signature covers our challenge.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pydantic import ConfigDict, Field

from machinebot.errors import Denied
from machinebot.joins.strict import json_object
from machinebot.resources.meta import Model

MAX_REQUEST: Final = 16 * 1024
"""Longest request that is read, bytes; one with the token of a session has some 3 KiB."""

CHALLENGE_HEADER: Final = "X-Machinebot-Challenge"
"""Header that the challenge stands in; it must be among those that are signed."""

BODY: Final = b"Action=GetCallerIdentity&Version=2011-06-15"
"""The one body that is sent: it asks who the signer is, which needs no permission and changes nothing."""

CONTENT_TYPE: Final = "application/x-www-form-urlencoded; charset=utf-8"
"""What the body is."""

HEADERS: Final = frozenset(
    {
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
        "x-machinebot-challenge",
    }
)
"""The headers that are taken, in small letters: one that is not here might turn the request into another."""

_NEEDED: Final = frozenset({"authorization", "content-length", "content-type", "host", "x-amz-date", "x-machinebot-challenge"})

_SIGNED: Final = frozenset({"host", "x-amz-date", "x-machinebot-challenge"})
"""What the signature must cover: where it goes, when it was made, and that it was made for us."""

_FIXED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "accept": frozenset({"application/json"}),
        "content-length": frozenset({str(len(BODY))}),
        "content-type": frozenset({CONTENT_TYPE, "application/x-www-form-urlencoded"}),
    }
)
"""Headers that have one of a few values where they are there at all."""

_REQUEST_LINE: Final = b"POST / HTTP/1.1"
_LINE: Final = re.compile(rb"([A-Za-z0-9-]{1,64}):[ ]?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
"""A header line (RFC 9112, section 5) of printable ASCII, neither empty nor continued."""

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=\w{16,128}/[0-9]{8}/(?P<region>[a-z0-9-]{1,32})/sts/aws4_request,"
    r" ?SignedHeaders=(?P<signed>[a-z0-9-]+(?:;[a-z0-9-]+)*), ?Signature=[0-9a-f]{64}",
    re.ASCII,
)
_DATE: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of AWS that has accounts and names of its own.

    Attributes:
        suffix: What the DNS names of its services end in.
        regions: Pattern of its regions. New ones need no release of ours; below such a name nobody but AWS has any.
        home: The region that the one name without a region signs for; None where there is no such name.
    """

    suffix: str
    regions: re.Pattern[str]
    home: str | None = None


_DIRECTION: Final = "(?:central|(?:north|south)(?:east|west)?|east|west)"

PARTITIONS: Final[Mapping[str, Partition]] = MappingProxyType(
    {
        "aws": Partition("amazonaws.com", re.compile(f"(?:af|ap|ca|eu|il|me|mx|sa|us)-{_DIRECTION}-[1-9]"), home="us-east-1"),
        "aws-cn": Partition("amazonaws.com.cn", re.compile(f"cn-{_DIRECTION}-[1-9]")),
        "aws-eusc": Partition("amazonaws.eu", re.compile(f"eusc-[a-z]{{2}}-{_DIRECTION}-[1-9]")),
        "aws-us-gov": Partition("amazonaws.com", re.compile(f"us-gov-{_DIRECTION}-[1-9]")),
    }
)
"""The partitions that are on the internet, by the word that stands second in an ARN."""


def place(region: str | None) -> tuple[str, str] | None:
    """The host to sign a request for, and the region that the signature is for; None where there is no such region.

    Args:
        region: A region of any partition, or None for the one host of `aws` without a region.
    """
    for partition in PARTITIONS.values():
        if region is None and partition.home is not None:
            return f"sts.{partition.suffix}", partition.home
        if region is not None and partition.regions.fullmatch(region) is not None:
            return f"sts.{region}.{partition.suffix}", region
    return None


_REGIONAL: Final = re.compile(r"(?P<service>sts(?:-fips)?)\.(?P<region>[a-z0-9-]{1,32})\.(?P<suffix>[a-z.]{1,32})")


@dataclass(frozen=True, slots=True)
class UnverifiedRequest:
    """A request that asks who its signer is and nothing else. Whether the signature is good, AWS alone knows.

    Attributes:
        headers: By name in small letters.
        region: Region that it is signed for.
    """

    headers: Mapping[str, str] = field(repr=False)
    region: str

    @property
    def unverified_challenge(self) -> str:
        """What stands where the challenge belongs: signed, but not compared."""
        return self.headers["x-machinebot-challenge"]

    def host(self, partition: str) -> str:
        """The host of AWS that it is for, made of what we know rather than of what was sent.

        Args:
            partition: One of `PARTITIONS`.

        Raises:
            Denied: It is for another host (`HostNotTaken`).
        """
        known = PARTITIONS[partition]
        if known.home is not None and self.headers["host"] == f"sts.{known.suffix}" and self.region == known.home:
            return f"sts.{known.suffix}"
        found = _REGIONAL.fullmatch(self.headers["host"])
        if (
            found is None
            or known.regions.fullmatch(found["region"]) is None
            or found["suffix"] != known.suffix
            or self.region != found["region"]
        ):
            raise Denied(
                "HostNotTaken",
                f"the request is not for the Security Token Service of {partition}, signed for its own region: sign one for "
                f"sts.<region>.{known.suffix}",
            )
        return f"{found['service']}.{self.region}.{known.suffix}"

    def forwarded(self) -> dict[str, str]:
        """The headers that are sent on; the answer is wanted as JSON, and whoever sends adds Host and Content-Length."""
        kept = {name: value for name, value in self.headers.items() if name not in ("host", "content-length")}
        return {**kept, "accept": "application/json"}


def take_apart(data: bytes) -> UnverifiedRequest:
    """A signed request (HTTP/1.1 as sent, RFC 9112), read in one way only.

    Raises:
        Denied: It is none (`RequestUnreadable`), asks for something else (`RequestNotTaken`), or its signature does not cover
            what it must (`ChallengeNotSigned`).
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    if len(data) > MAX_REQUEST or not separator:
        raise Denied("RequestUnreadable", f"what was sent is no HTTP/1.1 request of at most {MAX_REQUEST} bytes")
    first, *lines = head.split(b"\r\n")
    if first != _REQUEST_LINE or body != BODY:
        raise Denied("RequestNotTaken", f"the request must be `POST / HTTP/1.1` with the body {BODY.decode()}, and nothing else")
    headers = _headers(lines)
    authorization = _AUTHORIZATION.fullmatch(headers["authorization"])
    if authorization is None or _DATE.fullmatch(headers["x-amz-date"]) is None:
        raise Denied(
            "RequestNotTaken",
            "the request is not signed by AWS Signature Version 4 in the header Authorization, for the service sts",
        )
    signed = authorization["signed"].split(";")
    if len(set(signed)) != len(signed) or not set(signed) <= set(headers):
        raise Denied("RequestNotTaken", "SignedHeaders must name headers that the request has, each once")
    if not set(signed) >= _SIGNED:
        raise Denied("ChallengeNotSigned", f"SignedHeaders must name {', '.join(sorted(_SIGNED))}")
    return UnverifiedRequest(headers=MappingProxyType(headers), region=authorization["region"])


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        name = found[1].decode("ascii").lower() if found else ""
        if found is None or name in headers:
            raise Denied("RequestUnreadable", "a header of the request stands there twice, or is no line of printable ASCII")
        value = found[2].decode("ascii")
        if name not in HEADERS or value not in _FIXED.get(name, {value}):
            raise Denied(
                "RequestNotTaken", f"the request may have no headers but {', '.join(sorted(HEADERS))}, as they are meant"
            )
        headers[name] = value
    if not set(headers) >= _NEEDED:
        raise Denied("RequestNotTaken", f"the request must have the headers {', '.join(sorted(_NEEDED))}")
    return headers


# --- the answer -----------------------------------------------------------------------------------------------------------


class CallerIdentity(Model):
    """Who AWS says that the signer is."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    account: str = Field(alias="Account", description="Id of the account, 12 digits.")
    arn: str = Field(alias="Arn", description="Amazon Resource Name of the user, or of the session of a role.")
    user_id: str = Field(
        alias="UserId",
        pattern=r"^[!-~]{1,256}$",
        description="Id that AWS gives to nobody else: of a user, or of a role with the name of the session behind a colon.",
    )


class _Result(Model):
    identity: CallerIdentity = Field(alias="GetCallerIdentityResult")


class _Answer(Model):
    """What the service answers where JSON is accepted."""

    result: _Result = Field(alias="GetCallerIdentityResponse")


class _Error(Model):
    code: str = Field(alias="Code")


class _Refusal(Model):
    """What the service answers where it takes a request not."""

    error: _Error = Field(alias="Error")


_ARN: Final = re.compile(r"arn:(?P<partition>[a-z-]{3,16}):(?:iam|sts)::(?P<account>[0-9]{12}):[!-~]{1,1900}")

_THROTTLED: Final = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded"})


def caller_identity(body: bytes, partition: str) -> CallerIdentity:
    """Who the signer is, from the answer to a request that AWS has taken.

    Raises:
        ValueError: It is no such answer, or one of another partition.
    """
    identity = _Answer.model_validate(json_object(body)).result.identity
    named = _ARN.fullmatch(identity.arn)
    if named is None or (named["partition"], named["account"]) != (partition, identity.account):
        raise ValueError("an ARN of elsewhere")
    return identity


def is_throttled(body: bytes) -> bool:
    """Whether an answer with status 400 says that there were too many requests, as AWS has it."""
    try:
        return _Refusal.model_validate(json_object(body)).error.code in _THROTTLED
    except ValueError:
        return False
