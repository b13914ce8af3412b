"""The trust bundle and OpenID Connect Discovery: what verifiers fetch. Public, the same for everybody, GET and HEAD only."""

import json
from typing import Protocol

from aiohttp import web

from machinebot.errors import NotFound, Unavailable
from machinebot.outputs.trust import JSON, JWKS, PIECES, REFRESH, Piece, openid_configuration
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.reconcile.places import DEFAULT
from machinebot.web.answers import document


class Trust(Protocol):
    """Where the trust of the authorities is."""

    def get(self, name: str) -> TrustBundle:
        """The trust of one.

        Raises:
            NotFound: There is no such authority.
            Unavailable: It is not ready.
        """
        ...


class TrustRoutes:
    """The routes, each below `/authorities/NAME`, and for the authority `default` at the root as well.

    Args:
        trust: Where the trust of the authorities is.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds them."""
        for prefix in ("", "/authorities/{authority}"):
            router.add_get(f"{prefix}/trust", self._listing)
            router.add_get(f"{prefix}/trust/{{piece}}", self._piece)
            router.add_get(f"{prefix}/.well-known/openid-configuration", self._discovery)
            router.add_get(f"{prefix}/jwks", self._jwks)

    async def _listing(self, request: web.Request) -> web.Response:
        name, bundle = self._asked(request)
        listed = [
            {"name": piece.name, "path": f"/authorities/{name}/trust/{piece.name}", "description": piece.description}
            for piece in PIECES.values()
        ]
        body = {"authority": name, "clusterName": bundle.cluster_name, "issuer": bundle.issuer, "pieces": listed}
        return document(request, json.dumps(body, indent=2).encode() + b"\n", JSON, REFRESH)

    async def _piece(self, request: web.Request) -> web.Response:
        wanted = request.match_info["piece"]
        piece = PIECES.get(wanted)
        if piece is None:
            raise NotFound("PieceUnknown", f"there is no piece {wanted[:64]!r} but {', '.join(PIECES)}")
        return self._rendered(request, piece)

    async def _jwks(self, request: web.Request) -> web.Response:
        return self._rendered(request, PIECES[JWKS])

    async def _discovery(self, request: web.Request) -> web.Response:
        bundle = self._with(request, Purpose.WORKLOAD)
        return document(request, openid_configuration(bundle), JSON, REFRESH)

    def _asked(self, request: web.Request) -> tuple[str, TrustBundle]:
        name = request.match_info.get("authority", DEFAULT)
        return name, self._trust.get(name)

    def _with(self, request: web.Request, purpose: Purpose) -> TrustBundle:
        _, bundle = self._asked(request)
        if not bundle.of(purpose):
            # Never an empty file: it would look like an answer, and take all trust away.
            raise Unavailable("AuthorityNotReady", f"the CA {purpose} is not there: the status of the authority says why")
        return bundle

    def _rendered(self, request: web.Request, piece: Piece) -> web.Response:
        return document(request, piece.render(self._with(request, piece.purpose)), piece.content_type, REFRESH)
