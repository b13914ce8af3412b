"""The kinds of names that roles allow and credentials carry: one row each, with what a name of it looks like.

A name is either asked for by an output and held against the globs of the roles, or carried in full as the roles give it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from machinebot.resources.bot import LOGIN_PATTERN, MAX_BOT_PATH, MAX_LOGIN
from machinebot.resources.meta import MAX_NAME

MAX_SUBJECT_PART: Final = 64
"""Longest common name, organization or unit of a certificate, characters (RFC 5280, appendix A.1: ub-common-name)."""


class NameKind(StrEnum):
    """A kind of names: the field of `allow` and `deny` in a MachineRole, and of `status.granted`."""

    LOGINS = "logins"
    HOST_PRINCIPALS = "hostPrincipals"
    KUBERNETES_USERS = "kubernetesUsers"
    KUBERNETES_GROUPS = "kubernetesGroups"
    DB_USERS = "dbUsers"
    DB_NAMES = "dbNames"
    DNS_NAMES = "dnsNames"
    SPIFFE_PATHS = "spiffePaths"
    JWT_AUDIENCES = "jwtAudiences"


@dataclass(frozen=True, slots=True)
class NameRule:
    """What holds for the names of one kind.

    Attributes:
        field: The field of the model of a role's rules.
        noun: One name of it, for messages.
        pattern: What the whole of a name looks like that goes into a credential.
        spelling: What to write, for messages.
        longest: Longest name, characters.
        asked: Whether outputs ask for names and roles write globs; else roles write names, and all of them are carried.
        any_case: Whether verifiers may pass over the case: a deny is then compared without it.
        reserved: Beginnings of names that only a role may write, never a bot's trait.
        never: Names that no credential carries, whatever a role says.
        invalid: Reason where a name does not fit.
        denied: Reason where a role denies a name asked for.
        not_allowed: Reason where no role allows a name asked for.
    """

    field: str
    noun: str
    pattern: re.Pattern[str]
    spelling: str
    longest: int = MAX_NAME
    asked: bool = True
    any_case: bool = False
    reserved: tuple[str, ...] = ()
    never: frozenset[str] = frozenset()
    invalid: str = "InvalidName"
    denied: str = "NameDenied"
    not_allowed: str = "NameNotAllowed"

    @property
    def whole(self) -> str:
        """The pattern for the whole of a name, as models and CRDs write it."""
        return f"^{self.pattern.pattern}$"

    def fits(self, name: str) -> bool:
        """Whether the name may stand in a credential."""
        return len(name) <= self.longest and self.pattern.fullmatch(name) is not None


_OWN_USERS: Final = ("system:", "bot:")
"""Beginnings of names that Kubernetes and we give out; a trait must not spell one (design, section 2: names)."""

_KUBERNETES: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:@/+-]*[A-Za-z0-9_])?")
_DATABASE: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.@$-]*[A-Za-z0-9_$])?")

DNS_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""One part of a DNS name, in lower case (RFC 1123, section 2.1)."""

SPIFFE_PATH: Final = r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)+"
"""A SPIFFE path (SPIFFE-ID, section 2.2): segments of letters, digits, '-', '_' and '.', none of them '.' or '..'."""

NAME_RULES: Final[Mapping[NameKind, NameRule]] = MappingProxyType(
    {
        NameKind.LOGINS: NameRule(
            field="logins",
            noun="login",
            pattern=re.compile(LOGIN_PATTERN),
            spelling=(f"letters, digits, '_', '.', '@' and '-', at most {MAX_LOGIN} characters, no blank, comma or newline"),
            longest=MAX_LOGIN,
            asked=False,
            invalid="InvalidLogin",
        ),
        NameKind.HOST_PRINCIPALS: NameRule(
            field="host_principals",
            noun="host name",
            pattern=re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?"),
            spelling="one such as web-1.node.example.test, without wildcards",
            any_case=True,
            invalid="InvalidPrincipal",
            denied="PrincipalDenied",
            not_allowed="PrincipalNotAllowed",
        ),
        NameKind.KUBERNETES_USERS: NameRule(
            field="kubernetes_users",
            noun="Kubernetes user",
            pattern=_KUBERNETES,
            spelling="one such as deployer or team:deployer, of at most 64 characters, without wildcards",
            longest=MAX_SUBJECT_PART,
            asked=False,
            reserved=_OWN_USERS,
        ),
        NameKind.KUBERNETES_GROUPS: NameRule(
            field="kubernetes_groups",
            noun="Kubernetes group",
            pattern=_KUBERNETES,
            spelling="one such as viewers or team:viewers, of at most 64 characters, without wildcards",
            longest=MAX_SUBJECT_PART,
            asked=False,
            reserved=_OWN_USERS,
            never=frozenset({"system:masters"}),
        ),
        NameKind.DB_USERS: NameRule(
            field="db_users",
            noun="database user",
            pattern=_DATABASE,
            spelling="one such as app or orders_rw, of at most 64 characters, without wildcards",
            longest=MAX_SUBJECT_PART,
        ),
        NameKind.DB_NAMES: NameRule(
            field="db_names",
            noun="database",
            pattern=_DATABASE,
            spelling="one such as orders, of at most 64 characters, without wildcards",
            longest=MAX_SUBJECT_PART,
        ),
        NameKind.DNS_NAMES: NameRule(
            field="dns_names",
            noun="DNS name",
            # Clients look for addresses elsewhere in a certificate.
            pattern=re.compile(rf"(?![0-9.]+\Z){DNS_LABEL}(\.{DNS_LABEL})*"),
            spelling="one such as db.data.svc.cluster.local, in lower case, without wildcards, and no address",
            any_case=True,
        ),
        NameKind.SPIFFE_PATHS: NameRule(
            field="spiffe_paths",
            noun="SPIFFE path",
            pattern=re.compile(SPIFFE_PATH),
            spelling="one such as /ns/ci/web, with letters, digits, '-', '_' and '.' between the slashes",
            longest=MAX_BOT_PATH,
        ),
        NameKind.JWT_AUDIENCES: NameRule(
            field="jwt_audiences",
            noun="audience",
            pattern=re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@%=&~+-]*"),
            spelling="one such as vault or https://api.example.test, without blanks and wildcards",
        ),
    }
)
"""Every kind of names. The patterns are for whole names that go into credentials; roles write globs where outputs ask."""


def own_path(namespace: str, name: str) -> str:
    """The SPIFFE path that belongs to one bot alone (design, section 2: names)."""
    return f"/ns/{namespace}/bot/{name}"


_OF_A_BOT: Final = re.compile(r"/ns/[^/]+/bot(/.*)?", re.IGNORECASE)


def is_path_of_a_bot(path: str) -> bool:
    """Whether the path is one that names a bot, so that only that bot may have it."""
    return _OF_A_BOT.fullmatch(path) is not None
