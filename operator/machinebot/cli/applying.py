"""A resource that a command has made: printed for Git, or applied."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from machinebot.errors import Conflict
from machinebot.kube.commandline import FIELD_MANAGER, CommandLineClient
from machinebot.kube.resources import Resource
from machinebot.resources.meta import API_VERSION, Kind

Json = dict[str, Any]

TAKEN: Final = "AlreadyExists"
"""The API server's reason where a name is taken."""


@dataclass(frozen=True, slots=True)
class Made:
    """A resource of ours that a command has made.

    Attributes:
        kind: Its kind.
        resource: Where the API server has it.
        namespace: Its namespace; empty where it has none.
        name: Its name.
        spec: What stands in it.
    """

    kind: Kind
    resource: Resource
    namespace: str
    name: str
    spec: Json

    @property
    def body(self) -> Json:
        """The object as the API server takes it."""
        place = {"namespace": self.namespace} if self.kind.namespaced else {}
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind.kind,
            "metadata": {"name": self.name, **place},
            "spec": self.spec,
        }

    @property
    def title(self) -> str:
        """Kind and name, for people."""
        return f"{self.kind.kind} {self.namespace}/{self.name}" if self.kind.namespaced else f"{self.kind.kind} {self.name}"

    @property
    def yaml(self) -> str:
        """The object as a file."""
        text: str = yaml.safe_dump(self.body, sort_keys=False, allow_unicode=False)
        return text


def print_made(made: Made) -> None:
    """Prints the resource as YAML."""
    sys.stdout.write(made.yaml)


async def apply(client: CommandLineClient, made: Made) -> str:
    """Applies the resource; says whether it was created, configured or unchanged.

    Raises:
        Conflict: Somebody else manages the resource, and it is another one.
    """
    before = await client.get(made.resource, made.namespace, made.name)
    if before is not None and (others := managers(before)):
        if before.get("spec") == made.spec:
            return "unchanged"
        raise Conflict(
            "Conflict",
            f"there is a {made.title} already, which {', '.join(others)} manages: change it there, or choose another name",
        )
    after = await client.apply(made.resource, made.namespace, made.name, made.body)
    if before is None:
        return "created"
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return "unchanged" if same else "configured"


async def create(client: CommandLineClient, made: Made) -> None:
    """Creates the resource.

    Raises:
        Conflict: The name is taken.
    """
    try:
        await client.create_strictly(made.resource, made.namespace, made.body)
    except Conflict as error:
        if error.reason != TAKEN:
            raise
        raise Conflict(error.reason, f"there is a {made.title} already: delete it first, or choose another name") from error


def managers(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Who but this command line has set something in the spec: as `kubectl --field-manager` calls them."""
    entries = body["metadata"].get("managedFields") or ()
    return tuple(
        sorted(
            {each["manager"] for each in entries if each["manager"] != FIELD_MANAGER and "f:spec" in (each.get("fieldsV1") or {})}
        )
    )
