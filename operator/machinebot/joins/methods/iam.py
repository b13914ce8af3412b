"""`iam`: a machine of AWS, by a request to the Security Token Service that it has signed with its credentials and we send.

The signature covers our challenge, so that a request that was made for somebody else, or before, proves nothing. The secret key
never leaves the machine, and the request can do nothing but say who signed it (docs.aws.amazon.com, "GetCallerIdentity").
"""

import base64
import hmac
import re
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from machinebot.errors import Denied, Unavailable
from machinebot.joins import sts
from machinebot.joins.base import Asked, HTTPSAnswer, HTTPSRequest, JoinMethod, NotMatched, Outside, Proof, Proved
from machinebot.joins.claims import MAX_PATTERN, MAX_RULES
from machinebot.policy import globs
from machinebot.resources.meta import Model, Rule, rules, written_as

_ARN: Final = r"^arn:(aws|aws-cn|aws-eusc|aws-us-gov):(iam|sts)::[0-9*?]{1,12}:[!-~]+$"
_LITERAL: Final = r"^arn:[a-z-]+:(iam|sts)::[0-9]{12}:"
_NEEDS_ACCOUNT: Final = (
    "a rule must say which account: add account, or write its 12 digits into arn, "
    "such as arn:aws:sts::123456789012:assumed-role/deployer/*"
)
_ANY_ROLE: Final = re.compile(r":assumed-role/[*?]|::[0-9*?]+:[*?]")

_OK: Final = 200
_REFUSED: Final = frozenset({400, 401, 403})
"""HTTP status of requests that AWS does not take."""


class IAMRule(Model):
    """One rule: it fits when all of its fields do."""

    model_config = ConfigDict(
        json_schema_extra=rules(Rule(f"has(self.account) || (has(self.arn) && self.arn.matches(r'{_LITERAL}'))", _NEEDS_ACCOUNT))
    )

    account: (
        Annotated[
            str,
            written_as(r"^[0-9]{12}$", 'must be the id of an AWS account: 12 digits in quotes, such as "123456789012"'),
            Field(max_length=12),
        ]
        | None
    ) = Field(default=None, description="Id of the AWS account. Compared exactly.")
    arn: (
        Annotated[
            str,
            written_as(_ARN, "must be an ARN of IAM or STS, such as arn:aws:sts::123456789012:assumed-role/deployer/*"),
            Field(max_length=MAX_PATTERN),
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "ARN that GetCallerIdentity gives: of a role, arn:aws:sts::<account>:assumed-role/<role without its path>/<session>. "
            "`*` stands for any characters, `?` for one."
        ),
    )
    user_id: (
        Annotated[
            str,
            written_as(r"^[A-Z0-9]{16,128}(:[!-~]+)?$", "must be what GetCallerIdentity gives, such as AROAEXAMPLEEXAMPLEID:*"),
            Field(max_length=MAX_PATTERN),
        ]
        | None
    ) = Field(
        default=None,
        alias="userID",
        description=(
            "Unique id that GetCallerIdentity gives; of a role its id, a colon and the session. A role that is made anew under "
            "the same name has another. `*` stands for any characters, `?` for one."
        ),
    )

    @model_validator(mode="after")
    def _names_an_account(self) -> Self:
        if self.account is None and (self.arn is None or re.match(_LITERAL, self.arn) is None):
            raise ValueError(_NEEDS_ACCOUNT)
        return self


class IAMSettings(Model):
    """Settings of `iam`."""

    partition: Literal["aws", "aws-cn", "aws-eusc", "aws-us-gov"] = Field(
        default="aws",
        description="Part of AWS with the accounts: aws, aws-cn (China), aws-eusc (European Sovereign Cloud) or aws-us-gov.",
    )
    allow: tuple[IAMRule, ...] = Field(
        min_length=1,
        max_length=MAX_RULES,
        description="Who is let in: a rule fits when all of its fields do; one that fits is enough.",
    )


class SignedRequestProof(Proof):
    """What a client sends.

    Attributes:
        request: The signed request as it would be sent, in base64.
    """

    request: SecretStr


async def verify(settings: IAMSettings, proof: SignedRequestProof, asked: Asked, outside: Outside, /) -> Proved:
    """Sends the request to AWS and holds the answer against the rules. See `base.Verify`."""
    unverified = sts.take_apart(_bytes(proof.request.get_secret_value()))
    if asked.challenge is None or not hmac.compare_digest(unverified.unverified_challenge, asked.challenge):
        raise Denied("WrongChallenge", f"the header {sts.CHALLENGE_HEADER} does not hold the challenge of this join")
    host = unverified.host(settings.partition)
    request = HTTPSRequest(method="POST", host=host, path="/", headers=unverified.forwarded(), body=sts.BODY)
    identity = _identity(await outside.send(request), settings.partition)
    proved = Proved(
        subject=identity.arn,
        attributes={"account": identity.account, "arn": identity.arn, "userID": identity.user_id},
    )
    if not any(_fits(rule, identity) for rule in settings.allow):
        raise NotMatched(proved)
    return proved


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if len(text) <= 2 * sts.MAX_REQUEST else b""
    except ValueError:
        raise Denied("RequestUnreadable", "what was sent as request is no base64") from None


def _identity(answer: HTTPSAnswer, partition: str) -> sts.CallerIdentity:
    if answer.status in _REFUSED and not sts.is_throttled(answer.body):
        raise Denied(
            "SignatureInvalid",
            "AWS does not take the signature: the credentials may have ended or been deleted, or the machine's clock is wrong",
        )
    try:
        return sts.caller_identity(answer.body if answer.status == _OK else b"", partition)
    except ValueError:
        raise Unavailable("AWSUnavailable", f"AWS does not say who signed the request (HTTP status {answer.status})") from None


def _fits(rule: IAMRule, identity: sts.CallerIdentity) -> bool:
    return (
        (rule.account is None or rule.account == identity.account)
        and (rule.arn is None or globs.matches(rule.arn, identity.arn))
        and (rule.user_id is None or globs.matches(rule.user_id, identity.user_id))
    )


def warnings(settings: IAMSettings, /) -> tuple[str, ...]:
    """Rules that let in more than is probably meant."""
    found = []
    for number, rule in enumerate(settings.allow):
        if rule.arn is None and rule.user_id is None:
            found.append(
                f"allow[{number}] lets in everybody in the account, for to ask who one is needs no permission: add arn or userID"
            )
        elif rule.user_id is None and rule.arn is not None and _ANY_ROLE.search(rule.arn):
            found.append(
                f"allow[{number}] names no role: whoever assumes one chooses the name of the session; write the role into arn"
            )
    return tuple(found[:16])


METHOD: Final = JoinMethod(
    name="iam",
    field="iam",
    description="AWS: EC2, EKS, ECS, Lambda and whatever else has credentials of a role, by a signed GetCallerIdentity.",
    settings=IAMSettings,
    proof=SignedRequestProof,
    verify=verify,
    warnings=warnings,
    challenge=True,
)
