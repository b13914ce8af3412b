"""Forms of settings that several types of output share: names that people write, each checked by the model and the CRD alike."""

from typing import Annotated, Final

from pydantic import Field

from machinebot.policy.names import DNS_LABEL, MAX_SUBJECT_PART, NAME_RULES, NameKind
from machinebot.resources.meta import MAX_NAME, Rule, matches, rules, written_as

MAX_DNS_NAMES: Final = 64
"""Most DNS names of one certificate."""

_PATH: Final = r"^(/[A-Za-z0-9._-]+)+$"

SPIFFEPath = Annotated[
    str,
    Field(
        pattern=_PATH,
        max_length=MAX_NAME,
        json_schema_extra=rules(
            Rule(
                f"{matches(_PATH)} && !(self + '/').contains('/./') && !(self + '/').contains('/../')",
                "must be the path of a SPIFFE ID such as /ns/ci/web: letters, digits, '-', '_' and '.' between the slashes, no "
                "slash at the end, no '.' or '..' between two",
            )
        ),
    ),
]
"""The path of a SPIFFE ID (SPIFFE-ID, section 2.2)."""

DNSName = Annotated[
    str,
    written_as(
        rf"^{DNS_LABEL}(\.{DNS_LABEL})*$",
        "must be a DNS name in small letters, such as db.data.svc.cluster.local, without wildcards; one entry for each",
    ),
    Field(max_length=MAX_NAME),
]

DNSNames = Annotated[tuple[DNSName, ...], Field(max_length=MAX_DNS_NAMES, json_schema_extra={"x-kubernetes-list-type": "set"})]

DatabaseName = Annotated[
    str,
    written_as(
        NAME_RULES[NameKind.DB_USERS].whole,
        "must be a name such as app or orders_rw: letters, digits, '_', '.', '@', '$' and '-', without blanks and wildcards",
    ),
    Field(max_length=MAX_SUBJECT_PART),
]
"""A database user or the name of a database."""
