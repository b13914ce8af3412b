"""A client that takes down what is asked of it and answers from a list."""

from collections.abc import AsyncIterator
from typing import Any

from machinebot.kube.resources import Resource

Json = dict[str, Any]


class Script:
    """Answers or raises what it was given, one for each call."""

    def __init__(self, *answers: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._answers = list(answers)

    def _next(self, *call: Any) -> Any:
        self.calls.append(call)
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        return self._next("get", resource, namespace, name)

    async def create(self, resource: Resource, namespace: str, body: Json, *, name: str = "", subresource: str = "") -> Any:
        return self._next("create", resource, namespace, body, name, subresource)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Any:
        return self._next("replace", resource, namespace, name, body)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        self._next("delete", resource, namespace, name, uid, resource_version)

    async def pages(self, resource: Resource, namespace: str, **fields: Any) -> AsyncIterator[Any]:
        for page in self._next("pages", resource, namespace, fields):
            if isinstance(page, BaseException):
                raise page
            yield page

    async def watch(self, resource: Resource, namespace: str, **fields: Any) -> AsyncIterator[Any]:
        for event in self._next("watch", resource, namespace, fields):
            if isinstance(event, BaseException):
                raise event
            yield event
