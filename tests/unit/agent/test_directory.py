"""Whole sets of files: what readers see, what a kill leaves, whose the files are, and what is never overwritten."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from machinebot.agent.directory import ABOUT, MAX_FILE, MAX_FILES, OutputDirectory
from machinebot.agent.ownership import Ownership
from machinebot.errors import Conflict, Invalid, MachinebotError, Unavailable

OLD = {"key": b"old key", "cert": b"old cert"}
NEW = {"key": b"new key", "cert": b"new cert"}


class KilledError(BaseException):
    """As kill -9: nothing is cleaned up."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "out"


@pytest.fixture
def directory(path: Path) -> Iterator[OutputDirectory]:
    made = OutputDirectory(path)
    yield made
    made.close()


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def seen(path: Path) -> dict[str, bytes]:
    """What somebody reads who goes by the names."""
    return {name: (path / name).read_bytes() for name in names(path) if not name.startswith(".")}


def sets(path: Path) -> list[str]:
    return sorted(name for name in names(path) if name.startswith(".machinebot-"))


def test_a_set_is_written_and_read(directory: OutputDirectory, path: Path) -> None:
    assert directory.read() is None
    directory.write(1, OLD, b"about 1")
    assert directory.read() == {**OLD, ABOUT: b"about 1"}
    assert seen(path) == OLD
    assert (path / "key").readlink() == Path("..data/key")
    directory.write(2, NEW, b"about 2")
    assert seen(path) == NEW
    assert directory.read() == {**NEW, ABOUT: b"about 2"}


def test_modes_let_nobody_else_in(directory: OutputDirectory, path: Path) -> None:
    before = os.umask(0)
    try:
        directory.write(1, OLD, b"")
    finally:
        os.umask(before)
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (path, path / "..data", path / "key", path / "..data" / ABOUT)}
    assert list(modes.values()) == [0o700, 0o700, 0o600, 0o600]


def test_a_strict_umask_takes_nothing_away(path: Path) -> None:
    before = os.umask(0o777)
    try:
        directory = OutputDirectory(path, Ownership(mode=0o750))
        directory.write(1, OLD, b"")
        directory.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert stat.S_IMODE((path / "..data").stat().st_mode) == 0o750
    assert stat.S_IMODE((path / "key").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_who_is_named(path: Path) -> None:
    directory = OutputDirectory(path, Ownership(owner=12345, group=23456, mode=0o750))
    directory.write(1, OLD, b"about")
    directory.write(2, NEW, b"about")
    directory.close()
    for each in (path, path / "..data", path / "key", path / "..data" / ABOUT):
        found = each.stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456), each
    again = OutputDirectory(path, Ownership(owner=12345, group=23456, mode=0o750))
    assert again.read() == {**NEW, ABOUT: b"about"}
    again.close()


def test_one_old_set_stays_for_who_reads_it(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, OLD, b"about")
    reader = os.open(path / "..data", os.O_RDONLY | os.O_DIRECTORY)
    directory.write(2, NEW, b"about")
    for name, content in OLD.items():
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=reader), "rb") as file:
            assert file.read() == content
    os.close(reader)
    assert sets(path) == [".machinebot-1", ".machinebot-2"]
    directory.write(3, NEW, b"about")
    assert sets(path) == [".machinebot-2", ".machinebot-3"]


def test_names_that_are_gone_from_the_set_are_gone_from_the_directory(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, {**OLD, "extra": b"x"}, b"about")
    directory.write(2, NEW, b"about")
    assert set(seen(path)) == {"key", "cert"}
    assert not (path / "extra").is_symlink()


STEPS = ("set", "open key", "open cert", "made", "linked", "exchanging", "exchanged")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [None, OLD], ids=["first set", "another set"])
def test_a_kill_at_any_step_leaves_a_whole_set(path: Path, step: str, before: Mapping[str, bytes] | None) -> None:
    def kill(at: str) -> None:
        if at == step:
            raise KilledError

    if before is not None:
        first = OutputDirectory(path)
        first.write(1, before, b"about 1")
        first.close()
    dying = OutputDirectory(path, step=kill)
    dying._remove_set = lambda *_: None  # type: ignore[method-assign]  # the dead clean up nothing
    with pytest.raises(KilledError):
        dying.write(2, {**NEW, "extra": b"x"}, b"about 2")
    whole = {**NEW, "extra": b"x"} if step == "exchanged" else dict(before or {})
    for name, content in whole.items():
        assert (path / name).read_bytes() == content
    dying.close()
    after = OutputDirectory(path)
    found = after.read()
    assert found == ({**whole, ABOUT: b"about 2" if step == "exchanged" else b"about 1"} if whole else None)
    after.write(3, NEW, b"about 3")
    assert seen(path) == NEW
    assert len(sets(path)) <= 2
    assert not (path / "..data_tmp").is_symlink()
    after.close()


def test_what_a_kill_has_left_is_removed_at_the_next_start(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, OLD, b"about")
    directory.close()
    (path / ".machinebot-7").mkdir()
    (path / ".machinebot-7" / "key").write_bytes(b"half")
    (path / "..data_tmp").symlink_to(".machinebot-7")
    (path / "extra").symlink_to("..data/extra")
    assert directory.read() == {**OLD, ABOUT: b"about"}
    assert names(path) == ["..data", ".machinebot-1", "cert", "key"]


def test_a_full_disk_keeps_the_old_set_and_leaves_no_rest(
    directory: OutputDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write(1, OLD, b"about")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable) as caught:
        directory.write(2, NEW, b"about")
    assert caught.value.reason == "DirectoryUnusable"
    assert "No space left" in caught.value.message
    assert seen(path) == OLD
    assert sets(path) == [".machinebot-1"]


# --- what others do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a file", "a directory", "another link"])
def test_what_is_somebody_elses_is_not_overwritten(directory: OutputDirectory, path: Path, what: str) -> None:
    path.mkdir(mode=0o700)
    mine = path / "key"
    if what == "a file":
        mine.write_bytes(b"mine")
    elif what == "a directory":
        mine.mkdir()
    else:
        mine.symlink_to("/etc/passwd")
    for attempt in (lambda: directory.check(NEW), lambda: directory.write(1, NEW, b"about")):
        with pytest.raises(Invalid) as caught:
            attempt()
        assert caught.value.reason == "DirectoryConflict"
        assert str(mine) in caught.value.message
    assert sets(path) == []
    assert what != "a file" or mine.read_bytes() == b"mine"


@pytest.mark.parametrize("what", ["a file", "a directory"])
def test_what_stands_in_the_place_of_the_link_is_told(directory: OutputDirectory, path: Path, what: str) -> None:
    path.mkdir(mode=0o700)
    (path / "..data").write_bytes(b"") if what == "a file" else (path / "..data").mkdir()
    with pytest.raises(MachinebotError) as caught:
        directory.read()
    assert caught.value.reason == "DirectoryUnusable"


@pytest.mark.parametrize("target", ["/etc", "..", ".machinebot-x", ".machinebot-1/../..", ".machinebot-9"])
def test_a_link_that_leads_elsewhere_is_no_set(directory: OutputDirectory, path: Path, target: str) -> None:
    directory.write(1, OLD, b"about")
    (path / "..data").unlink()
    (path / "..data").symlink_to(target)
    assert directory.read() is None
    directory.write(2, NEW, b"about")
    assert seen(path) == NEW


def test_a_link_that_was_deleted_is_put_back(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, OLD, b"about")
    (path / "key").unlink()
    assert directory.read() == {**OLD, ABOUT: b"about"}
    assert seen(path) == OLD


def test_a_deleted_directory_is_made_anew(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, OLD, b"about")
    path.rename(path.with_name("gone"))
    assert directory.read() is None
    directory.write(2, NEW, b"about")
    assert seen(path) == NEW


@pytest.mark.parametrize("what", ["a link", "a pipe", "a directory", "too long", "too many"])
def test_a_set_with_something_else_in_it_is_damaged(directory: OutputDirectory, path: Path, what: str) -> None:
    directory.write(1, OLD, b"about")
    key = path / ".machinebot-1" / "key"
    key.unlink()
    match what:
        case "a link":
            key.symlink_to("/etc/passwd")
        case "a pipe":
            os.mkfifo(key)
        case "a directory":
            key.mkdir()
        case "too long":
            key.write_bytes(b"x" * (MAX_FILE + 1))
        case _:
            for number in range(MAX_FILES):
                (path / ".machinebot-1" / f"{number}").touch()
    with pytest.raises(Invalid) as caught:
        directory.read()
    assert caught.value.reason == "FilesDamaged"
    directory.write(2, NEW, b"about")
    assert seen(path) == NEW


def test_two_agents_do_not_write_into_one_directory(directory: OutputDirectory, path: Path) -> None:
    directory.write(1, OLD, b"about")
    other = OutputDirectory(path)
    with pytest.raises(Conflict) as caught:
        other.read()
    assert caught.value.reason == "DirectoryBusy"
    directory.close()
    assert other.read() == {**OLD, ABOUT: b"about"}
    other.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="to root every file is writable and every directory open")
def test_the_set_of_somebody_else_is_removed_without_following_links(
    directory: OutputDirectory, path: Path, tmp_path: Path
) -> None:
    directory.write(1, OLD, b"about")
    directory.close()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"dear")
    (path / ".machinebot-5").symlink_to(precious)
    (path / ".machinebot-6").mkdir()
    (path / ".machinebot-6" / "inner").symlink_to(precious)
    assert directory.read() is not None
    assert (precious / "file").read_bytes() == b"dear"
    assert not (path / ".machinebot-6").exists()
