"""`gcp`: a workload on Google Cloud, by an identity token of its service account from the metadata server (cloud.google.com,
"Verify VM identity").
"""

import re
from collections.abc import Sequence
from typing import Final

from machinebot.joins.claims import Claim, Match, OIDCSettings, Platform, platform
from machinebot.joins.jwts import VerifiedClaims

ISSUER: Final = "https://accounts.google.com"

_ENGINE: Final = ("google", "compute_engine")
"""Where tokens of virtual machines say which one it is; those of GKE's workload identity have nothing there."""

_ACCOUNT: Final = re.compile(r"[^@]+@([a-z][-a-z0-9]{4,28}[a-z0-9])\.iam\.gserviceaccount\.com")
"""A service account that people have made, whose address names its project. Google's own defaults do not."""


class GCPSettings(OIDCSettings):
    """Settings of `gcp`."""


def _account(verified: VerifiedClaims) -> Sequence[str]:
    """The service account, where Google says that the address is its own."""
    email = verified.text("email")
    return (email,) if email is not None and verified.at("email_verified") is True else ()


def _project(verified: VerifiedClaims) -> Sequence[str]:
    """The machine's project, or else that of the service account."""
    if verified.at(*_ENGINE) is not None:
        project = verified.text(*_ENGINE, "project_id")
        return () if project is None else (project,)
    return tuple(found[1] for account in _account(verified) if (found := _ACCOUNT.fullmatch(account)))


def _places(verified: VerifiedClaims) -> Sequence[str]:
    """The machine's zone, such as us-west1-b, and the region that it is in, us-west1."""
    zone = verified.text(*_ENGINE, "zone") or ""
    return tuple(place for place in (zone, zone.rpartition("-")[0]) if place)


CLAIMS: Final = (
    Claim(
        "project_ids",
        (*_ENGINE, "project_id"),
        "Ids of projects.",
        Match.ONE_OF,
        stable=True,  # Google never gives the id of a project again
        alias="projectIDs",
        read=_project,
    ),
    Claim("service_accounts", "email", "Email addresses of service accounts.", Match.ONE_OF, read=_account),
    Claim("locations", (*_ENGINE, "zone"), "Zones or regions of virtual machines.", Match.ONE_OF, read=_places),
)

METHOD: Final = platform(
    name="gcp",
    description="Google Cloud, by an identity token of a service account from the metadata server.",
    settings=GCPSettings,
    table=Platform(
        claims=CLAIMS,
        one_of=(("project_ids",),),
        issuer=lambda _settings: ISSUER,
        audience=lambda _settings, cluster_name: cluster_name,
        ignored=frozenset({"azp", "email_verified", "hd"}),
    ),
)
