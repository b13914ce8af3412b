"""What a root's agent gives to the named owner: what it has just made, what is theirs, and nothing that they could lead it to."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from machinebot.agent.directory import ABOUT, OutputDirectory
from machinebot.agent.ownership import Ownership
from machinebot.agent.paths import names_in
from machinebot.errors import Invalid, MachinebotError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories to others")

JENKINS = 12345
GROUP = 23456
SOMEBODY = 34567
THEIRS = Ownership(owner=JENKINS)
FILES = {"key": b"key", "cert": b"cert"}
Whose = tuple[int, int, int]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory of root's, as /var/lib is."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def home(base: Path) -> Path:
    """A directory of the named owner's, in which they may rename everything."""
    return made(base / "home", JENKINS)


def made(path: Path, owner: int = 0, mode: int = 0o755, *holding: str) -> Path:
    path.mkdir(parents=True)
    for name in holding:
        (path / name).write_bytes(b"dear")
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def whose(path: Path) -> Whose:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def written(path: Path, ownership: Ownership = THEIRS, *, unsafe: bool = False) -> None:
    directory = OutputDirectory(path, ownership, unsafe=unsafe)
    try:
        directory.write(1, FILES, b"about")
        assert directory.read() == {**FILES, ABOUT: b"about"}
    finally:
        directory.close()


def refusal(path: Path, ownership: Ownership = THEIRS, *, unsafe: bool = False) -> MachinebotError:
    with pytest.raises(MachinebotError) as caught:
        written(path, ownership, unsafe=unsafe)
    return caught.value


# --- what the owner could lead it to --------------------------------------------------------------------------------------


def test_a_link_of_the_owner_leads_to_no_directory_of_roots(base: Path, home: Path) -> None:
    config = made(base / "etc" / "ssh", 0, 0o755, "sshd_config")
    (home / "machinebot").symlink_to(base / "etc")
    os.chown(home / "machinebot", JENKINS, JENKINS, follow_symlinks=False)
    error = refusal(home / "machinebot" / "ssh")
    assert error.reason == "DirectoryRefused"
    assert "symbolic link" in error.message
    assert whose(config) == (0, 0, 0o755)
    assert [each.name for each in config.iterdir()] == ["sshd_config"]


@pytest.mark.parametrize("last", [True, False], ids=["the directory itself", "one on the way"])
@pytest.mark.parametrize("what", ["files", "nothing", "a set of root's"])
def test_a_directory_of_roots_that_the_owner_could_move_is_not_given(home: Path, what: str, *, last: bool) -> None:
    path = home / "ssh" if last else home / "machinebot" / "ssh"
    precious = made(home / "precious" if last else home / "precious" / "ssh")
    if what == "a set of root's":
        written(precious, Ownership(), unsafe=True)
    elif what == "files":
        (precious / "file").write_bytes(b"dear")
    before = whose(precious)
    (home / "precious").rename(home / path.relative_to(home).parts[0])
    error = refusal(path)
    assert isinstance(error, Invalid)
    assert error.reason == "DirectoryConflict"
    assert str(path) in error.message
    assert str(JENKINS) in error.message
    assert whose(path) == before


@pytest.mark.parametrize("what", ["files", "nothing"])
def test_unsafe_takes_directories_and_gives_none_of_roots_away(base: Path, home: Path, what: str) -> None:
    config = made(base / "etc" / "ssh", 0, 0o755, *(["sshd_config"] if what == "files" else []))
    (home / "machinebot").symlink_to(base / "etc")
    assert refusal(home / "machinebot" / "ssh", unsafe=True).reason == "DirectoryConflict"
    assert whose(config) == (0, 0, 0o755)


@pytest.mark.parametrize("name", ["ssh", ".machinebot-1"], ids=["the directory", "a set"])
@pytest.mark.parametrize("holding", [["file"], []], ids=["files", "nothing"])
def test_what_the_owner_puts_in_the_place_of_what_was_just_made_is_not_given(
    home: Path, name: str, holding: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = home if name == "ssh" else made(home / "ssh", JENKINS)
    precious = made(where / "precious", 0, 0o700, *holding)
    kept, real = os.open(precious, os.O_RDONLY), os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int) -> None:
        real(path, mode, dir_fd=dir_fd)
        if os.path.samestat(os.fstat(dir_fd), where.stat()) and precious.exists():
            (where / path).rename(where / "away")
            precious.rename(where / path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    try:
        written(home / "ssh")
    except MachinebotError as error:
        assert error.reason in {"DirectoryConflict", "DirectoryRefused", "DirectoryUnusable"}  # noqa: PT017 - either way is good
    found = os.fstat(kept)
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)
    assert names_in(kept) == holding
    os.close(kept)


def test_what_is_made_is_not_made_where_others_may_rename(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = made(home / "shared", 0, 0o777)
    precious, real = made(shared / "precious", 0, 0o700), os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int) -> None:
        real(path, mode, dir_fd=dir_fd)
        where = Path(f"/proc/self/fd/{dir_fd}").readlink()
        if where == home and shared.exists():
            (home / path).rename(home / "away")
            shared.rename(home / path)
        elif (where / "precious").exists():
            (where / path).rename(where / "away")
            (where / "precious").rename(where / path)

    kept = os.open(precious, os.O_RDONLY)
    monkeypatch.setattr(os, "mkdir", mkdir)
    error = refusal(home / "ssh")
    assert error.reason == "DirectoryUnusable"
    assert "changes the directory at this moment" in error.message
    assert os.fstat(kept).st_uid == 0
    os.close(kept)


@pytest.mark.parametrize("what", ["a file", "a directory"])
def test_what_comes_to_stand_in_the_way_stays_and_nothing_else(home: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def rename(*names: str, **descriptors: int) -> None:
        if not (home / "ssh").exists():
            made(home / "ssh", JENKINS, 0o755, "file") if what == "a directory" else (home / "ssh").touch()
        real(*names, **descriptors)

    monkeypatch.setattr(os, "rename", rename)
    assert refusal(home / "ssh").reason == "DirectoryUnusable"
    assert [each.name for each in home.iterdir()] == ["ssh"]


@pytest.mark.parametrize("depth", ["", "inner"], ids=["in its place", "below"])
def test_what_is_no_set_is_not_removed_for_the_owner(home: Path, depth: str) -> None:
    out = made(home / "ssh", JENKINS)
    old = out / ".machinebot-7"
    made(old / depth if depth else old, 0, 0o700, "file")
    if depth:
        os.chown(old, JENKINS, JENKINS)
    written(out)
    assert (old / depth / "file").read_bytes() == b"dear"


def test_names_in_a_closed_directory_are_not_told_to_the_owner(home: Path) -> None:
    out = made(home / "ssh", JENKINS)
    made(out / ".machinebot-7", 0, 0o700, "secret-name")
    (out / "..data").symlink_to(".machinebot-7")
    directory = OutputDirectory(out, THEIRS)
    with pytest.raises(Invalid) as caught:
        directory.read()
    directory.close()
    assert caught.value.reason == "FilesDamaged"
    assert not (out / "secret-name").is_symlink()


# --- what is given --------------------------------------------------------------------------------------------------------


def nothing(_base: Path) -> None:
    pass


def theirs(base: Path) -> None:
    made(base / "way" / "ssh", JENKINS, 0o755, "file")


def empty(base: Path) -> None:
    made(base / "way" / "ssh")


def sticky(base: Path) -> None:
    made(base / "way" / "ssh")
    (base / "way").chmod(0o1777)


def all_theirs(base: Path) -> None:
    made(base / "way", JENKINS)
    made(base / "way" / "ssh", JENKINS)


def way_theirs(base: Path) -> None:
    made(base / "way", JENKINS)


def ours(base: Path) -> None:
    written(base / "way" / "ssh", Ownership())


HONEST = [nothing, theirs, empty, sticky, all_theirs, way_theirs, ours]


@pytest.mark.parametrize("before", HONEST, ids=[each.__name__ for each in HONEST])
def test_honest_directories_are_the_owners_at_the_end(base: Path, before: Callable[[Path], None]) -> None:
    before(base)
    path = base / "way" / "ssh"
    directory = OutputDirectory(path, Ownership(owner=JENKINS, group=GROUP, mode=0o750))
    directory.write(7, FILES, b"about")
    directory.write(8, FILES, b"about")
    directory.close()
    for each in (path, (path / "..data").resolve()):
        assert whose(each) == (JENKINS, GROUP, 0o750), each
    for each in (path / "..data" / "key", path / "..data" / ABOUT):
        assert whose(each) == (JENKINS, GROUP, 0o640), each
    assert sorted(each.name for each in path.iterdir() if each.name.startswith(".machinebot")) == [
        ".machinebot-7",
        ".machinebot-8",
    ]
    assert [each.name for each in (base / "way").iterdir()] == ["ssh"]


def test_what_is_already_as_it_shall_be_is_taken_whatever_else_it_holds(base: Path) -> None:
    path = made(base / "ssh", 0, 0o750, "file")
    os.chown(path, 0, GROUP)
    written(path, Ownership(group=GROUP, mode=0o750))
    assert whose(path) == (0, GROUP, 0o750)


@pytest.mark.parametrize(
    ("ownership", "words"),
    [
        (THEIRS, f"owner {JENKINS}"),
        (Ownership(group=GROUP), f"group {GROUP}"),
        (Ownership(mode=0o750), "mode 0750"),
        (Ownership(owner=0, mode=0o750), "mode 0750"),
    ],
    ids=["owner", "group", "mode", "root"],
)
def test_a_directory_that_holds_something_else_is_given_to_nobody(base: Path, ownership: Ownership, words: str) -> None:
    path = made(base / "etc" / "ssh", 0, 0o755, "sshd_config")
    error = refusal(path, ownership)
    assert error.reason == "DirectoryConflict"
    assert words in error.message
    assert whose(path) == (0, 0, 0o755)


def test_a_directory_of_somebody_else_is_not_given_to_the_owner(base: Path) -> None:
    path = made(base / "ssh", SOMEBODY)
    assert refusal(path).reason == "DirectoryRefused"
    assert refusal(path, unsafe=True).reason == "DirectoryConflict"
    assert whose(path) == (SOMEBODY, SOMEBODY, 0o755)


def test_old_sets_of_roots_go_after_the_owner_has_changed(base: Path) -> None:
    path = base / "ssh"
    for serial, ownership in ((1, Ownership()), (2, THEIRS), (3, THEIRS)):
        directory = OutputDirectory(path, ownership)
        directory.write(serial, FILES, b"about")
        directory.close()
    assert sorted(each.name for each in path.iterdir() if each.name.startswith(".machinebot")) == [
        ".machinebot-2",
        ".machinebot-3",
    ]


class KilledError(BaseException):
    """As kill -9: nothing is cleaned up."""


@pytest.mark.parametrize("step", ["set", "open key", "open cert"])
def test_what_a_kill_leaves_of_a_set_for_the_owner_is_removed(home: Path, step: str) -> None:
    def kill(at: str) -> None:
        if at == step:
            raise KilledError

    path = home / "ssh"
    dying = OutputDirectory(path, THEIRS, step=kill)
    dying._remove_set = lambda *_: None  # type: ignore[method-assign]  # the dead clean up nothing
    with pytest.raises(KilledError):
        dying.write(5, FILES, b"about")
    dying.close()
    assert (path / ".machinebot-5").exists()
    written(path)
    assert not (path / ".machinebot-5").exists()


@pytest.mark.parametrize("way", ["", "machinebot"], ids=["in a directory of theirs", "below one"])
def test_a_kill_before_the_directory_is_the_owners_leaves_no_directory_in_the_way(
    home: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KilledError

    path = home / way / "ssh"
    with monkeypatch.context() as dying:
        dying.setattr(os, "fchown", kill)
        dying.setattr(os, "rmdir", lambda *_, **__: None)  # the dead clean up nothing
        with pytest.raises(KilledError):
            OutputDirectory(path, THEIRS).read()
    assert not path.exists()
    written(path)


def test_a_set_that_did_not_fit_is_removed_from_the_directory_of_somebody_else(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = made(base / "ssh", SOMEBODY)
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        assert "No space left" in refusal(path, Ownership(), unsafe=True).message
    assert list(path.iterdir()) == []
