"""What an agent keeps of itself: whole after every kill, for nobody else, and passed over where it cannot be read."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machinebot.agent import storage as module
from machinebot.agent.storage import FileStorage, MemoryStorage, ServerCA, Storage, StoredIdentity
from machinebot.errors import Conflict, Unavailable
from machinebot.outputs.keys import PrivateKeyPair, generate

CA = ServerCA(trusted_by="pin", certificates="PEM")


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def identity(key: PrivateKeyPair | None = None, generation: int = 1) -> StoredIdentity:
    return StoredIdentity(
        place="https://m.example.test ci/runners",
        certificate="PEM",
        private_key=(key or generate("ECDSA-P256")).pkcs8.decode(),
        bot="ci/deployer",
        instance="i-1",
        generation=generation,
        renewable=True,
        not_before="2027-01-01T00:00:00Z",
        not_after="2027-01-02T00:00:00Z",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "state"


@pytest.fixture(params=["files", "memory"])
def storage(request: pytest.FixtureRequest, path: Path) -> Iterator[Storage]:
    if request.param == "memory":
        yield MemoryStorage()
        return
    made = FileStorage(path)
    yield made
    made.close()


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[[], FileStorage]]:
    held: list[FileStorage] = []

    def again() -> FileStorage:
        for each in held:
            each.close()
        held[:] = [FileStorage(path)]
        return held[0]

    yield again
    for each in held:
        each.close()


def test_what_is_kept_is_found(storage: Storage) -> None:
    assert (storage.identity(), storage.pending(), storage.server_ca()) == (None, None, None)
    key = generate("ECDSA-P256")
    storage.keep_pending(key)
    found = storage.pending()
    assert found is not None
    assert found.spki == key.spki
    storage.keep_server_ca(CA)
    assert storage.server_ca() == CA
    kept = identity(key)
    storage.keep_identity(kept)
    assert storage.identity() == kept
    assert storage.pending() is None, "it is the key of the identity now"


def test_it_is_found_after_a_restart_and_by_nobody_else(opened: Callable[[], FileStorage], path: Path) -> None:
    kept, key = identity(), generate("ECDSA-P256")
    first = opened()
    first.keep_identity(kept)
    first.keep_pending(key)
    again = opened()
    pending = again.pending()
    assert again.identity() == kept
    assert pending is not None
    assert pending.spki == key.spki
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE((path / name).stat().st_mode) for name in names(path)} == {0o600}


def test_a_pending_key_that_became_the_identity_is_none_any_more(
    opened: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = generate("ECDSA-P256")
    dying = opened()
    dying.keep_pending(key)
    # Killed after the identity was kept, and before the key was forgotten.
    monkeypatch.setattr(FileStorage, "_remove", lambda *_: None)
    dying.keep_identity(identity(key))
    monkeypatch.undo()
    assert opened().pending() is None
    other = generate("ECDSA-P256")
    opened().keep_pending(other)
    found = opened().pending()
    assert found is not None
    assert found.spki == other.spki


@pytest.mark.parametrize("name", [module.IDENTITY, module.PENDING, module.SERVER_CA])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b"x" * (module.MAX_FILE + 1)], ids=["empty", "nothing", "no text", "long"]
)
def test_what_cannot_be_read_is_as_good_as_nothing(
    opened: Callable[[], FileStorage], path: Path, name: str, content: bytes
) -> None:
    opened()
    (path / name).write_bytes(content)
    storage = opened()
    assert (storage.identity(), storage.pending(), storage.server_ca()) == (None, None, None)


def test_a_write_that_breaks_off_keeps_the_old_identity(
    opened: Callable[[], FileStorage], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = identity(), identity(generation=2)
    storage = opened()
    storage.keep_identity(first)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable) as caught:
        storage.keep_identity(second)
    monkeypatch.undo()
    assert caught.value.reason == "DirectoryUnusable"
    assert opened().identity() == first
    opened().keep_identity(second)
    assert opened().identity() == second
    assert names(path) == [module.IDENTITY]


def test_one_agent_at_a_time(path: Path) -> None:
    first = FileStorage(path)
    with pytest.raises(Conflict) as caught:
        FileStorage(path)
    assert caught.value.reason == "StorageBusy"
    first.close()
    FileStorage(path).close()


def test_no_key_is_printed() -> None:
    kept = identity()
    assert "PRIVATE" not in repr(kept)
    assert "PRIVATE" not in str(kept)
