"""Who an X.509 certificate names: from the usage, the bot and the names that its roles gave it; never from a request."""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from machinebot.authority.profiles import Subject
from machinebot.policy.credential import BotRef, Usage
from machinebot.policy.grants import Grant
from machinebot.policy.names import MAX_SUBJECT_PART, NameKind

SERVER_UNIT: Final = "database server"
"""OU of certificates for database servers. The blank keeps it apart from every database's name, which is the OU of a client:
MongoDB takes a client whose O and OU are those of a server for a server."""


def common_name(bot: BotRef) -> str:
    """The CN of a bot: `bot:<namespace>:<name>`, or where that is too long `bot:` and 60 hex digits of its SHA-256.

    The short form has one colon, so that no bot's name can be written to look like another's. Who needs the whole name reads
    the SPIFFE ID.
    """
    if len(bot.user) <= MAX_SUBJECT_PART:
        return bot.user
    return "bot:" + hashlib.sha256(bot.user.encode()).hexdigest()[: MAX_SUBJECT_PART - len("bot:")]


def spiffe_id(bot: BotRef, grant: Grant, cluster_name: str) -> str:
    """The SPIFFE ID of a workload: the path that its roles allow it, in the trust domain of the cluster."""
    path = grant.plain(NameKind.SPIFFE_PATHS)
    return f"spiffe://{cluster_name}{path[0]}" if path else bot.spiffe_id(cluster_name)


def _identity(bot: BotRef, _grant: Grant, cluster_name: str) -> Subject:
    return Subject(organizations=(cluster_name,), common_name=common_name(bot), spiffe_id=bot.spiffe_id(cluster_name))


def _database_client(bot: BotRef, grant: Grant, cluster_name: str) -> Subject:
    return Subject(
        organizations=(cluster_name,),
        common_name=_first(grant, NameKind.DB_USERS),
        spiffe_id=bot.spiffe_id(cluster_name),
        unit=_first(grant, NameKind.DB_NAMES),
    )


def _database_server(bot: BotRef, grant: Grant, cluster_name: str) -> Subject:
    return Subject(
        organizations=(cluster_name,),
        common_name=_first(grant, NameKind.DB_USERS),
        spiffe_id=bot.spiffe_id(cluster_name),
        unit=SERVER_UNIT,
        dns_names=grant.plain(NameKind.DNS_NAMES),
    )


def _kubernetes(bot: BotRef, grant: Grant, cluster_name: str) -> Subject:
    return Subject(
        organizations=grant.plain(NameKind.KUBERNETES_GROUPS),
        common_name=_first(grant, NameKind.KUBERNETES_USERS) or common_name(bot),
        spiffe_id=bot.spiffe_id(cluster_name),
    )


def _workload(bot: BotRef, grant: Grant, cluster_name: str) -> Subject:
    # No CN: verifiers that look for one would take a name for what only the SPIFFE ID says.
    return Subject(
        organizations=(cluster_name,),
        common_name=None,
        spiffe_id=spiffe_id(bot, grant, cluster_name),
        dns_names=grant.plain(NameKind.DNS_NAMES),
    )


SUBJECTS: Final[Mapping[Usage, Callable[[BotRef, Grant, str], Subject]]] = MappingProxyType(
    {
        Usage.IDENTITY: _identity,
        Usage.DATABASE_CLIENT: _database_client,
        Usage.DATABASE_SERVER: _database_server,
        Usage.DATABASE_NODE: _database_server,
        Usage.KUBERNETES: _kubernetes,
        Usage.WORKLOAD: _workload,
    }
)
"""Who the certificates of each usage name, where bots may ask for it."""


def _first(grant: Grant, kind: NameKind) -> str | None:
    names = grant.plain(kind)
    return names[0] if names else None
