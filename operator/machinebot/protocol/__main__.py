"""`python -m machinebot.protocol` prints the OpenAPI document of the join API: see `make openapi`."""

import sys

from machinebot.protocol.openapi import document

sys.stdout.buffer.write(document())
