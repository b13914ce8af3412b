"""The checks of `machinebot doctor`: a table of small functions over what was found out. Pure; each says the way out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

from machinebot.cli import standing
from machinebot.cli.locks import view
from machinebot.clock import parse_rfc3339
from machinebot.errors import Denied, MachinebotError, NotFound
from machinebot.resources.meta import API_VERSION

Json = dict[str, Any]
T = TypeVar("T")
"""What is found out."""

OLDEST: Final = (1, 30)
"""Kubernetes from which on ValidatingAdmissionPolicies are served."""

SKEW_WARNING: Final = timedelta(seconds=10)
SKEW_FAILURE: Final = timedelta(minutes=1)
"""Certificates begin one minute before they are made: a verifier that is further behind refuses new ones."""

LEASE_SECONDS: Final = 15
"""For how long a leader may be silent where its Lease does not say."""

FENCES: Final = ("tokens", "secrets", "serviceaccounts", "workloads", "configmaps")
"""What the policies fence the operator off from: each is called like the release, `-fence-` and one of these."""

BOT_ROLES: Final = ("machinebot-bot-roles", "machinebot-bot-roles-3-to-16", "machinebot-bot-roles-17-to-32")
"""The policies that ask whether who writes a bot may give it its roles."""

INSTALL: Final = "install the chart of this version; helm upgrade leaves CRDs alone: kubectl apply --server-side -f crds/"
"""The way out where a kind is missing or old."""

SHOWN: Final = 5
"""Most names in one finding; `machinebot status` has them all."""


class Level(StrEnum):
    """What a check has found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        level: How bad it is.
        message: What is.
        way_out: What to do; empty where all is well.
    """

    level: Level
    message: str
    way_out: str = ""


Answer: TypeAlias = T | MachinebotError
"""What was found out, or why it could not be."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out.

    Attributes:
        version: Answer of `/version`.
        resources: Plurals of our kinds that the API server serves.
        definitions: CRDs of ours, by their names.
        wanted: The CRDs that this program would install, by their names.
        authorities: Every MachineAuthority.
        lease: The Lease, or None where there is none.
        lease_name: Namespace and name of the Lease.
        policies: Every ValidatingAdmissionPolicy.
        bindings: Every ValidatingAdmissionPolicyBinding.
        https: Address that answered, or None where none was given.
        date: The API server's clock when it was asked; None where it does not tell.
        asked_at: Our clock at that moment.
        outputs: Every MachineOutput.
        join_tokens: Every MachineJoinToken.
        locks: Every MachineLock.
        now: Our clock.
    """

    version: Answer[Json]
    resources: Answer[frozenset[str]]
    definitions: Answer[Mapping[str, Json]]
    wanted: Mapping[str, Json]
    authorities: Answer[list[Json]]
    lease: Answer[Json | None]
    lease_name: str
    policies: Answer[list[Json]]
    bindings: Answer[list[Json]]
    https: Answer[str | None]
    date: Answer[datetime | None]
    asked_at: datetime
    outputs: Answer[list[Json]]
    join_tokens: Answer[list[Json]]
    locks: Answer[list[Json]]
    now: datetime


def unanswered(error: MachinebotError) -> Finding:
    """What a check says of a question that was not answered: who may not ask has nothing to worry about."""
    if isinstance(error, Denied):
        return Finding(Level.SKIP, f"you may not look: {error.message}")
    if isinstance(error, NotFound):
        return Finding(Level.FAIL, "its kind is not installed", INSTALL)
    return Finding(Level.FAIL, error.message, "see whether the API server is well, and who answers in its place")


def api_server(facts: Facts) -> Finding:
    """Whether it answers, and is new enough."""
    if isinstance(facts.version, MachinebotError):
        return Finding(Level.FAIL, facts.version.message, "check the kubeconfig, its context and credentials: kubectl version")
    text = str(facts.version.get("gitVersion"))
    try:
        number = (int(facts.version["major"]), int(str(facts.version["minor"]).rstrip("+")))
    except (KeyError, ValueError):
        return Finding(Level.WARN, f"its version cannot be read: {text}", "check that it is Kubernetes 1.30 or newer")
    if number < OLDEST:
        return Finding(Level.FAIL, f"Kubernetes {text} is too old", "upgrade to 1.30 or newer")
    return Finding(Level.OK, f"Kubernetes {text}")


def kinds(facts: Facts) -> Finding:
    """Whether the CRDs are there, and those of this version."""
    if isinstance(facts.resources, MachinebotError):
        return unanswered(facts.resources)
    missing = sorted(name for name in facts.wanted if name.partition(".")[0] not in facts.resources)
    if missing:
        return Finding(Level.FAIL, f"not installed: {_listed(missing)}", INSTALL)
    if isinstance(facts.definitions, MachinebotError):
        return Finding(Level.OK, f"{len(facts.wanted)} kinds of {API_VERSION}; whether of this version you may not see")
    other = sorted(name for name, crd in facts.wanted.items() if _schema(facts.definitions.get(name, {})) != _schema(crd))
    if other:
        return Finding(Level.WARN, f"of another version than this program: {_listed(other)}", INSTALL)
    return Finding(Level.OK, f"{len(facts.wanted)} kinds of {API_VERSION}, of this version")


def _schema(crd: Mapping[str, Any]) -> object:
    versions = (crd.get("spec") or {}).get("versions") or [{}]
    return _without_empty((versions[0].get("schema") or {}).get("openAPIV3Schema"))


def _without_empty(value: object) -> object:
    """The schema as the API server stores it: it drops the empty `properties` of an object without fields."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items() if each != {}}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def authorities(facts: Facts) -> Finding:
    """Whether each signs."""
    if isinstance(facts.authorities, MachinebotError):
        return unanswered(facts.authorities)
    if not facts.authorities:
        return Finding(Level.FAIL, "there is none", "install the chart with authority.create, or make one: docs/resources.md")
    bad = [
        f"{body['metadata']['name']} ({found.reason}: {found.message})"
        for body in facts.authorities
        for found in (standing.of_other(body, facts.now),)
        if found.word != standing.READY_WORD
    ]
    if bad:
        return Finding(Level.FAIL, f"not ready: {_listed(bad)}", "look the reason up in docs/troubleshooting.md")
    return Finding(Level.OK, f"ready: {_listed([body['metadata']['name'] for body in facts.authorities])}")


def leader(facts: Facts) -> Finding:
    """Whether a replica leads: its Lease was renewed a moment ago, by the API server's clock where that is known."""
    if isinstance(facts.lease, MachinebotError):
        return unanswered(facts.lease)
    if facts.lease is None:
        return Finding(
            Level.FAIL,
            f"there is no Lease {facts.lease_name}",
            "does the operator run? Elsewhere than there: write --operator-namespace and --lease-name",
        )
    spec = facts.lease.get("spec") or {}
    holder = str(spec.get("holderIdentity") or "")
    look = "look at the operator's pods and their log: nobody renews anything"
    if not holder:
        return Finding(Level.FAIL, "nobody leads: the last leader has given the Lease up", look)
    try:
        silent = facts.now + _skew(facts) - parse_rfc3339(str(spec["renewTime"]))
    except (KeyError, ValueError):
        return Finding(Level.FAIL, f"the Lease {facts.lease_name} cannot be read", look)
    if silent > timedelta(seconds=int(spec.get("leaseDurationSeconds") or LEASE_SECONDS)):
        return Finding(Level.FAIL, f"{holder} has not renewed the Lease for {int(silent.total_seconds())} s", look)
    return Finding(Level.OK, f"{holder} leads")


def _skew(facts: Facts) -> timedelta:
    """How far the API server's clock is ahead of ours; nothing where it is not known."""
    return facts.date - facts.asked_at if isinstance(facts.date, datetime) else timedelta(0)


def admission(facts: Facts) -> Finding:
    """Whether the policies are there, and in force."""
    if isinstance(facts.policies, MachinebotError):
        return unanswered(facts.policies)
    if isinstance(facts.bindings, MachinebotError):
        return unanswered(facts.bindings)
    names = {body["metadata"]["name"] for body in facts.policies}
    bound = {body["spec"].get("policyName") for body in facts.bindings if "Deny" in (body["spec"].get("validationActions") or ())}
    effective = names & bound
    missing = [name for name in BOT_ROLES if name not in effective]
    missing += [f"*-fence-{what}" for what in FENCES if not any(name.endswith(f"-fence-{what}") for name in effective)]
    if missing:
        return Finding(
            Level.FAIL,
            f"missing, or not bound with the action Deny: {_listed(missing)}",
            "upgrade the chart: without these, who may write bots gives them any role, or the operator may touch any Secret",
        )
    return Finding(Level.OK, f"{len(BOT_ROLES) + len(FENCES)} policies are in force")


def https(facts: Facts) -> Finding:
    """Whether the operator's HTTPS answers."""
    if isinstance(facts.https, MachinebotError):
        return Finding(Level.FAIL, facts.https.message, "check the Service or the Ingress in front of it, and --url")
    if facts.https is None:
        return Finding(
            Level.SKIP, "its address is known inside of the cluster alone: write --url and --ca-file to have it checked"
        )
    return Finding(Level.OK, f"{facts.https} answers")


def clock(facts: Facts) -> Finding:
    """Whether this machine's clock and the API server's agree."""
    if isinstance(facts.date, MachinebotError):
        return unanswered(facts.date)
    if facts.date is None:
        return Finding(Level.SKIP, "the API server does not tell its time")
    apart = abs(_skew(facts))
    way_out = "set the clocks by NTP: credentials are judged by them"
    if apart > SKEW_FAILURE:
        return Finding(Level.FAIL, f"this machine and the API server are {int(apart.total_seconds())} s apart", way_out)
    if apart > SKEW_WARNING:
        return Finding(Level.WARN, f"this machine and the API server are {int(apart.total_seconds())} s apart", way_out)
    return Finding(Level.OK, "this machine and the API server agree")


def outputs(facts: Facts) -> Finding:
    """Whether each is ready, and none overdue."""
    if isinstance(facts.outputs, MachinebotError):
        return unanswered(facts.outputs)
    found = [(body, standing.of_output(body, facts.now)) for body in facts.outputs]
    late = [_name(body) for body, each in found if each.word in (standing.OVERDUE, standing.EXPIRED)]
    if late:
        return Finding(Level.FAIL, f"{len(late)} overdue or expired: {_listed(late)}", "machinebot status -A says why")
    bad = [_name(body) for body, each in found if each.is_problem]
    if bad:
        return Finding(Level.WARN, f"{len(bad)} with trouble: {_listed(bad)}", "machinebot status -A says why")
    return Finding(Level.OK, f"{len(found)} outputs, none overdue")


def join_tokens(facts: Facts) -> Finding:
    """Whether each can be joined by, and lets in whom it means."""
    if isinstance(facts.join_tokens, MachinebotError):
        return unanswered(facts.join_tokens)
    bad = [_name(body) for body in facts.join_tokens if standing.of_join_token(body, facts.now).is_problem]
    if bad:
        return Finding(Level.WARN, f"{len(bad)} that nobody joins by: {_listed(bad)}", "machinebot status -A says why")
    warned = [f"{_name(body)}: {text}" for body in facts.join_tokens for text in standing.warnings(body)]
    if warned:
        return Finding(Level.WARN, _listed(warned), "restrict the rules by ids that are never given to somebody else")
    return Finding(Level.OK, f"{len(facts.join_tokens)} join tokens")


def locks(facts: Facts) -> Finding:
    """Whether there are some that lock nobody any more."""
    if isinstance(facts.locks, MachinebotError):
        return unanswered(facts.locks)
    views = [view(body, facts.now) for body in facts.locks]
    unreadable = [each.name for each in views if each.state == "unreadable"]
    if unreadable:
        return Finding(Level.FAIL, f"cannot be read, and lock nobody: {_listed(unreadable)}", "apply them again")
    ended = [each.name for each in views if each.state == "expired"]
    if ended:
        return Finding(Level.WARN, f"{len(ended)} have ended: {_listed(ended)}", "machinebot locks rm NAME")
    return Finding(Level.OK, f"{len(views)} locks in force")


CHECKS: Final[tuple[tuple[str, Callable[[Facts], Finding]], ...]] = (
    ("API server", api_server),
    ("clock", clock),
    ("CRDs", kinds),
    ("admission policies", admission),
    ("authorities", authorities),
    ("leader", leader),
    ("HTTPS", https),
    ("outputs", outputs),
    ("join tokens", join_tokens),
    ("locks", locks),
)
"""The checks, what others rest on first."""


def _name(body: Mapping[str, Any]) -> str:
    return f"{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
