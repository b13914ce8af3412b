"""Fixtures of the authority's tests."""

import pytest

from machinebot.authority import keys
from machinebot.authority.keys import CAKey
from machinebot.policy.credential import Purpose


@pytest.fixture(scope="session")
def rsa_ca_key() -> CAKey:
    """The one RSA-4096 key of the run: making it takes a second."""
    return keys.generate("RSA-4096", Purpose.IDENTITY)
