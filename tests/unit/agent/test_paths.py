"""Directories are opened so that nobody else can lead them elsewhere: every owner, mode and link on the way."""

import os
import stat
from pathlib import Path

import pytest

from machinebot.agent.paths import Trusted, open_directory
from machinebot.errors import Denied, Invalid, MachinebotError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories to others")
OTHER = 12345


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def opened(path: Path, owner: int | None = None, *, unsafe: bool = False) -> os.stat_result:
    found = open_directory(path, Trusted.of(owner, unsafe=unsafe))
    try:
        return os.fstat(found.descriptor)
    finally:
        os.close(found.descriptor)


def sheltered(path: Path, owner: int | None = None, *, unsafe: bool = False) -> bool:
    found = open_directory(path, Trusted.of(owner, unsafe=unsafe))
    os.close(found.descriptor)
    return found.sheltered


def refused(path: Path, owner: int | None = None) -> MachinebotError:
    with pytest.raises(MachinebotError) as caught:
        opened(path, owner)
    return caught.value


def test_what_is_missing_is_made(base: Path) -> None:
    assert stat.S_IMODE(opened(base / "a" / "b").st_mode) == 0o700
    assert stat.S_IMODE((base / "a").stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_who_may_write_into_it_may_change_it(base: Path, mode: int) -> None:
    (base / "a").mkdir()
    (base / "a").chmod(mode)
    assert refused(base / "a").reason == "DirectoryRefused"
    assert opened(base / "a", unsafe=True)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_who_may_write_on_the_way_may_lead_it_elsewhere(base: Path, mode: int) -> None:
    (base / "way" / "a").mkdir(parents=True)
    (base / "way").chmod(mode)
    error = refused(base / "way" / "a")
    assert isinstance(error, Denied)
    assert "on the way" in error.message
    assert opened(base / "way" / "a", unsafe=True)


def test_a_sticky_directory_on_the_way_is_fine(base: Path) -> None:
    (base / "tmp" / "a").mkdir(parents=True)
    (base / "tmp").chmod(0o1777)
    (base / "tmp" / "a").chmod(0o700)
    assert opened(base / "tmp" / "a")


@root_only
@pytest.mark.parametrize("part", ["way", "way/a"])
def test_a_directory_of_somebody_else_is_refused(base: Path, part: str) -> None:
    (base / "way" / "a").mkdir(parents=True)
    os.chown(base / part, OTHER, OTHER)
    error = refused(base / "way" / "a")
    assert error.reason == "DirectoryRefused"
    assert str(OTHER) in error.message
    assert opened(base / "way" / "a", OTHER), "the named owner may have it"


def test_a_link_at_the_end_is_not_followed(base: Path) -> None:
    (base / "real").mkdir(mode=0o700)
    (base / "link").symlink_to("real")
    error = refused(base / "link")
    assert isinstance(error, Invalid)
    assert error.reason == "DirectoryUnusable"
    assert os.path.samestat(opened(base / "link", unsafe=True), (base / "real").stat())


@pytest.mark.parametrize("target", ["real", "./real", "sub/../real", "{base}/real", "other"])
def test_a_link_of_ours_on_the_way_is_followed(base: Path, target: str) -> None:
    (base / "real" / "a").mkdir(parents=True, mode=0o755)
    (base / "sub").mkdir()
    (base / "other").symlink_to("real")
    (base / "link").symlink_to(target.format(base=base))
    assert os.path.samestat(opened(base / "link" / "a"), (base / "real" / "a").stat())


@root_only
def test_a_link_of_somebody_else_on_the_way_is_refused(base: Path) -> None:
    (base / "tmp").mkdir()
    (base / "tmp").chmod(0o1777)
    (base / "real").mkdir()
    (base / "tmp" / "link").symlink_to(base / "real")
    os.chown(base / "tmp" / "link", OTHER, OTHER, follow_symlinks=False)
    error = refused(base / "tmp" / "link" / "a")
    assert error.reason == "DirectoryRefused"
    assert "symbolic link" in error.message


@root_only
@pytest.mark.parametrize(("whose", "mode"), [(OTHER, 0o755), (0, 0o1777)], ids=["of the owner", "sticky"])
@pytest.mark.parametrize("owner", [0, OTHER], ids=["a link of root's", "a link of the owner's"])
def test_a_link_is_not_followed_where_others_may_have_put_it(base: Path, whose: int, mode: int, owner: int) -> None:
    (base / "home").mkdir()
    (base / "real" / "a").mkdir(parents=True, mode=0o755)
    (base / "home" / "link").symlink_to(base / "real")
    os.chown(base / "home" / "link", owner, owner, follow_symlinks=False)
    os.chown(base / "home", whose, whose)
    (base / "home").chmod(mode)
    error = refused(base / "home" / "link" / "a", OTHER)
    assert error.reason == "DirectoryRefused"
    assert "symbolic link 'link'" in error.message
    assert opened(base / "home" / "link" / "a", OTHER, unsafe=True)


@root_only
def test_a_link_of_the_named_owner_is_not_followed_wherever_it_lies(base: Path) -> None:
    (base / "real" / "a").mkdir(parents=True)
    (base / "link").symlink_to("real")
    os.chown(base / "link", OTHER, OTHER, follow_symlinks=False)
    error = refused(base / "link" / "a", OTHER)
    assert error.reason == "DirectoryRefused"
    assert f"the symbolic link 'link' on the way belongs to the user {OTHER}" in error.message
    assert opened(base / "link" / "a", OTHER, unsafe=True)


@root_only
@pytest.mark.parametrize("made", [True, False], ids=["made", "found"])
def test_a_path_is_sheltered_where_nobody_but_root_and_ourselves_can_lead_it(base: Path, made: bool) -> None:
    for way in ("root", "tmp", "home", "home/root", "open", "links"):
        (base / way).mkdir()
        if not made:
            (base / way / "a").mkdir(mode=0o700)
    (base / "tmp").chmod(0o1777)
    (base / "open").chmod(0o777)
    (base / "links" / "link").symlink_to("../home")
    (base / "links" / "theirs").symlink_to("../root")
    (base / "tmp" / "link").symlink_to("../root")
    os.chown(base / "links" / "theirs", OTHER, OTHER, follow_symlinks=False)
    os.chown(base / "home", OTHER, OTHER)
    assert sheltered(base / "root" / "a")
    assert sheltered(base / "tmp" / "a")
    assert sheltered(base / "root" / "a", OTHER)
    assert not sheltered(base / "home" / "a", OTHER)
    assert not sheltered(base / "home" / "root" / "a", OTHER)
    assert not sheltered(base / "links" / "link" / "a", OTHER)
    assert not sheltered(base / "open" / "a", unsafe=True)
    assert not sheltered(base / "links" / "theirs" / "a", unsafe=True)
    assert not sheltered(base / "tmp" / "link" / "a", unsafe=True)


def test_links_without_end_are_given_up(base: Path) -> None:
    (base / "one").symlink_to("two")
    (base / "two").symlink_to("one")
    assert refused(base / "one" / "a").reason == "DirectoryUnusable"


@pytest.mark.parametrize("part", ["file", "file/a"])
def test_a_file_is_no_directory(base: Path, part: str) -> None:
    (base / "file").write_bytes(b"")
    assert isinstance(refused(base / part), Invalid)


def test_no_descriptor_is_left_open(base: Path) -> None:
    (base / "open").mkdir()
    (base / "open").chmod(0o777)
    before = len(list(Path("/proc/self/fd").iterdir()))
    (base / "file").write_bytes(b"")
    for _ in range(5):
        opened(base / "a" / "b" / "c")
        opened(base / "open" / "d", unsafe=True)
        refused(base / "open" / "e")
        refused(base / "file" / "a")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
