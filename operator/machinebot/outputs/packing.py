"""What all types share of the Secret's content: keys under other names, keystores beside them, what the Secret's type wants."""

import secrets
from collections.abc import Mapping
from typing import Final

from machinebot.errors import Invalid
from machinebot.outputs import keystores
from machinebot.outputs.base import Material
from machinebot.outputs.registry import MachineOutput
from machinebot.resources.output import SecretKeyRef

PASSWORD_BYTES: Final = 24
"""Random bytes of a password that is made for a keystore: 192 bits, 32 characters."""

MIN_PASSWORD: Final = 6
"""Shortest password that Java's keytool takes, characters."""

MAX_PASSWORD: Final = 256
"""Longest password that is taken, characters: anything longer is something else, put there by mistake."""

TLS: Final = "kubernetes.io/tls"
TLS_KEYS: Final = frozenset({"tls.crt", "tls.key"})
"""What the API server wants in a Secret of the type kubernetes.io/tls."""


def own_keys(output: MachineOutput) -> Mapping[str, str]:
    """From each key of the output's type to the one in the Secret.

    Raises:
        Invalid: `secret.keys` names a key that the type does not have, or the keys of this one cannot be renamed.
    """
    keys, renamed = output.type.keys(output.settings), output.spec.secret.keys
    if renamed and output.type.labels(output.settings):
        raise Invalid(
            "KeysFixed", "what finds this Secret by its label reads it by its own names for the keys: leave secret.keys out"
        )
    strange = sorted(renamed.keys() - keys)
    if strange:
        raise Invalid(
            "UnknownKey",
            f"secret.keys names {', '.join(map(repr, strange))}, and the Secret of this output has the keys "
            f"{', '.join(map(repr, sorted(keys)))}: write one of these on the left",
        )
    return {key: renamed.get(key, key) for key in keys}


def keys(output: MachineOutput) -> frozenset[str]:
    """Every key of the Secret.

    Raises:
        Invalid: Two would have the same name, or the type of the Secret wants others.
    """
    names = [*own_keys(output).values(), *_keystore_keys(output)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(
            "KeyTwice",
            f"the Secret would have two keys {', '.join(map(repr, twice))}: give one of them another name in secret.keys",
        )
    found = frozenset(names)
    if output.spec.secret.type == TLS and not found >= TLS_KEYS:
        raise Invalid(
            "NotTLS",
            f"a Secret of the type {TLS} holds tls.crt and tls.key, and this output makes {', '.join(sorted(found))}: leave "
            "secret.type out, or name these keys so in secret.keys",
        )
    return found


def pack(output: MachineOutput, material: Material, *, password: str | None) -> dict[str, bytes]:
    """The content of the Secret.

    Args:
        output: What is wanted.
        material: What it is made from.
        password: For keystores; None makes one where keystores are wanted.

    Raises:
        Invalid: See `keys`.
    """
    content = output.type.render(output.settings, material)
    names = own_keys(output)
    data = {names[key]: value for key, value in content.items()}
    if _keystore_keys(output):
        made = secrets.token_urlsafe(PASSWORD_BYTES) if password is None else password
        data |= keystores.pkcs12(material, made, show_password=password is None)
    return data


def unpacked(output: MachineOutput, data: Mapping[str, bytes]) -> dict[str, bytes]:
    """The content as the output's type made it, from that of a Secret that has every key."""
    return {key: data[name] for key, name in own_keys(output).items()}


def password_from(reference: SecretKeyRef, data: Mapping[str, bytes] | None) -> str:
    """The password for keystores.

    Args:
        reference: Where it stands.
        data: Content of that Secret; None where there is none, or where it is one of ours.

    Raises:
        Invalid: There is no such Secret or key, or what it holds is no password.
    """
    if data is None:
        raise Invalid(
            "PasswordMissing",
            f"there is no Secret {reference.name!r} with a password for the keystores (one that Machinebot wrote does not "
            "count): create it, or leave passwordSecretRef out to have a password made",
        )
    text = data.get(reference.key)
    if text is None:
        raise Invalid("PasswordMissing", f"the Secret {reference.name!r} has no key {reference.key!r}: correct passwordSecretRef")
    try:
        password = text.decode("ascii")
    except UnicodeDecodeError:
        password = ""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or not password.isprintable():
        raise Invalid(
            "PasswordInvalid",
            f"the key {reference.key!r} of the Secret {reference.name!r} is no password for a keystore: {MIN_PASSWORD} to "
            f"{MAX_PASSWORD} printable ASCII characters, without a newline at the end",
        )
    return password


def _keystore_keys(output: MachineOutput) -> frozenset[str]:
    wanted = output.spec.keystores
    if wanted is None or wanted.pkcs12 is None:
        return frozenset()
    return keystores.PKCS12_KEYS | (frozenset({keystores.PASSWORD}) if wanted.pkcs12.password_secret_ref is None else frozenset())
