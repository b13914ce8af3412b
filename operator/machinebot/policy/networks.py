"""Networks that SSH certificates may be used from: what several roles have in common."""

import ipaddress
from collections.abc import Sequence

from machinebot.errors import Denied, Invalid
from machinebot.policy.templates import quoted
from machinebot.resources.role import MachineRole

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def common_networks(restricting: Sequence[MachineRole]) -> tuple[str, ...]:
    """The addresses that each of the roles allows, as CIDR networks; no role means no restriction."""
    if not restricting:
        return ()
    # Sets: every network is one that a role states, so that their number cannot multiply.
    common = networks_of(restricting[0])
    for role in restricting[1:]:
        others = networks_of(role)
        common = {narrow for one in common for other in others if (narrow := _narrower(one, other)) is not None}
    if not common:
        raise Denied(
            "NoSourceAddress",
            f"the sourceAddresses of the roles {quoted(role.metadata.name for role in restricting)} have no network in common, "
            "so that the credential could be used from nowhere: use one output for each role",
        )
    return tuple(sorted(str(network) for network in common))


def networks_of(role: MachineRole) -> set[_Network]:
    """The networks of a role.

    Raises:
        Invalid: One is none.
    """
    return {_network(text, role.metadata.name) for text in role.spec.options.source_addresses}


def _network(text: str, role: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Invalid(
            "InvalidSourceAddress",
            f"the sourceAddresses of the role {role!r} hold {text!r}, which is no network ({error}): write CIDR such as "
            "10.0.0.0/8",
        ) from error


def _narrower(one: _Network, other: _Network) -> _Network | None:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    return None
