"""A real HTTPS server that speaks as AWS does (moto), on loopback, and checks signatures."""

import http.client
import json
import os
import socket
import ssl
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from controlplane.ports import LOOPBACK, ReservedPort, get
from controlplane.processes import Part, wait_until

START_SECONDS: Final = 60.0
"""From start to the first answer: it loads all of AWS's services, which takes some seconds on a busy machine."""

CALL_SECONDS: Final = 30.0
"""For one request."""

ACCOUNT: Final = "123456789012"
"""The account that everything of moto's is in."""

_UNCHECKED: Final = "inf"
"""How many requests are taken unchecked before signatures are: all."""

_SERVE: Final = """\
import sys
from moto.core.responses import BaseResponse
from moto.server import main

# AWS's Security Token Service answers in JSON where that alone is accepted; moto does so for a parameter that AWS has not.
BaseResponse.request_json = property(lambda self: self.headers.get("Accept") == "application/json")
main(sys.argv[1:])
"""


class MotoServer:
    """A moto of its own on a free loopback port. As a context manager it runs for the length of the block.

    Users, roles and keys are made while nothing is checked; `check_signatures` ends that. It never outlives this process.
    """

    def __init__(self, directory: Path, *, certificate: Path, key: Path, authority: Path) -> None:
        """Prepare it; nothing runs yet.

        Args:
            directory: For its log; must exist.
            certificate: Its own certificate, PEM.
            key: Its private key.
            authority: The CA of the certificate, by which we know it.
        """
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.check_hostname = False  # we call it by its address
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self.port = self._held.number
        """Where it listens, on 127.0.0.1."""
        self.log = directory / "moto.log"
        """Its log: every request and its status."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "INITIAL_NO_AUTH_ACTION_COUNT": _UNCHECKED}
        command = [sys.executable, "-c", _SERVE, "-H", LOOPBACK, "-p", str(self.port), "-c", str(certificate), "-k", str(key)]
        self._part = Part("moto", command, self.log, environment)

    def __enter__(self) -> Self:
        """Start it and wait until it answers."""
        self._part.start()
        wait_until("moto", self._answers, seconds=START_SECONDS, parts=[self._part])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it and give back its port."""
        self._part.stop()
        self._held.release()

    def check_signatures(self) -> None:
        """From now on a request whose signature is not that of a key that moto has made is refused, as by AWS."""
        self._post("/moto-api/reset-auth", b"0", {})

    def call(self, service: str, version: str, action: str, **parameters: str) -> dict[str, object]:
        """One action of AWS's query protocol, while nothing is checked yet; the answer's result.

        Args:
            service: Such as iam.
            version: Of its API.
            action: Such as CreateUser.
            parameters: Those of the action.
        """
        scope = f"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/{service}/aws4_request"
        headers = {
            "Authorization": f"{scope}, SignedHeaders=host, Signature=00",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        body = urlencode({"Action": action, "Version": version, **parameters}).encode()
        answer = json.loads(self._post("/", body, headers))
        result: dict[str, object] = answer[f"{action}Response"][f"{action}Result"]
        return result

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        connection = self._connection()
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"moto answers {path} with {answer.status}: {data[:500]!r}")
        return data

    def _answers(self) -> bool:
        status, _ = get(self._connection(), "/moto-api/")
        return status == http.client.OK

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=CALL_SECONDS, context=self._context)
