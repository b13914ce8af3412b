"""`iam`: a GetCallerIdentity for AWS's Security Token Service, signed but not sent, with the authority's challenge in it.

Credentials are found by AWS's own library in all of their places: environment, files, SSO, EKS, ECS, EC2. Settings: `region`
(default: AWS_REGION, AWS_DEFAULT_REGION or the configuration file, else the service's one name without a region), `profile`.
"""

import base64
import os
from collections.abc import Mapping
from typing import Any

from machinebot.agent.proofs.base import MISSING, UNAVAILABLE, Wanted, text
from machinebot.errors import Invalid, Unavailable
from machinebot.joins import sts


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `base.Prove`. The secret key is used here and goes nowhere."""
    try:
        # An extra, and slow to load: only whoever joins by iam needs it.
        from botocore import auth, awsrequest, exceptions, session  # noqa: PLC0415
    except ImportError:
        raise Invalid(MISSING, "the join method iam needs AWS's library: pip install machinebot[aws]") from None
    try:
        found = session.Session(profile=text(settings, "profile", "") or None)
        credentials = found.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
        region = text(settings, "region", "") or os.environ.get("AWS_REGION") or found.get_config_variable("region")
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise Unavailable(UNAVAILABLE, f"AWS's library finds no credentials: {error}") from error
    if frozen is None:
        raise Unavailable(MISSING, "there are no AWS credentials here: give the machine, task or pod a role")
    place = sts.place(region or None)
    if place is None:
        raise Invalid("InvalidSpec", f"there is no AWS region {str(region)[:64]!r}")
    host, signed_for = place
    request = awsrequest.AWSRequest(method="POST", url=f"https://{host}/", data=sts.BODY, headers=_headers(host, wanted))
    auth.SigV4Auth(frozen, "sts", signed_for).add_auth(request)
    request.headers["Content-Length"] = str(len(sts.BODY))  # not signed: whoever sends it on writes it anew
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
    return {"request": base64.b64encode("\r\n".join(lines).encode() + sts.BODY).decode()}


def _headers(host: str, wanted: Wanted) -> dict[str, str]:
    return {
        "Host": host,
        "Accept": "application/json",
        "Content-Type": sts.CONTENT_TYPE,
        sts.CHALLENGE_HEADER: wanted.challenge or "",
    }
