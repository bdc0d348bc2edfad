import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import virtex_det.utils
from virtex_det.errors import UserError
from virtex_det.signals import Stopped, stop_at_once
from virtex_det.utils import (
    fill_template,
    map_ahead,
    map_in_threads,
    replacing,
    sweep,
    unfinished_name,
    write_atomically,
)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "one")
    write_atomically(tmp_path / "new" / "a.txt", "two")
    assert (tmp_path / "new" / "a.txt").read_text() == "two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_a_page_is_utf_8_whatever_the_locale(tmp_path):
    program = (
        f"import runpy; utils = runpy.run_path({virtex_det.utils.__file__!r}); "
        "utils['write_atomically']('page', 'AP 1 \\xb1 2')"
    )
    ascii_alone = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=ascii_alone, check=True)
    assert (tmp_path / "page").read_text(encoding="utf-8") == "AP 1 ± 2"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.txt", "old")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "w.pth").write_text("old")
    with pytest.raises(OSError, match="disk full"), replacing(tmp_path / "w.pth") as unfinished:
        unfinished.write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "w.pth").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder", "no name"])
def test_only_regular_files_are_replaced(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path()
    with pytest.raises(UserError, match="not a regular file"):
        write_atomically(path, "text")
    assert not path.is_file() and not list(tmp_path.glob(".*"))


def test_the_error_of_a_full_disk_names_the_file(tmp_path):
    with (
        pytest.raises(OSError, match="No space left on device: .*w.pth") as caught,
        replacing(tmp_path / "w.pth"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "w.pth")


def test_a_missing_value_of_a_page_is_an_error(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("# {{ title }}\n")
    assert fill_template(template, title="a < b") == "# a < b\n"
    with pytest.raises(UndefinedError, match="title"):
        fill_template(template)


def test_half_a_surrogate_is_written_as_its_escape(tmp_path):
    write_atomically(tmp_path / "a.txt", "a\udc80b")
    assert (tmp_path / "a.txt").read_text() == "a\\udc80b"


def test_a_link_with_the_temporary_name_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".w.pth.part").symlink_to("mine")
    with replacing(tmp_path / "w.pth") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "w.pth").read_text() == "new" and not (tmp_path / "w.pth").is_symlink()


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_unfinished_files_of_killed_processes_are_deleted(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", dead_process)
        left = [unfinished_name(tmp_path / name) for name in ("a.txt", "b.txt")]
    alive = unfinished_name(tmp_path / "a.txt")
    for path in (*left, alive):
        path.write_text("half")
    write_atomically(tmp_path / "a.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", left[1].name, alive.name}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", alive.name}


def test_files_of_another_machine_or_a_user_are_not_deleted(tmp_path):
    names = (f".a.txt.{'0' * 8}-{dead_process()}-ab.part", ".a.txt.part", ".hidden.part")
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names}


def test_threads_return_results_in_the_order_of_the_items_and_count_them():
    done = []
    assert map_in_threads(str, range(50), threads=4, on_done=lambda: done.append(1)) == [
        *map(str, range(50))
    ]
    assert len(done) == 50


def test_threads_ahead_keep_the_order_and_take_no_more_than_told():
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    found = map_ahead(str, numbers(), threads=3, ahead=5)
    assert next(found) == (0, "0") and len(taken) <= 5
    assert list(found) == [(number, str(number)) for number in range(1, 20)]


def test_an_error_ahead_comes_in_its_place():
    found = map_ahead(lambda number: 1 // number, [2, 1, 0, 1], threads=2, ahead=3)
    assert [next(found), next(found)] == [(2, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_signal_while_threads_work_ahead_ends_the_work():
    def work(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return number

    with pytest.raises(Stopped), stop_at_once():
        list(map_ahead(work, range(1000), threads=2, ahead=4))


def test_an_error_in_a_thread_ends_the_work():
    begun = threading.Event()

    def refuse(number):
        if number == 0:
            begun.wait()
            raise ValueError("no")

    def numbers():
        yield from range(5)
        begun.set()

    with pytest.raises(ValueError, match="no"):
        map_in_threads(refuse, numbers(), threads=2)


def test_a_signal_ends_work_in_threads_between_two_calls_of_the_pool():
    asked_for = []

    def numbers():
        for number in range(5):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            asked_for.append(number)  # the signal has not raised here, nor would it within the pool
            yield number

    with pytest.raises(Stopped), stop_at_once():
        map_in_threads(str, numbers(), threads=2)
    assert asked_for == [0, 1, 2, 3]


def test_a_signal_during_the_last_call_is_not_lost():
    with pytest.raises(Stopped), stop_at_once():
        map_in_threads(
            str, range(3), threads=1, on_done=lambda: os.kill(os.getpid(), signal.SIGTERM)
        )
