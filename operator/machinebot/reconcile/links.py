"""Who is linked with whom: the roles of a bot, the bot of an output or a join token, what a lock is about; hence whom a change
concerns.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from machinebot.reconcile.keys import Due, Key, Sort

Place = tuple[str, str]
"""Namespace and name; the namespace is empty where there is none."""

_INSTANCE: Final = "instance"
"""In front of the id of an instance in a link."""


class Links:
    """What is linked, found from the other end."""

    def __init__(self) -> None:
        self._outputs_of: dict[Place, set[str]] = {}
        self._tokens_of: dict[Place, set[str]] = {}
        self._bots_with: dict[str, set[Place]] = {}
        self._locks_on: dict[str, set[str]] = {}

    def move(self, sort: Sort, place: Place, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        """An object is linked otherwise than before; see `links_of`."""
        match sort:
            case Sort.OUTPUT:
                _move(self._outputs_of, [(place[0], bot) for bot in old], [(place[0], bot) for bot in new], place[1])
            case Sort.JOIN_TOKEN:
                _move(self._tokens_of, [(place[0], bot) for bot in old], [(place[0], bot) for bot in new], place[1])
            case Sort.BOT:
                _move(self._bots_with, old, new, place)
            case Sort.LOCK:
                _move(self._locks_on, old, new, place[1])
            case Sort.ROLE | Sort.AUTHORITY | Sort.BUNDLE:
                return

    def outputs(self, bot: Place) -> frozenset[str]:
        """Names of the outputs that name the bot."""
        return frozenset(self._outputs_of.get(bot, ()))

    def of_outputs(self, bot: Place) -> list[Due]:
        """The outputs of a bot."""
        return [Due(Key(Sort.OUTPUT, bot[0], name)) for name in sorted(self._outputs_of.get(bot, ()))]

    def of_bot(self, bot: Place) -> list[Due]:
        """The outputs and the join tokens of a bot."""
        tokens = [Due(Key(Sort.JOIN_TOKEN, bot[0], name)) for name in sorted(self._tokens_of.get(bot, ()))]
        return self.of_outputs(bot) + tokens

    def of_role(self, role: str) -> list[Due]:
        """The bots that have the role, and their outputs."""
        concerned = []
        for bot in sorted(self._bots_with.get(role, ())):
            concerned += [Due(Key(Sort.BOT, *bot)), *self.of_outputs(bot)]
        return concerned

    def of_target(self, sort: Sort, place: Place) -> list[Due]:
        """The locks about an object: a lock tells whether there is what it is about."""
        return [Due(Key(Sort.LOCK, "", lock)) for lock in sorted(self._locks_on.get(_target(sort, *place), ()))]

    def of_lock(self, targets: Iterable[str], of_instance: Callable[[str], Iterable[Due]]) -> list[Due]:
        """Whom locks on these targets stop or let go on, as far as the operator itself issues or tells of them.

        Args:
            targets: Links of locks.
            of_instance: The join token that an instance has used up, if it has.
        """
        concerned = []
        for target in sorted(targets):
            kind, _, place = target.partition(" ")
            namespace, _, name = place.rpartition("/")
            if kind == Sort.BOT:
                bot = (namespace, name)
                concerned += [Due(Key(Sort.BOT, *bot)), *self.of_bot(bot)]
            elif kind == Sort.ROLE:
                concerned += self.of_role(name)
            elif kind == Sort.JOIN_TOKEN:
                concerned.append(Due(Key(Sort.JOIN_TOKEN, namespace, name)))
            elif kind == _INSTANCE:
                concerned += of_instance(name)
        return list(dict.fromkeys(concerned))  # a lock that was turned from a bot on one of its roles


def _target(sort: Sort, namespace: str, name: str) -> str:
    """What a lock is about, as a link: `MachineBot ci/deployer`."""
    return f"{sort} {namespace}/{name}"


def links_of(sort: Sort, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in a spec by which others find the object: a bot's roles, the bot of an output or a join token, a lock's targets."""
    match sort:
        case Sort.BOT:
            return tuple(sorted(set(spec.get("roles") or ())))
        case Sort.OUTPUT | Sort.JOIN_TOKEN:
            return (str(spec.get("bot", "")),)
        case Sort.LOCK:
            return _targets(spec.get("target") or {})
        case Sort.ROLE | Sort.AUTHORITY | Sort.BUNDLE:
            return ()


def _targets(target: Mapping[str, Any]) -> tuple[str, ...]:
    """What a lock is about, as links."""
    places = [
        _target(sort, str(place.get("namespace", "")), str(place.get("name", "")))
        for field, sort in (("bot", Sort.BOT), ("joinToken", Sort.JOIN_TOKEN))
        if isinstance(place := target.get(field), dict)
    ]
    names = [
        f"{kind} /{name}"
        for field, kind in (("role", Sort.ROLE), ("instance", _INSTANCE))
        if isinstance(name := target.get(field), str)
    ]
    return (*places, *names)


_KeyT = TypeVar("_KeyT")
_ValueT = TypeVar("_ValueT")


def _move(index: dict[_KeyT, set[_ValueT]], old: Iterable[_KeyT], new: Iterable[_KeyT], value: _ValueT) -> None:
    """Has the index find the value by the new keys, and by the old ones no more."""
    wanted = set(new)
    for key in set(old) - wanted:
        index[key].discard(value)
        if not index[key]:
            del index[key]
    for key in wanted:
        index.setdefault(key, set()).add(value)
