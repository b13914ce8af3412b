"""`database`: an X.509 certificate for a user of a database, or for its server, in the files that each kind of database reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from pydantic import ConfigDict, Field

from machinebot.outputs.base import Material, OutputType, Parts
from machinebot.outputs.settings import DatabaseName, DNSNames
from machinebot.outputs.trust import certificates
from machinebot.policy.credential import Purpose, Usage, Wish
from machinebot.policy.names import NameKind
from machinebot.resources.meta import Model, Rule, rules

DatabaseFormat = Literal["tls", "postgres", "mysql", "mongo", "cockroach"]

NODE: Final = "node"
"""The user by which servers of CockroachDB know each other. A role must allow it for every server that is a client of its peers:
to these it is one of them and may do everything, whatever names it proves."""


@dataclass(frozen=True, slots=True)
class _Files:
    """The keys of the Secret in one format; `{user}` stands for the database user.

    Attributes:
        certificate: Holds the certificate.
        key: Holds the private key; the same as the certificate's where both stand in one file.
        authorities: Holds the CA certificates.
    """

    certificate: str
    key: str
    authorities: str

    def of(self, user: str | None) -> "_Files":
        """The names for that user."""
        certificate, key = (name.format(user=user or "") for name in (self.certificate, self.key))
        return _Files(certificate=certificate, key=key, authorities=self.authorities)


CLIENT_FILES: Final[Mapping[DatabaseFormat, _Files]] = MappingProxyType(
    {
        "tls": _Files("tls.crt", "tls.key", "ca.crt"),
        "postgres": _Files("postgresql.crt", "postgresql.key", "root.crt"),
        "mysql": _Files("client-cert.pem", "client-key.pem", "ca.pem"),
        "mongo": _Files("mongo.crt", "mongo.crt", "mongo.cas"),
        "cockroach": _Files("client.{user}.crt", "client.{user}.key", "ca.crt"),
    }
)
"""Names of the files that the clients of each database look for."""

SERVER_FILES: Final[Mapping[DatabaseFormat, _Files]] = MappingProxyType(
    {
        "tls": _Files("tls.crt", "tls.key", "ca.crt"),
        "postgres": _Files("server.crt", "server.key", "root.crt"),
        "mysql": _Files("server-cert.pem", "server-key.pem", "ca.pem"),
        "mongo": _Files("mongo.crt", "mongo.crt", "mongo.cas"),
        "cockroach": _Files("node.crt", "node.key", "ca.crt"),
    }
)
"""The same for the servers."""

CLUSTERED: Final[frozenset[DatabaseFormat]] = frozenset({"mongo", "cockroach"})
"""Databases whose servers are clients of each other."""

_RULES: Final = rules(
    Rule(
        "(has(self.server) && self.server) || has(self.user)",
        "a certificate for a client names a database user: set user, such as user: app",
        ".user",
    ),
    Rule(
        "(has(self.server) && self.server) || !has(self.dnsNames) || size(self.dnsNames) == 0",
        "dnsNames are for servers: set server: true, or leave them out",
        ".dnsNames",
    ),
    Rule(
        "!(has(self.server) && self.server) || (has(self.dnsNames) && size(self.dnsNames) > 0)",
        "a certificate for a server needs the names that clients reach it by: set dnsNames",
        ".dnsNames",
    ),
    Rule(
        "!(has(self.server) && self.server) || !(has(self.user) || has(self.database))",
        "user and database are for clients: leave them out, or server: true",
        ".server",
    ),
    Rule(
        "!has(self.format) || self.format != 'cockroach' || !has(self.user) || self.user.matches(r'^[-._a-zA-Z0-9]+$')",
        "the format cockroach has the user in the names of its files: letters, digits, '-', '_' and '.' only",
        ".user",
    ),
)


class DatabaseSettings(Model):
    """Settings of a `database` output."""

    model_config = ConfigDict(json_schema_extra=_RULES)

    format: DatabaseFormat = Field(
        default="tls",
        description="Whose names of files the Secret has: tls for any, postgres, mysql (also MariaDB), mongo, cockroach.",
    )
    user: DatabaseName | None = Field(
        default=None,
        description="Database user, the CN of the certificate; it must fit `allow.dbUsers` of one of the roles.",
    )
    database: DatabaseName | None = Field(
        default=None,
        description=(
            "Database, the OU of the certificate, for servers that look at the whole subject; it must fit `allow.dbNames` of one "
            "of the roles. The others do not see it: bound the user there."
        ),
    )
    server: bool = Field(
        default=False,
        description=(
            "A certificate for the server instead of a client. In the formats mongo and cockroach its user is node, which must "
            "fit `allow.dbUsers` of one of the roles. Default: false."
        ),
    )
    dns_names: DNSNames = Field(
        default=(),
        description="With server: names that clients reach it by; each must fit `allow.dnsNames` of one of the roles.",
    )


def ask(settings: DatabaseSettings, /) -> Wish:
    """A certificate of the CA for databases, for one end of the connection."""
    if settings.server:
        usage = Usage.DATABASE_NODE if settings.format in CLUSTERED else Usage.DATABASE_SERVER
        users = {NameKind.DB_USERS: (NODE,)} if settings.format in CLUSTERED else {}
        return Wish(usages=frozenset({usage}), names={NameKind.DNS_NAMES: settings.dns_names, **users})
    return Wish(
        usages=frozenset({Usage.DATABASE_CLIENT}),
        names={
            NameKind.DB_USERS: () if settings.user is None else (settings.user,),
            NameKind.DB_NAMES: () if settings.database is None else (settings.database,),
        },
    )


def render(settings: DatabaseSettings, material: Material, /) -> Mapping[str, bytes]:
    """Certificate, key and CAs, in one file or several."""
    files, certificate = _files(settings), material.issued.x509_certificate or b""
    authorities = {files.authorities: certificates(material.trust.of(Purpose.DATABASE))}
    if files.key == files.certificate:
        return {files.certificate: material.key.pkcs8 + certificate, **authorities}
    return {files.certificate: certificate, files.key: material.key.pkcs8, **authorities}


def keys(settings: DatabaseSettings, /) -> frozenset[str]:
    """Those of the format."""
    files = _files(settings)
    return frozenset({files.certificate, files.key, files.authorities})


def parts(settings: DatabaseSettings, data: Mapping[str, bytes], /) -> Parts:
    """The key and its certificate. Readers of PEM find theirs in a text that holds both."""
    files = _files(settings)
    return Parts(private_key=data[files.key], certificates={files.certificate: data[files.certificate]})


def _files(settings: DatabaseSettings) -> _Files:
    return (SERVER_FILES if settings.server else CLIENT_FILES)[settings.format].of(settings.user)


OUTPUT: Final = OutputType(
    name="database",
    description=(
        "An X.509 certificate for a user of a database or for its server, in the files of tls, postgres, mysql, mongo or "
        "cockroach."
    ),
    settings=DatabaseSettings,
    ask=ask,
    render=render,
    keys=keys,
    parts=parts,
)
