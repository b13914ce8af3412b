"""What an agent keeps of itself: its identity, the key of the next one, and the CAs of the server. On disk, or in memory.

Certificate and key stand in one file, which is exchanged by rename(2), so that they always fit each other.
"""

import contextlib
import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from machinebot.agent.paths import Trusted, open_directory, opened, read_all, unusable, write_all
from machinebot.clock import parse_rfc3339
from machinebot.errors import Conflict
from machinebot.outputs.keys import PrivateKey, PrivateKeyPair

IDENTITY: Final = "identity.json"
PENDING: Final = "pending.pem"
SERVER_CA: Final = "server-ca.json"

MAX_FILE: Final = 64 * 1024
"""Largest file, bytes: sixteen CA certificates fit."""


class StoredIdentity(BaseModel):
    """The identity of an instance, with its key."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    place: str
    """The server and the join token that it came by: after a change of these it is not used."""
    certificate: str
    """PEM."""
    private_key: str = Field(repr=False)
    """PEM (PKCS#8)."""
    bot: str
    instance: str
    generation: int
    renewable: bool
    not_before: str
    """RFC 3339; of the certificate."""
    not_after: str
    """RFC 3339; of the certificate."""

    @property
    def begin(self) -> datetime:
        """UTC."""
        return parse_rfc3339(self.not_before)

    @property
    def end(self) -> datetime:
        """UTC."""
        return parse_rfc3339(self.not_after)


class ServerCA(BaseModel):
    """The CAs of the server, as it told them over a connection that was verified."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trusted_by: str
    """What the configuration trusted then: after a change of it they are not used."""
    certificates: str
    """PEM."""


class Storage(Protocol):
    """Where an agent keeps what it needs after a restart. All of it can be lost, but for the identity of the method `token`."""

    def identity(self) -> StoredIdentity | None:
        """The identity, or None where there is none that can be read."""
        ...

    def keep_identity(self, identity: StoredIdentity) -> None:
        """Replaces the identity, and forgets the pending key, which is the one of it."""
        ...

    def pending(self) -> PrivateKeyPair | None:
        """The key that an identity was asked for and may have been given, or None."""
        ...

    def keep_pending(self, key: PrivateKeyPair) -> None:
        """Remembers the key before an identity is asked for."""
        ...

    def server_ca(self) -> ServerCA | None:
        """The CAs of the server, or None."""
        ...

    def keep_server_ca(self, found: ServerCA) -> None:
        """Replaces them."""
        ...


class MemoryStorage:
    """A `Storage` that ends with the process."""

    def __init__(self) -> None:
        self._identity: StoredIdentity | None = None
        self._pending: PrivateKeyPair | None = None
        self._server_ca: ServerCA | None = None

    def identity(self) -> StoredIdentity | None:
        """See `Storage`."""
        return self._identity

    def keep_identity(self, identity: StoredIdentity) -> None:
        """See `Storage`."""
        self._identity, self._pending = identity, None

    def pending(self) -> PrivateKeyPair | None:
        """See `Storage`."""
        return self._pending

    def keep_pending(self, key: PrivateKeyPair) -> None:
        """See `Storage`."""
        self._pending = key

    def server_ca(self) -> ServerCA | None:
        """See `Storage`."""
        return self._server_ca

    def keep_server_ca(self, found: ServerCA) -> None:
        """See `Storage`."""
        self._server_ca = found


class FileStorage:
    """A `Storage` in a directory that nobody else may enter. One agent at a time has it.

    Args:
        path: Absolute.

    Raises:
        Conflict: Another agent has it.
        MachinebotError: The directory cannot be used, or could be led elsewhere by others.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._directory = open_directory(path, Trusted.of()).descriptor
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise Conflict("StorageBusy", f"another agent keeps its identity in {path}: give each one a directory") from error

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._directory)

    def identity(self) -> StoredIdentity | None:
        """See `Storage`."""
        content = self._read(IDENTITY)
        try:
            return None if content is None else StoredIdentity.model_validate_json(content)
        except ValidationError:
            return None

    def keep_identity(self, identity: StoredIdentity) -> None:
        """See `Storage`."""
        self._write(IDENTITY, identity.model_dump_json().encode())
        self._remove(PENDING)

    def pending(self) -> PrivateKeyPair | None:
        """See `Storage`. A key that a kill has left behind, though its identity was kept, is none."""
        key, identity = _key(self._read(PENDING)), self.identity()
        if key is not None and identity is not None:
            kept = _key(identity.private_key.encode())
            if kept is not None and kept.spki == key.spki:
                return None
        return key

    def keep_pending(self, key: PrivateKeyPair) -> None:
        """See `Storage`."""
        self._write(PENDING, key.pkcs8)

    def server_ca(self) -> ServerCA | None:
        """See `Storage`."""
        content = self._read(SERVER_CA)
        try:
            return None if content is None else ServerCA.model_validate_json(content)
        except ValidationError:
            return None

    def keep_server_ca(self, found: ServerCA) -> None:
        """See `Storage`."""
        self._write(SERVER_CA, found.model_dump_json().encode())

    def _read(self, name: str) -> bytes | None:
        try:
            return read_all(name, self._directory, MAX_FILE)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise unusable(self._path, error) from error

    def _write(self, name: str, content: bytes) -> None:
        temporary = f".{name}.new"
        try:
            self._remove(temporary)
            with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._directory) as descriptor:
                write_all(descriptor, content)
            os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)
        except OSError as error:
            raise unusable(self._path, error) from error

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)


def _key(content: bytes | None) -> PrivateKeyPair | None:
    try:
        found = None if content is None else load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        return None
    return PrivateKeyPair(found) if isinstance(found, PrivateKey) else None
