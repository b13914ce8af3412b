"""The servers of databases before they run: what is missing is named, what goes wrong is shown, and nothing is left behind."""

import sys
import tempfile
from pathlib import Path

import pytest

from controlplane.processes import ProgramError
from workbench import databases, postgres, programs
from workbench.databases import Home, TLSFiles
from workbench.mariadb import MariaDBServer
from workbench.postgres import PostgresServer
from workbench.programs import ProgramMissingError


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    """Files that hold no credential."""
    paths = [tmp_path / name for name in ("server.crt", "server.key", "root.crt")]
    for path in paths:
        path.write_text("no PEM\n")
        path.chmod(0o600)
    return TLSFiles(*paths)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made: empty."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_a_server_that_is_not_installed_is_told_with_its_package(
    tmp_path: Path, files: TLSFiles, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "setpriv").write_text("#!/bin/sh\n")
    (empty / "setpriv").chmod(0o755)
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr(programs, "SBIN", str(empty))
    monkeypatch.setattr(postgres, "DEBIAN", empty)
    with pytest.raises(ProgramMissingError, match="no initdb on this machine: apt-get install postgresql"):
        PostgresServer(tmp_path, files)
    with pytest.raises(ProgramMissingError, match="no mariadb-install-db on this machine: apt-get install mariadb-server-core"):
        MariaDBServer(tmp_path, files, users={})
    assert list(temporary.iterdir()) == []


def test_the_newest_postgresql_of_debian_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9", "15", "17", "17-old"):
        directory = tmp_path / version / "bin"
        directory.mkdir(parents=True)
        (directory / "psql").write_text("#!/bin/sh\n")
        (directory / "psql").chmod(0o755)
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    assert postgres._program("psql") == str(tmp_path / "17" / "bin" / "psql")


@pytest.mark.parametrize(
    ("script", "words"),
    [("raise SystemExit('no space')", "it failed with exit code 1:\nno space"), ("while True: pass", "it: not done after 1 s")],
    ids=["it fails", "it takes too long"],
)
def test_a_program_that_makes_files_and_fails_shows_why(script: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "done after" in words:
        monkeypatch.setattr(databases, "MAKE_SECONDS", 1.0)
    with pytest.raises(ProgramError, match=words):
        databases.make([sys.executable, "-c", script], what="it")


def test_files_keep_their_modes_and_can_be_taken_again(files: TLSFiles) -> None:
    home = Home()
    try:
        for mode in (0o600, 0o400):
            files.key.chmod(mode)
            taken = home.take(files)
            assert taken.key.stat().st_mode & 0o777 == mode
            assert taken.key.stat().st_uid != 0
        assert home.path.stat().st_mode & 0o777 == 0o700
    finally:
        home.remove()
    assert not home.path.exists()
