"""A real OpenID provider on loopback, in a process of its own: the package oidc-provider-mock, over TLS, under any issuer's name.

Nothing here signs: each issuer is an instance of the package's own application, with a key of its own. Ours is where it is
mounted, and that its tokens name their key, as those of every platform do. Run as a module it is that process.
"""

import http.client
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

from typing_extensions import override

from controlplane.ports import LOOPBACK, ReservedPort
from controlplane.processes import Part, ProgramError, wait_until

START_SECONDS: Final = 30.0
"""From start to the first connection; two seconds on an idle machine, since it imports Flask and its friends."""

CALL_SECONDS: Final = 30.0
"""For one request."""

CALLBACK: Final = "https://client.example.test/callback"
"""Where the provider sends the code to; nobody is there, we read it from the redirect."""

Users = Mapping[str, Sequence[Mapping[str, Any]]]
"""By issuer: the claims of each user that it knows, `sub` among them."""


class OpenIDProvider:
    """An OpenID provider of its own on a free loopback port. As a context manager it runs for the length of the block.

    Each start makes new keys. It never outlives this process.
    """

    def __init__(self, directory: Path, *, certificate: Path, key: Path, authorities: Path, users: Users) -> None:
        """Prepare it; nothing runs yet.

        Args:
            directory: For its configuration and log; must exist.
            certificate: Its certificate, PEM, with the host of every issuer.
            key: Its private key.
            authorities: CAs that its own calls trust, PEM.
            users: Whom it knows, by issuer.
        """
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self.port = self._held.number
        """Where it listens, on 127.0.0.1; the same after a restart."""
        self.log = directory / "openid.log"
        """Its log."""
        self._tls = ssl.create_default_context(cafile=authorities)
        configuration = directory / "openid.json"
        configuration.write_text(json.dumps({issuer: [dict(user) for user in known] for issuer, known in users.items()}))
        command: list[str | Path] = [sys.executable, "-m", "workbench.openid", configuration, certificate, key, str(self.port)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(Path(__file__).parents[1])}
        self._part = Part("openid", command, self.log, environment)

    def __enter__(self) -> Self:
        """Start it and wait until it listens."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it and give back its port."""
        self.stop()
        self._held.release()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._part.start()
        wait_until("openid", self._listens, seconds=START_SECONDS, parts=[self._part])

    def stop(self) -> None:
        """End it; it can be started again."""
        self._part.stop()

    def token(self, issuer: str, audience: str, subject: str) -> str:
        """An ID token of a user, got by the authorization code flow (OpenID Connect Core, section 3.1).

        Args:
            issuer: One of the issuers.
            audience: The client that asks.
            subject: `sub` of the user.

        Raises:
            ProgramError: The provider refuses, or does not answer as such.
        """
        query = {"client_id": audience, "redirect_uri": CALLBACK, "response_type": "code", "scope": "openid email profile"}
        _, headers, _ = self._post(issuer, f"/oauth2/authorize?{urlencode(query)}", {"sub": subject})
        code = re.search(r"[?&]code=([^&]+)", headers.get("location", ""))
        if code is None:
            raise ProgramError(f"{issuer} gives no code to {audience}")
        grant = {"grant_type": "authorization_code", "code": code[1], "redirect_uri": CALLBACK}
        status, _, body = self._post(issuer, "/oauth2/token", grant | {"client_id": audience, "client_secret": "any"})
        if status != http.client.OK:
            raise ProgramError(f"{issuer} gives no token to {audience}: {status} {body[:200]!r}")
        return str(json.loads(body)["id_token"])

    def _post(self, issuer: str, path: str, form: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        place = urlsplit(issuer)
        host = place.hostname or ""
        connection = http.client.HTTPSConnection(host, timeout=CALL_SECONDS)
        plain = socket.create_connection((LOOPBACK, self.port), timeout=CALL_SECONDS)
        connection.sock = self._tls.wrap_socket(plain, server_hostname=host)
        try:
            connection.request(
                "POST",
                place.path.rstrip("/") + path,
                urlencode(form),
                {"Content-Type": "application/x-www-form-urlencoded"},
            )
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def _listens(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=CALL_SECONDS):
            return True


def _serve(users: Users, certificate: str, key: str, port: int) -> None:
    """Serve until the end of the process."""
    from oidc_provider_mock import User, _app  # type: ignore[import-untyped]  # noqa: PLC0415 - this process alone needs them
    from werkzeug.serving import run_simple  # noqa: PLC0415

    plain = _app.OpenIDCode.get_jwt_config

    def named(self: Any, *args: Any) -> dict[str, Any]:
        """The package leaves the id of the key out of the header."""
        return {**plain(self, *args), "kid": _app.jose.KeySet((_app.storage.jwk,)).as_dict()["keys"][0]["kid"]}

    _app.OpenIDCode.get_jwt_config = named
    apps = {}
    for issuer, known in users.items():
        app = _app.app(user_claims=[User(sub=str(user["sub"]), claims=dict(user)) for user in known])
        app.request_class = _request_class()
        apps[issuer.removeprefix("https://").rstrip("/")] = app

    def mounted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host, path = environ["HTTP_HOST"], environ["PATH_INFO"]
        for place, app in apps.items():
            if f"{host}{path}".startswith(place + "/"):
                root = place.removeprefix(host)
                answer: Iterable[bytes] = app(
                    environ | {"SCRIPT_NAME": root, "PATH_INFO": path.removeprefix(root)}, start_response
                )
                return answer
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no issuer of ours\n"]

    run_simple(LOOPBACK, port, mounted, ssl_context=(certificate, key), threaded=True)


def _request_class() -> Any:
    """The package takes the host for the whole issuer; those of platforms have paths."""
    from flask import Request  # noqa: PLC0415 - see above

    class Mounted(Request):
        @property
        @override
        def host_url(self) -> str:
            return self.root_url

    return Mounted


if __name__ == "__main__":
    _serve(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3], int(sys.argv[4]))
