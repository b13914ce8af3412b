"""What has been seen of the cluster: our objects and the metadata of our Secrets, and whom a change concerns.

Filled by the watches, the sweep and our own writes; read by every decision. Objects are kept as compact JSON and read
when needed, which takes a tenth of the memory of models. A change is told by resourceVersion, so that nothing is looked at
twice, whoever brings it.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from machinebot.errors import Invalid
from machinebot.joins.registry import MachineJoinToken, parse_join_token
from machinebot.kube.owned import is_managed, owner_uid
from machinebot.kube.resources import (
    AUTHORITY_LABEL,
    CONFIG_MAPS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from machinebot.outputs.registry import MachineOutput, parse_output
from machinebot.policy.credential import BotRef
from machinebot.policy.globs import matches_any
from machinebot.policy.locks import Lock, lock_of
from machinebot.reconcile.keys import RESOURCES, Due, Key, Sort
from machinebot.reconcile.links import Links, links_of
from machinebot.reconcile.places import Places, authority_of, config_map_name
from machinebot.reconcile.versions import is_newer
from machinebot.resources.authority import MachineAuthority
from machinebot.resources.bot import MachineBot
from machinebot.resources.lock import MachineLock
from machinebot.resources.meta import READY, first_error
from machinebot.resources.output import RENEW_ANNOTATION
from machinebot.resources.role import MachineRole

Json = dict[str, Any]

TOMBSTONES: Final = 4096
"""UIDs of deleted objects that are remembered, so that an older list or event does not bring one back."""

COUNT_DELAY: Final = 2.0
"""Seconds before a bot's count of outputs is looked at: those applied together are counted once."""

NEW_BOT_DELAY: Final = 0.5
"""Seconds before a new bot is looked at by itself: what is applied with it is then counted in its first status."""


_SORTS: Final = {resource: sort for sort, resource in RESOURCES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One of our objects as seen last.

    Attributes:
        uid: Which incarnation.
        version: resourceVersion.
        generation: Moves with the spec.
        body: Compact JSON of the parts that decisions use.
        links: Names that others find it by: a bot's roles, the bot of an output or a join token, what a lock is about.
    """

    uid: str
    version: str
    generation: int
    body: bytes
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """Metadata of one of our Secrets."""

    uid: str
    version: str
    owner_uid: str | None


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What metrics tell of an output: RFC 3339 times, and the status of its condition Ready."""

    namespace: str
    name: str
    type: str
    not_before: str | None
    not_after: str | None
    renew_at: str | None
    ready: str


class World:
    """The cluster as seen. All of its methods return at once."""

    def __init__(self) -> None:
        self._entries: dict[Sort, dict[tuple[str, str], Entry]] = {sort: {} for sort in Sort}
        self._secrets: dict[tuple[str, str], SecretEntry] = {}
        self._links: Final = Links()
        self._roles: dict[str, MachineRole] = {}
        self._locks: dict[str, Lock] = {}
        self._all_locks: tuple[Lock, ...] = ()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.places: Final = Places()
        """Where trust bundles can be and where they are."""
        self.lost_accounts: set[BotRef] = set()
        """Bots whose own ServiceAccount was deleted under them; the bot's reconcile makes it again and takes it off."""
        self.doubted: set[Key] = set()
        """Outputs whose status somebody else has changed: what their Secret holds is read from itself, which takes them off."""

    # --- reading ---------------------------------------------------------------------------------------------------

    def entry(self, key: Key) -> Entry | None:
        """The object as seen last, or None."""
        return self._entries[key.sort].get((key.namespace, key.name))

    def keys(self, sort: Sort) -> Iterator[Key]:
        """Every object of that sort."""
        return (Key(sort, namespace, name) for namespace, name in list(self._entries[sort]))

    def count(self, sort: Sort) -> int:
        """How many objects of that sort there are."""
        return len(self._entries[sort])

    def secret(self, namespace: str, name: str) -> SecretEntry | None:
        """Metadata of one of our Secrets, or None."""
        return self._secrets.get((namespace, name))

    def bot(self, ref: BotRef) -> MachineBot | None:
        """The bot, or None where there is none. Part of the authority's `Directory`."""
        entry = self._entries[Sort.BOT].get((ref.namespace, ref.name))
        return None if entry is None else _read_bot(entry.body)

    def roles(self) -> Mapping[str, MachineRole]:
        """Every role that can be read, by name. Part of the authority's `Directory`."""
        return self._roles

    def locks(self) -> tuple[Lock, ...]:
        """Every lock that can be read, in force or not. Part of the authority's `Directory`."""
        return self._all_locks

    def lock(self, key: Key) -> MachineLock | None:
        """The MachineLock, or None where there is none.

        Raises:
            Invalid: It does not fit the model.
        """
        entry = self.entry(key)
        try:
            return None if entry is None else MachineLock.model_validate_json(entry.body)
        except ValidationError as error:
            raise Invalid("InvalidSpec", first_error(error)) from error

    def join_token(self, key: Key) -> MachineJoinToken | None:
        """The MachineJoinToken, or None where there is none.

        Raises:
            Invalid: It does not fit the model, or has not exactly one join method.
        """
        entry = self.entry(key)
        return None if entry is None else parse_join_token(from_json(entry.body))

    def output(self, key: Key) -> MachineOutput | None:
        """The output, or None where there is none.

        Raises:
            Invalid: It does not fit the model.
        """
        entry = self.entry(key)
        return None if entry is None else parse_output(from_json(entry.body))

    def authority(self, name: str) -> MachineAuthority | None:
        """The MachineAuthority, or None where there is none.

        Raises:
            Invalid: It does not fit the model.
        """
        entry = self._entries[Sort.AUTHORITY].get(("", name))
        try:
            return None if entry is None else _read_authority(entry.body)
        except ValidationError as error:
            raise Invalid("InvalidSpec", first_error(error)) from error

    def output_facts(self) -> Iterator[OutputFacts]:
        """Every output's facts for metrics."""
        for (namespace, name), entry in list(self._entries[Sort.OUTPUT].items()):
            status = from_json(entry.body)["status"]
            conditions = status.get("conditions") or ()
            yield OutputFacts(
                namespace=namespace,
                name=name,
                type=status.get("type") or "",
                not_before=status.get("notBefore"),
                not_after=status.get("notAfter"),
                renew_at=status.get("renewAt"),
                ready=next((each["status"] for each in conditions if each["type"] == READY), "Unknown"),
            )

    def outputs_of(self, ref: BotRef) -> frozenset[str]:
        """Names of the outputs that name the bot."""
        return self._links.outputs((ref.namespace, ref.name))

    # --- seeing ----------------------------------------------------------------------------------------------------

    def observe(self, resource: Resource, body: Mapping[str, Any], *, gone: bool) -> list[Due]:
        """Takes in one object, or that it is gone; returns whom it concerns. What is known already concerns nobody."""
        if resource == SECRETS:
            return self._observe_secret(body["metadata"], gone=gone)
        if resource == SERVICE_ACCOUNTS:
            return self._observe_account(body["metadata"], gone=gone)
        if resource == NAMESPACES:
            return self._observe_namespace(body["metadata"], gone=gone)
        if resource == CONFIG_MAPS:
            return self._observe_bundle(body["metadata"], gone=gone)
        sort = _SORTS[resource]
        metadata = body["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        if gone:
            return self._remove(sort, place, metadata["uid"])
        if sort is Sort.OUTPUT:
            self._doubt(place, body)
        return self._put(sort, place, body)

    def knows(self, resource: Resource, metadata: Mapping[str, Any]) -> bool:
        """Whether an object of ours, as its metadata tells it, was seen already in this version or a later one."""
        entry = self._entries[_SORTS[resource]].get((metadata.get("namespace", ""), metadata["name"]))
        return entry is not None and entry.uid == metadata["uid"] and not is_newer(metadata["resourceVersion"], entry.version)

    def remember(self, key: Key, body: Mapping[str, Any]) -> None:
        """Takes in the answer to our own write: it concerns nobody."""
        known = self.entry(key)
        if known is not None and known.version == body["metadata"]["resourceVersion"]:
            self.doubted.discard(key)  # a watch was quicker to tell of it than the answer
        self._put(key.sort, (key.namespace, key.name), body)

    def remember_secret(self, namespace: str, name: str, entry: SecretEntry | None) -> None:
        """Takes in the answer to our own write of a Secret, or what a read has shown."""
        if entry is None:
            self._secrets.pop((namespace, name), None)
        else:
            self._secrets[namespace, name] = entry

    def missing(self, sort: Sort, places: Iterable[tuple[str, str]], namespace: str) -> list[Due]:
        """Removes objects that a full list did not show; returns whom that concerns.

        Args:
            sort: What was listed.
            places: What was known before the list was asked for, and is not in it.
            namespace: The namespace that was listed; empty for all.
        """
        concerned: list[Due] = []
        for place in places:
            entry = self._entries[sort].get(place)
            if entry is not None and (not namespace or place[0] == namespace):
                concerned += self._remove(sort, place, entry.uid)
        return concerned

    def secret_places(self) -> set[tuple[str, str]]:
        """Where our Secrets are."""
        return set(self._secrets)

    def missing_secrets(self, places: Iterable[tuple[str, str]], namespace: str) -> list[Due]:
        """The same as `missing` for Secrets."""
        concerned: list[Due] = []
        for place in places:
            if (not namespace or place[0] == namespace) and self._secrets.pop(place, None) is not None:
                concerned += [Due(Key(Sort.OUTPUT, place[0], name)) for name in self._claimants(*place)]
        return concerned

    def missing_namespaces(self, names: Iterable[str]) -> list[Due]:
        """The same as `missing` for namespaces."""
        return [due for name in names if self.places.forget_namespace(name) for due in self._namespace_dues(name)]

    def missing_bundles(self, places: Iterable[tuple[str, str]], namespace: str) -> list[Due]:
        """The same as `missing` for ConfigMaps with trust bundles."""
        concerned: list[Due] = []
        for place in places:
            authority = authority_of(place[1])
            if authority is not None and (not namespace or place[0] == namespace):
                self.places.remember_bundle(*place, None)
                concerned.append(Due(Key(Sort.BUNDLE, place[0], authority)))
        return concerned

    def _put(self, sort: Sort, place: tuple[str, str], body: Mapping[str, Any]) -> list[Due]:
        old = self._entries[sort].get(place)
        metadata = body["metadata"]
        if metadata["uid"] in self._gone or (old is not None and not is_newer(metadata["resourceVersion"], old.version)):
            return []
        new = Entry(
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            generation=metadata.get("generation", 0),
            body=_compact(body),
            links=links_of(sort, body.get("spec") or {}),
        )
        self._entries[sort][place] = new
        self._links.move(sort, place, () if old is None else old.links, new.links)
        if sort is Sort.ROLE:
            self._read_role(place[1], new)
        elif sort is Sort.LOCK:
            self._read_lock(place[1], new)
        return self._concerned(sort, place, old, new)

    def _doubt(self, place: tuple[str, str], body: Mapping[str, Any]) -> None:
        """Our own writes are known before a watch tells of them: another status is somebody else's."""
        old = self._entries[Sort.OUTPUT].get(place)
        if old is None or not is_newer(body["metadata"]["resourceVersion"], old.version):
            return
        if from_json(old.body)["status"] != (body.get("status") or {}):
            self.doubted.add(Key(Sort.OUTPUT, *place))

    def _remove(self, sort: Sort, place: tuple[str, str], uid: str) -> list[Due]:
        self._gone[uid] = None
        if len(self._gone) > TOMBSTONES:
            self._gone.popitem(last=False)
        old = self._entries[sort].get(place)
        if old is None or old.uid != uid:
            return []
        del self._entries[sort][place]
        self._links.move(sort, place, old.links, ())
        if sort is Sort.ROLE:
            self._roles.pop(place[1], None)
        elif sort is Sort.LOCK:
            self._set_lock(place[1], None)
        self.doubted.discard(Key(sort, *place))
        return self._concerned(sort, place, old, None)

    def _read_role(self, name: str, entry: Entry) -> None:
        try:
            self._roles[name] = MachineRole.model_validate_json(entry.body)
        except ValidationError:
            self._roles.pop(name, None)  # unreadable is unknown: refused by name where it is used

    def _read_lock(self, name: str, entry: Entry) -> None:
        try:
            self._set_lock(name, lock_of(MachineLock.model_validate_json(entry.body)))
        except ValidationError:
            return  # it stays what it was, so that nobody goes on by a mistake, and its status says so

    def _set_lock(self, name: str, lock: Lock | None) -> None:
        if self._locks.get(name) == lock:
            return  # its status was written
        if lock is None:
            del self._locks[name]
        else:
            self._locks[name] = lock
        self._all_locks = tuple(self._locks.values())

    # --- whom it concerns ------------------------------------------------------------------------------------------

    def _concerned(self, sort: Sort, place: tuple[str, str], old: Entry | None, new: Entry | None) -> list[Due]:
        """The object itself; and where its spec changed, those whose outcome depends on it."""
        concerned = [Due(Key(sort, *place), NEW_BOT_DELAY if sort is Sort.BOT and old is None else 0.0)]
        if old is not None and new is not None and (old.uid, old.generation) == (new.uid, new.generation):
            return concerned
        if old is None or new is None:
            concerned += self._links.of_target(sort, place)
        return concerned + self._depending(sort, place, old.links if old else (), new.links if new else ())

    def _depending(self, sort: Sort, place: tuple[str, str], old: tuple[str, ...], new: tuple[str, ...]) -> list[Due]:
        """Those whose outcome depends on the object, by what it was and is linked with."""
        links = {*old, *new}
        match sort:
            case Sort.OUTPUT:
                return [] if old == new else [Due(Key(Sort.BOT, place[0], bot), COUNT_DELAY) for bot in sorted(links)]
            case Sort.BOT:
                return self._links.of_bot(place)
            case Sort.ROLE:
                return self._links.of_role(place[1])
            case Sort.LOCK:
                return self._links.of_lock(links, self._dues_of_instance)
            case Sort.JOIN_TOKEN:
                return []
            case Sort.AUTHORITY:
                return self.everyone() + self.bundles(place[1])
            case Sort.BUNDLE:
                raise ValueError("a trust bundle in a namespace is no object of ours")

    def _dues_of_instance(self, instance: str) -> list[Due]:
        """The join token that the instance has used up, if it has: its status names it."""
        tokens = self._entries[Sort.JOIN_TOKEN].items()
        return [Due(Key(Sort.JOIN_TOKEN, *place)) for place, entry in tokens if instance.encode() in entry.body]

    def stopped_by(self, key: Key) -> list[Due]:
        """Whom the lock stops: for the moment at which it ends by itself."""
        entry = self.entry(key)
        return [] if entry is None else self._links.of_lock(entry.links, self._dues_of_instance)

    def everyone(self) -> list[Due]:
        """Every bot and output: for a change of the authority, and for the sweep."""
        return [Due(key) for sort in (Sort.BOT, Sort.OUTPUT) for key in self.keys(sort)]

    def bundles(self, authority: str) -> list[Due]:
        """The authority's trust bundle wherever it should be or is."""
        try:
            known = self.authority(authority)
        except Invalid:
            known = None
        globs = () if known is None else known.spec.trust_bundle.namespaces
        wanted = {namespace for namespace in self.places.namespaces() if matches_any(globs, namespace)} if globs else set()
        name = config_map_name(authority)
        wanted.update(namespace for namespace, found in self.places.bundles() if found == name)
        return [Due(Key(Sort.BUNDLE, namespace, authority)) for namespace in sorted(wanted)]

    def _observe_namespace(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Due]:
        """A namespace that comes or goes matters to every authority that publishes there."""
        return self._namespace_dues(metadata["name"]) if self.places.observe_namespace(metadata, gone=gone) else []

    def _namespace_dues(self, namespace: str) -> list[Due]:
        return [Due(Key(Sort.BUNDLE, namespace, key.name)) for key in self.keys(Sort.AUTHORITY)]

    def _observe_bundle(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Due]:
        authority = authority_of(metadata["name"])
        if authority is None or not self.places.observe_bundle(metadata, gone=gone):
            return []
        return [Due(Key(Sort.BUNDLE, metadata["namespace"], authority))]

    def _observe_secret(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Due]:
        namespace, name = metadata["namespace"], metadata["name"]
        authority = (metadata.get("labels") or {}).get(AUTHORITY_LABEL)
        old = self._secrets.get((namespace, name))
        if gone or not is_managed(metadata):
            if old is None or old.uid != metadata["uid"]:
                return []
            del self._secrets[namespace, name]
        else:
            if old is not None and not is_newer(metadata["resourceVersion"], old.version):
                return []
            self._secrets[namespace, name] = SecretEntry(
                uid=metadata["uid"], version=metadata["resourceVersion"], owner_uid=owner_uid(metadata)
            )
        if authority is not None:
            return [Due(Key(Sort.AUTHORITY, "", authority))]
        return [Due(Key(Sort.OUTPUT, namespace, output)) for output in self._claimants(namespace, name, metadata)]

    def _claimants(self, namespace: str, secret: str, metadata: Mapping[str, Any] | None = None) -> list[str]:
        """Outputs that a Secret may concern: its owner by name, and the one that is called like it."""
        references = (metadata or {}).get("ownerReferences") or []
        names = {secret, *(str(reference["name"]) for reference in references if reference.get("kind") == Sort.OUTPUT)}
        return sorted(name for name in names if (namespace, name) in self._entries[Sort.OUTPUT])

    def _observe_account(self, metadata: Mapping[str, Any], *, gone: bool) -> list[Due]:
        """A ServiceAccount of ours matters only when it is gone."""
        if not gone:
            return []
        concerned = []
        for reference in metadata.get("ownerReferences") or []:
            place = (metadata["namespace"], reference["name"])
            entry = self._entries[Sort.BOT].get(place)
            if reference.get("kind") != Sort.BOT or entry is None:
                continue
            if entry.uid == reference["uid"]:
                self.lost_accounts.add(BotRef(*place))
            concerned += [Due(Key(Sort.BOT, *place)), *self._links.of_outputs(place)]  # it may have stood in their way
        return concerned


@lru_cache(maxsize=256)
def _read_bot(body: bytes) -> MachineBot:
    """The model of a bot. One join and issue asks for it six times; the model is frozen."""
    return MachineBot.model_validate_json(body)


@lru_cache(maxsize=64)
def _read_authority(body: bytes) -> MachineAuthority:
    """The model of an authority: each namespace with its trust bundle asks for it."""
    return MachineAuthority.model_validate_json(body)


def _compact(body: Mapping[str, Any]) -> bytes:
    metadata = body["metadata"]
    kept = {
        name: metadata[name]
        for name in ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp")
        if name in metadata
    }
    annotations = metadata.get("annotations") or {}
    if RENEW_ANNOTATION in annotations:
        kept["annotations"] = {RENEW_ANNOTATION: annotations[RENEW_ANNOTATION]}
    trimmed = {"metadata": kept, "spec": body.get("spec") or {}, "status": body.get("status") or {}}
    return json.dumps(trimmed, separators=(",", ":")).encode()
