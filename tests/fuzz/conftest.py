"""How long the fuzzers run: shortly in every run of the tests, and for as many examples as an hour has where MACHINEBOT_FUZZ is set."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("fuzz", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

if os.environ.get("MACHINEBOT_FUZZ"):
    settings.load_profile("fuzz")
