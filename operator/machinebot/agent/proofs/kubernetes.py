"""`kubernetes`: the projected token of a pod's ServiceAccount, which the kubelet renews."""

import os
from collections.abc import Mapping
from typing import Any, Final

from machinebot.agent.proofs.base import Wanted, from_file, text

ENVIRONMENT: Final = "KUBERNETES_TOKEN_PATH"

PATH: Final = "/var/run/secrets/tokens/machinebot"
"""Where the examples mount the token."""


def prove(settings: Mapping[str, Any], wanted: Wanted) -> dict[str, str]:
    """See `Prove`."""
    path = text(settings, "tokenPath", os.environ.get(ENVIRONMENT) or PATH)
    audience = wanted.audience or wanted.cluster_name
    return {
        "token": from_file(
            path,
            f"mount a projected volume with a serviceAccountToken of the audience {audience} and expirationSeconds 600, and let "
            f"{ENVIRONMENT} or onboarding.kubernetes.tokenPath name the file",
        )
    }
