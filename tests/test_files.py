"""Files and folders appear whole or not at all."""

import errno
from pathlib import Path

import pytest

from zoo.files import write_whole


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def half(beside: Path) -> None:
        beside.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*table.csv: No space left on device; what was there before"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_what_a_killed_process_left_is_not_in_it(tmp_path: Path) -> None:
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "half").touch()

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").touch()

    write_whole(tmp_path / "model", write)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["model/config.json"]


def test_a_bug_in_the_writer_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_whole(tmp_path / "table.csv", lambda path: {}["no such key"])
    assert not list(tmp_path.iterdir())
