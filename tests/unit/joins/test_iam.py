"""The join method iam: what is sent on, where it goes, and who is let in by the answer. The signature itself is AWS's to judge."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import session as aws
from botocore.config import Config
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from machinebot.errors import Denied, MachinebotError, Unavailable
from machinebot.joins import sts
from machinebot.joins.base import Asked, HTTPSAnswer, HTTPSRequest, Proved
from machinebot.joins.keysets import KeySet
from machinebot.joins.methods import iam

CHALLENGE = "Nn7qT1lq0s5oX3b0Yk4v9fB2eW8rJ6uA"
ACCOUNT = "123456789012"
ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/i-0abc"
USER_ID = "AROAEXAMPLEEXAMPLEID:i-0abc"
RULE: Mapping[str, str] = {"account": ACCOUNT, "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/*"}
SIGNED = "accept;content-type;host;x-amz-date;x-amz-security-token;x-machinebot-challenge"
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=ASIAIOSFODNN7EXAMPLE/20261130/eu-central-1/sts/aws4_request, "
    f"SignedHeaders={SIGNED}, Signature={'0a' * 32}"
)
HEADERS: Mapping[str, str] = {
    "Host": "sts.eu-central-1.amazonaws.com",
    "Accept": "application/json",
    "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
    "X-Machinebot-Challenge": CHALLENGE,
    "X-Amz-Date": "20261130T120000Z",
    "X-Amz-Security-Token": "FwoGZXIvYXdzEXAMPLE//////////w==",
    "Authorization": AUTHORIZATION,
    "Content-Length": "43",
}


def raw(first: str = "POST / HTTP/1.1", body: bytes = sts.BODY, **changes: str | None) -> bytes:
    """The good request with headers of another value, or without them; underscores stand for hyphens."""
    values = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = {name: value for name, value in {**HEADERS, **values}.items() if value is not None}
    return "\r\n".join([first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


def authorization(old: str, new: str) -> bytes:
    assert old in AUTHORIZATION
    return raw(Authorization=AUTHORIZATION.replace(old, new))


def says(**changes: Any) -> HTTPSAnswer:
    result = {"Account": ACCOUNT, "Arn": ARN, "UserId": USER_ID, **changes}
    answer = {"GetCallerIdentityResponse": {"GetCallerIdentityResult": result, "ResponseMetadata": {"RequestId": "1"}}}
    return HTTPSAnswer(status=200, body=json.dumps(answer).encode())


@dataclass
class Service:
    """The outside: answers every request alike, and keeps them."""

    answer: HTTPSAnswer = field(default_factory=says)
    sent: list[HTTPSRequest] = field(default_factory=list)

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        self.sent.append(request)
        return self.answer

    async def keys(self, issuer: str, kid: str) -> KeySet:
        raise AssertionError(issuer, kid)

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        raise AssertionError(token, audience)


async def join(
    data: bytes,
    service: Service,
    *rules: Mapping[str, str],
    partition: str = "aws",
    challenge: str | None = CHALLENGE,
) -> Proved:
    settings = iam.IAMSettings.model_validate({"partition": partition, "allow": rules or [RULE]})
    proof = iam.SignedRequestProof(request=SecretStr(base64.b64encode(data).decode()))
    asked = Asked(cluster_name="example.test", challenge=challenge, now=datetime(2026, 11, 30, 12, tzinfo=UTC))
    return await iam.verify(settings, proof, asked, service)


async def reason_of(data: bytes, service: Service | None = None, **options: Any) -> str:
    """Why it is refused, without anything having been sent."""
    service = service or Service()
    with pytest.raises(MachinebotError) as caught:
        await join(data, service, **options)
    assert service.sent == []
    return caught.value.reason


async def test_request_is_sent_on_as_it_was_signed_and_the_answer_says_who_it_is() -> None:
    service = Service()
    proved = await join(raw(), service)
    assert proved.subject == ARN
    assert proved.attributes == {"account": ACCOUNT, "arn": ARN, "userID": USER_ID}
    (request,) = service.sent
    assert (request.method, request.host, request.path) == ("POST", "sts.eu-central-1.amazonaws.com", "/")
    assert request.body == sts.BODY
    assert request.headers == {
        "accept": "application/json",
        "content-type": HEADERS["Content-Type"],
        "x-machinebot-challenge": CHALLENGE,
        "x-amz-date": HEADERS["X-Amz-Date"],
        "x-amz-security-token": HEADERS["X-Amz-Security-Token"],
        "authorization": AUTHORIZATION,
    }


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(raw(Accept=None), id="accept is added, where it is not signed"),
        pytest.param(raw(User_Agent="aws-cli/2"), id="a user agent"),
        pytest.param(raw(Content_Type="application/x-www-form-urlencoded"), id="no charset"),
        pytest.param(raw().replace(b"Host: ", b"hOST:"), id="other letters, no blank"),
        pytest.param(authorization(", ", ","), id="commas without blanks"),
    ],
)
async def test_forms_that_mean_the_same(data: bytes) -> None:
    data = data if b"Accept" in data else data.replace(b"SignedHeaders=accept;", b"SignedHeaders=")
    service = Service()
    await join(data, service)
    assert service.sent[0].headers["accept"] == "application/json"


# --- the challenge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(raw(X_Machinebot_Challenge="A" * 32), "WrongChallenge", id="another challenge"),
        pytest.param(raw(X_Machinebot_Challenge=CHALLENGE.lower()), "WrongChallenge", id="other letters"),
        pytest.param(raw(X_Machinebot_Challenge=f"{CHALLENGE}, {CHALLENGE}"), "WrongChallenge", id="a list"),
        pytest.param(authorization(";x-machinebot-challenge", ""), "ChallengeNotSigned", id="not signed"),
        pytest.param(authorization("host;", ""), "ChallengeNotSigned", id="host not signed"),
        pytest.param(authorization("x-amz-date;", ""), "ChallengeNotSigned", id="date not signed"),
        pytest.param(raw(X_Machinebot_Challenge=None), "RequestNotTaken", id="absent"),
        pytest.param(raw(X_Machinebot_Challenge=""), "RequestUnreadable", id="empty"),
        pytest.param(raw(X_Teleport_Challenge=CHALLENGE), "RequestNotTaken", id="for somebody else as well"),
        pytest.param(
            authorization("x-machinebot-challenge", "x-machinebot-challenge;x-other"),
            "RequestNotTaken",
            id="signs what is not there",
        ),
        pytest.param(
            authorization("x-machinebot-challenge", "x-machinebot-challenge;host"), "RequestNotTaken", id="signs one twice"
        ),
    ],
)
async def test_challenge_must_be_ours_and_signed(data: bytes, reason: str) -> None:
    assert await reason_of(data) == reason


async def test_without_a_challenge_nothing_is_good() -> None:
    assert await reason_of(raw(), challenge=None) == "WrongChallenge"


# --- the host -------------------------------------------------------------------------------------------------------------

HOSTS = {
    "another host": "sts.example.test",
    "another suffix": "sts.eu-central-1.amazonaws.com.example.test",
    "another end": "sts.eu-central-1.amazonaws.org",
    "a prefix": "x.sts.eu-central-1.amazonaws.com",
    "a prefix without a dot": "evilsts.eu-central-1.amazonaws.com",
    "userinfo": "sts.eu-central-1.amazonaws.com@example.test",
    "userinfo before": "example.test@sts.eu-central-1.amazonaws.com",
    "a port": "sts.eu-central-1.amazonaws.com:443",
    "another port": "sts.eu-central-1.amazonaws.com:8443",
    "a trailing dot": "sts.eu-central-1.amazonaws.com.",
    "capital letters": "STS.eu-central-1.amazonaws.com",
    "a path": "sts.eu-central-1.amazonaws.com/x",
    "a fragment": "example.test#sts.eu-central-1.amazonaws.com",
    "a backslash": "example.test\\sts.eu-central-1.amazonaws.com",
    "a scheme": "https://sts.eu-central-1.amazonaws.com",
    "another service": "s3.eu-central-1.amazonaws.com",
    "a bucket called sts": "sts.s3.amazonaws.com",
    "a bucket in a region": "sts.s3.eu-central-1.amazonaws.com",
    "no such region": "sts.eu-nowhere-1.amazonaws.com",
    "a region of ten": "sts.eu-central-10.amazonaws.com",
    "a region of another partition": "sts.us-gov-west-1.amazonaws.com",
    "China's suffix": "sts.eu-central-1.amazonaws.com.cn",
    "the signature is for another region": "sts.eu-west-1.amazonaws.com",
    "no region, signed for one that is not its own": "sts.amazonaws.com",
    "no region, FIPS": "sts-fips.amazonaws.com",
    "an address": "169.254.169.254",
    "loopback": "127.0.0.1",
    "percent": "sts%2eeu-central-1.amazonaws.com",
    "two hosts": "sts.eu-central-1.amazonaws.com, example.test",
}


@pytest.mark.parametrize("host", [pytest.param(host, id=name) for name, host in HOSTS.items()])
async def test_request_goes_to_aws_alone(host: str) -> None:
    assert await reason_of(raw(Host=host)) == "HostNotTaken"


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("sts.eu-central-1.amazonaws。com", id="a full stop of another script"),
        pytest.param("sts.eu-central-1.amazonaws.c\u043em", id="a letter of another script"),
        pytest.param("sts.eu-central-1.amazonaws.com\x00.example.test", id="a zero"),
        pytest.param("sts.eu-central-1.amazonaws.com\t", id="a tab"),
    ],
)
async def test_host_is_printable_ascii(host: str) -> None:
    assert await reason_of(raw(Host=host)) == "RequestUnreadable"


async def test_name_without_a_region_signs_for_its_home() -> None:
    service = Service()
    data = raw(Host="sts.amazonaws.com", Authorization=AUTHORIZATION.replace("eu-central-1", "us-east-1"))
    await join(data, service)
    assert service.sent[0].host == "sts.amazonaws.com"


def places() -> list[tuple[str, str, str]]:
    """Every place of the service that AWS's own library knows: partition, host, region that is signed for."""
    session = aws.Session()
    session.set_credentials("AKIAIOSFODNN7EXAMPLE", "secret")
    plain, fips = Config(ignore_configured_endpoint_urls=True), Config(use_fips_endpoint=True)
    wanted = [
        (partition, region, plain) for partition in sts.PARTITIONS for region in session.get_available_regions("sts", partition)
    ]
    wanted += [("aws", "us-west-2", fips), ("aws-us-gov", "us-gov-west-1", fips)]
    return [
        (partition, session.create_client("sts", region, config=config).meta.endpoint_url.removeprefix("https://"), region)
        for partition, region, config in wanted
    ]


def test_every_place_that_awss_library_knows_is_taken() -> None:
    known = places()
    taken = [
        sts.take_apart(raw(Host=host, Authorization=AUTHORIZATION.replace("eu-central-1", region))).host(partition)
        for partition, host, region in known
    ]
    assert taken == [host for _, host, _ in known]
    assert len(taken) > 40
    assert {"sts-fips.us-west-2.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn"} <= set(taken)
    assert {"sts.us-gov-west-1.amazonaws.com", "sts.eusc-de-east-1.amazonaws.eu"} <= set(taken)
    assert [sts.place(region) for _, host, region in known if "fips" not in host] == [
        (host, region) for _, host, region in known if "fips" not in host
    ]


def test_place_without_a_region_and_of_none() -> None:
    assert sts.place(None) == ("sts.amazonaws.com", "us-east-1")
    assert sts.place("eu-nowhere-1") is None


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov", "aws-eusc"])
async def test_partition_of_the_join_token_counts(partition: str) -> None:
    assert await reason_of(raw(), partition=partition) == "HostNotTaken"


# --- the bytes ------------------------------------------------------------------------------------------------------------

GOOD = raw()
BROKEN = {
    "nothing": (b"", "RequestUnreadable"),
    "no end of the head": (GOOD.replace(b"\r\n\r\n", b"\r\n"), "RequestUnreadable"),
    "too long": (raw(X_Amz_Security_Token="x" * sts.MAX_REQUEST), "RequestUnreadable"),
    "far too long": (b"x" * (4 * sts.MAX_REQUEST), "RequestUnreadable"),
    "GET": (raw("GET / HTTP/1.1"), "RequestNotTaken"),
    "PUT": (raw("PUT / HTTP/1.1"), "RequestNotTaken"),
    "HTTP/1.0": (raw("POST / HTTP/1.0"), "RequestNotTaken"),
    "another path": (raw("POST /x HTTP/1.1"), "RequestNotTaken"),
    "a query": (raw("POST /?Action=GetCallerIdentity HTTP/1.1"), "RequestNotTaken"),
    "a signature in the query": (raw("GET /?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00 HTTP/1.1"), "RequestNotTaken"),
    "a whole address": (raw("POST https://sts.eu-central-1.amazonaws.com/ HTTP/1.1"), "RequestNotTaken"),
    "an address without a scheme": (raw("POST //example.test/ HTTP/1.1"), "RequestNotTaken"),
    "two blanks": (raw("POST  / HTTP/1.1"), "RequestNotTaken"),
    "another action": (raw(body=b"Action=AssumeRole&Version=2011-06-15       "), "RequestNotTaken"),
    "one more parameter": (raw(body=sts.BODY + b"&x=1"), "RequestNotTaken"),
    "no body": (raw(body=b""), "RequestNotTaken"),
    "a second request": (raw(body=sts.BODY + b"POST / HTTP/1.1\r\n\r\n"), "RequestNotTaken"),
    "a second request in the body's length": (raw(body=b"GET /x HTTP/1.1\r\nHost: example.test\r\n\r\n"), "RequestNotTaken"),
    "a header twice": (GOOD.replace(b"Accept:", b"Host: example.test\r\nAccept:"), "RequestUnreadable"),
    "the challenge twice": (GOOD.replace(b"Accept:", b"x-machinebot-challenge: x\r\nAccept:"), "RequestUnreadable"),
    "a signature twice": (GOOD.replace(b"Accept:", f"authorization: {AUTHORIZATION}\r\nAccept:".encode()), "RequestUnreadable"),
    "a folded line": (GOOD.replace(b"Accept:", b" folded\r\nAccept:"), "RequestUnreadable"),
    "a folded line of a tab": (GOOD.replace(b"Accept:", b"\tfolded\r\nAccept:"), "RequestUnreadable"),
    "a bare line feed": (GOOD.replace(b"\r\nAccept:", b"\nAccept:"), "RequestUnreadable"),
    "a bare carriage return": (GOOD.replace(b"\r\nAccept:", b"\rAccept:"), "RequestUnreadable"),
    "only line feeds": (GOOD.replace(b"\r\n", b"\n"), "RequestUnreadable"),
    "a line feed in a value": (GOOD.replace(b"application/json", b"application/json\nX: y"), "RequestUnreadable"),
    "a blank before the colon": (GOOD.replace(b"Accept:", b"Accept :"), "RequestUnreadable"),
    "no colon": (GOOD.replace(b"Accept:", b"Accept"), "RequestUnreadable"),
    "an empty line in the head": (GOOD.replace(b"\r\nAccept", b"\r\n\r\nAccept"), "RequestNotTaken"),
    "an underscore": (GOOD.replace(b"X-Amz-Date", b"X_Amz_Date"), "RequestUnreadable"),
    "chunks": (raw(Transfer_Encoding="chunked"), "RequestNotTaken"),
    "a connection header": (raw(Connection="x-machinebot-challenge"), "RequestNotTaken"),
    "another host by a proxy's header": (raw(X_Forwarded_Host="example.test"), "RequestNotTaken"),
    "a target": (raw(X_Amz_Target="x"), "RequestNotTaken"),
    "another length": (raw(Content_Length="44"), "RequestNotTaken"),
    "a length with a sign": (raw(Content_Length="+43"), "RequestNotTaken"),
    "no length": (raw(Content_Length=None), "RequestNotTaken"),
    "no host": (raw(Host=None), "RequestNotTaken"),
    "no signature": (raw(Authorization=None), "RequestNotTaken"),
    "no date": (raw(X_Amz_Date=None), "RequestNotTaken"),
    "another date": (raw(X_Amz_Date="Mon, 30 Nov 2026 12:00:00 GMT"), "RequestNotTaken"),
    "another form of answer": (raw(Accept="text/xml"), "RequestNotTaken"),
    "another form of body": (raw(Content_Type="application/json"), "RequestNotTaken"),
    "another algorithm": (authorization("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "RequestNotTaken"),
    "another service": (authorization("/sts/", "/iam/"), "RequestNotTaken"),
    "another scope": (authorization("aws4_request", "aws5_request"), "RequestNotTaken"),
    "no signed headers": (authorization(f"SignedHeaders={SIGNED}, ", ""), "RequestNotTaken"),
    "a short signature": (authorization("0a0a", "0a"), "RequestNotTaken"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [pytest.param(*row, id=name) for name, row in BROKEN.items()])
async def test_request_is_read_in_one_way_only(data: bytes, reason: str) -> None:
    assert await reason_of(data) == reason


@pytest.mark.parametrize("text", ["%%%", "é", "YQ", "YQ==\n"])
async def test_request_is_base64(text: str) -> None:
    settings = iam.IAMSettings.model_validate({"allow": [RULE]})
    asked = Asked(cluster_name="example.test", challenge=CHALLENGE, now=datetime(2026, 11, 30, 12, tzinfo=UTC))
    with pytest.raises(Denied) as caught:
        await iam.verify(settings, iam.SignedRequestProof(request=SecretStr(text)), asked, Service())
    assert caught.value.reason == "RequestUnreadable"


@hypothesis_settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, len(GOOD)), st.integers(0, 60))
def test_whatever_is_sent_is_read_or_denied(noise: bytes, place: int, cut: int) -> None:
    for data in (noise, GOOD[:place] + noise + GOOD[place + cut :]):
        try:
            read = sts.take_apart(data)
        except Denied:
            continue
        assert set(read.headers) <= sts.HEADERS
        assert data.endswith(b"\r\n\r\n" + sts.BODY)


# --- the answer -----------------------------------------------------------------------------------------------------------


def refusal(status: int, code: str) -> HTTPSAnswer:
    return HTTPSAnswer(status=status, body=json.dumps({"Error": {"Code": code, "Type": "Sender"}, "RequestId": "1"}).encode())


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        pytest.param(refusal(403, "SignatureDoesNotMatch"), Denied, "SignatureInvalid", id="a wrong signature"),
        pytest.param(refusal(403, "ExpiredToken"), Denied, "SignatureInvalid", id="credentials that have ended"),
        pytest.param(refusal(400, "IncompleteSignature"), Denied, "SignatureInvalid", id="half a signature"),
        pytest.param(HTTPSAnswer(403, b"<html>"), Denied, "SignatureInvalid", id="refused, not as JSON"),
        pytest.param(HTTPSAnswer(403, b'{"Error": 1}'), Denied, "SignatureInvalid", id="refused, in another form"),
        pytest.param(refusal(400, "Throttling"), Unavailable, "AWSUnavailable", id="too many requests"),
        pytest.param(refusal(500, "InternalFailure"), Unavailable, "AWSUnavailable", id="a failure"),
        pytest.param(HTTPSAnswer(302, says().body), Unavailable, "AWSUnavailable", id="a redirect is no answer"),
        pytest.param(HTTPSAnswer(307, b""), Unavailable, "AWSUnavailable", id="a redirect that keeps the method"),
        pytest.param(HTTPSAnswer(201, says().body), Unavailable, "AWSUnavailable", id="another success"),
        pytest.param(HTTPSAnswer(200, b"<GetCallerIdentityResponse/>"), Unavailable, "AWSUnavailable", id="XML"),
        pytest.param(HTTPSAnswer(200, b"{}"), Unavailable, "AWSUnavailable", id="nothing in it"),
        pytest.param(HTTPSAnswer(200, b'{"GetCallerIdentityResponse": {}}'), Unavailable, "AWSUnavailable", id="no result"),
        pytest.param(
            HTTPSAnswer(200, says().body.replace(b'"Account"', b'"Account": "1", "Account"')),
            Unavailable,
            "AWSUnavailable",
            id="a key twice",
        ),
        pytest.param(says(Account=123456789012), Unavailable, "AWSUnavailable", id="an account that is a number"),
        pytest.param(says(Account=None), Unavailable, "AWSUnavailable", id="no account"),
        pytest.param(says(Account="999999999999"), Unavailable, "AWSUnavailable", id="an account that is not the ARN's"),
        pytest.param(says(Arn=ARN.replace("aws", "aws-cn", 1)), Unavailable, "AWSUnavailable", id="an ARN of another partition"),
        pytest.param(says(Arn=ARN.replace(":sts:", ":s3:")), Unavailable, "AWSUnavailable", id="an ARN of another service"),
        pytest.param(says(Arn=ARN + "\n"), Unavailable, "AWSUnavailable", id="an ARN with a newline"),
        pytest.param(says(UserId=""), Unavailable, "AWSUnavailable", id="no user id"),
    ],
)
async def test_answer_that_does_not_say_who_it_is(answer: HTTPSAnswer, kind: type[MachinebotError], reason: str) -> None:
    service = Service(answer)
    with pytest.raises(kind) as caught:
        await join(raw(), service)
    assert caught.value.reason == reason
    assert len(service.sent) == 1


# --- the rules ------------------------------------------------------------------------------------------------------------

RULES = {
    "the account": ({"account": ACCOUNT}, True),
    "another account": ({"account": "999999999999"}, False),
    "the ARN": ({"arn": ARN}, True),
    "every session of the role": ({"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/*"}, True),
    "another role": ({"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/deploy/*"}, False),
    "a role of another account": ({"arn": "arn:aws:sts::999999999999:assumed-role/deployer/*"}, False),
    "a user": ({"arn": f"arn:aws:iam::{ACCOUNT}:user/deployer"}, False),
    "any account's role, and the account": ({"account": ACCOUNT, "arn": "arn:aws:sts::*:assumed-role/deployer/*"}, True),
    "any account's role, and another account": ({"account": "999999999999", "arn": "arn:aws:sts::*:assumed-role/deployer/*"}, False),
    "the role's id": ({"account": ACCOUNT, "userID": "AROAEXAMPLEEXAMPLEID:*"}, True),
    "the id of a role that was deleted": ({**RULE, "userID": "AROAEXAMPLEEXAMPLEOLD:*"}, False),
    "an id alone is no prefix": ({"account": ACCOUNT, "userID": "AROAEXAMPLEEXAMPLEID"}, False),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "good"), [pytest.param(*row, id=name) for name, row in RULES.items()])
async def test_rules(rule: Mapping[str, str], good: bool) -> None:
    if good:
        await join(raw(), Service(), rule)
        await join(raw(), Service(), {"account": "999999999999"}, rule)
        return
    with pytest.raises(Denied) as caught:
        await join(raw(), Service(), rule)
    assert caught.value.reason == "RulesNotMatched"


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({}, id="empty"),
        pytest.param({"account": "12345678901"}, id="an account of eleven digits"),
        pytest.param({"account": "12345678901*"}, id="an account with a wildcard"),
        pytest.param({"account": ""}, id="an empty account"),
        pytest.param({"arn": "*"}, id="any ARN"),
        pytest.param({"arn": "arn:*"}, id="any ARN that begins like one"),
        pytest.param({"arn": "arn:aws:sts::*:assumed-role/deployer/*"}, id="a role of any account"),
        pytest.param({"arn": "arn:aws:sts::12345678901?:assumed-role/deployer/*"}, id="a role of ten accounts"),
        pytest.param({"arn": "arn:aws:sts::12345678901*:assumed-role/deployer/*"}, id="a wildcard that may hold a colon"),
        pytest.param({"arn": "arn:*:sts::123456789012:assumed-role/deployer/*"}, id="any partition"),
        pytest.param({"arn": "arn:aws:s3::123456789012:x"}, id="another service"),
        pytest.param({"account": ACCOUNT, "arn": ""}, id="an empty ARN"),
        pytest.param({"userID": "AROAEXAMPLEEXAMPLEID:*"}, id="an id without an account"),
        pytest.param({"account": ACCOUNT, "userID": "*:deployer"}, id="any id"),
    ],
)
def test_rule_that_restricts_too_little_is_refused(rule: Mapping[str, str]) -> None:
    with pytest.raises(ValidationError):
        iam.IAMSettings.model_validate({"allow": [rule]})


def test_no_rules_are_refused() -> None:
    with pytest.raises(ValidationError):
        iam.IAMSettings.model_validate({"allow": []})


@pytest.mark.parametrize(
    ("rule", "warning"),
    [
        pytest.param({"account": ACCOUNT}, "lets in everybody", id="a whole account"),
        pytest.param({"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/*/deployer"}, "names no role", id="the name of a session"),
        pytest.param({"arn": f"arn:aws:iam::{ACCOUNT}:*"}, "names no role", id="everybody by ARN"),
        pytest.param(RULE, None, id="a role"),
        pytest.param({"account": ACCOUNT, "arn": "arn:aws:sts::*:assumed-role/deployer/*"}, None, id="a role, account beside it"),
        pytest.param({"account": ACCOUNT, "userID": "AROAEXAMPLEEXAMPLEID:*"}, None, id="the id of a role"),
    ],
)
def test_warnings(rule: Mapping[str, str], warning: str | None) -> None:
    found = iam.METHOD.warnings(iam.IAMSettings.model_validate({"allow": [rule]}))
    assert len(found) == (warning is not None)
    assert all(warning is not None and warning in each and "allow[0]" in each for each in found)


def test_method_asks_for_a_challenge_and_shows_no_secret() -> None:
    assert iam.METHOD.challenge
    assert not iam.METHOD.renewable
    proof = iam.SignedRequestProof(request=SecretStr("c2VjcmV0"))
    assert "c2VjcmV0" not in repr(proof)
    assert AUTHORIZATION not in repr(sts.take_apart(raw()))
    with pytest.raises(ValidationError) as caught:
        iam.SignedRequestProof.model_validate({"request": ["c2VjcmV0"]})
    assert "c2VjcmV0" not in str(caught.value)
