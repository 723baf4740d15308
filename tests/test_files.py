"""Files and folders appear whole or not at all."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zoo.files import is_unfinished, remove_unfinished, write_whole


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


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "config.json").touch()
        assert not (tmp_path / "model").exists()

    write_whole(tmp_path / "model", write)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["model/below/config.json"]


def test_what_a_killed_process_left_is_known_and_removed(tmp_path: Path) -> None:
    """Killed in the act, for real: its half is under a name that tells, and nothing is under the name it was for."""
    code = (
        "import os, pathlib, sys, zoo.files\n"
        "def write(beside):\n    beside.write_text('half')\n    os.kill(os.getpid(), 9)\n"
        "zoo.files.write_whole(pathlib.Path(sys.argv[1]), write)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "table.csv")])
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left) and not is_unfinished(tmp_path / "table.csv")
    (tmp_path / ".model.new").mkdir()  # a name of versions before
    (tmp_path / ".model.new" / "half").touch()
    (tmp_path / ".hidden").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]
    remove_unfinished(tmp_path / "nowhere")


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Each has its own file beside the place, so the second neither takes away nor renames the half of the first."""
    path, both = tmp_path / "table.csv", threading.Barrier(2)

    def write(text: str) -> None:
        def slowly(beside: Path) -> None:
            beside.write_text(text)
            both.wait(10)  # both have written, none has renamed
            both.wait(10)

        write_whole(path, slowly)

    other = threading.Thread(target=write, args=("other",))
    other.start()
    write("mine")
    other.join()
    assert path.read_text() in ("mine", "other") and list(tmp_path.iterdir()) == [path]


def test_a_bug_in_the_writer_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_whole(tmp_path / "table.csv", lambda path: {}["no such key"])
    assert not list(tmp_path.iterdir())
