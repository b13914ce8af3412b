"""Kubeconfig files: the API server's address and authority with one user's credential. Pure."""

import base64
import json
from typing import Any

from controlplane.pki import KeyPair

NAME = "machinebot-controlplane"
"""Of the cluster and the context: what a person sees in their prompt."""


def with_certificate(url: str, authority: bytes, user: str, pair: KeyPair) -> bytes:
    """A kubeconfig that authenticates by client certificate."""
    credential = {"client-certificate-data": _base64(pair.certificate), "client-key-data": _base64(pair.key)}
    return _kubeconfig(url, authority, user, credential)


def with_token(url: str, authority: bytes, user: str, token: str) -> bytes:
    """A kubeconfig that authenticates by bearer token."""
    return _kubeconfig(url, authority, user, {"token": token})


def _kubeconfig(url: str, authority: bytes, user: str, credential: dict[str, str]) -> bytes:
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {"server": url, "certificate-authority-data": _base64(authority)}}],
        "users": [{"name": user, "user": credential}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user}}],
        "current-context": NAME,
    }
    return json.dumps(content, indent=2).encode()  # JSON is YAML, and needs no package


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
