"""Start a command in one or many processes; a user's mistake ends it with a short message."""

import argparse
import atexit
import functools
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from virtex_det.engine.explain import explain, is_lost_peer, wants_traceback
from virtex_det.errors import UserError
from virtex_det.escaping import VisibleText, on_one_screen
from virtex_det.plugins import Plugin, import_as, imported
from virtex_det.signals import SIGNALS, Stopped, command, end_with_parent, handling, stop_at_once


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run ``main(args)`` on the GPUs that ``args`` asks for, under torchrun, or in this process.

    Under ``torchrun`` (or any launcher that sets ``WORLD_SIZE``) each process joins the group that
    the environment describes, with NCCL on GPUs and gloo otherwise. Exits with code 1 after
    printing the message of a :class:`UserError`.
    """
    with_one_screen_errors(_resumable, functools.partial(_launch, main), args)


def with_one_screen_errors(function: Callable[..., object], *args: object) -> None:
    """Call ``function(*args)``; turn a user's mistake into its message and exit code 1.

    So do errors such as a full disk, full memory and diverged training (see ``explain``): they show
    no traceback. A signal that asks the process to end leads to one line, and to a shell's exit
    code for it: 128 plus its number.
    """
    logging.getLogger("detectron2.engine.train_loop").addFilter(_drop_traceback_of_user_errors)
    # The handler of last resort writes warnings if no log was set up.
    if logging.lastResort and not logging.lastResort.filters:
        logging.lastResort.addFilter(VisibleText())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names may have characters that the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stop_at_once():
            function(*args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        # Without this Python would complain again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved stays", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if wants_traceback():
            traceback.print_exception(error)
        print(f"\nerror: {on_one_screen(message)}", file=sys.stderr)
        sys.exit(1)


def _check_machines(args: argparse.Namespace, gpus: int) -> None:
    """Refuse invalid numbers of processes and machines, for which some would wait for ever."""
    if args.num_gpus < 0 or args.num_machines < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--num-gpus is {args.num_gpus}, --num-machines {args.num_machines} and --machine-rank "
            f"{args.machine_rank}; expected at least 0 GPUs, at least 1 machine, and a rank from 0 "
            "to the number of machines minus 1."
        )
    if args.num_machines > 1 and not (gpus and args.num_gpus):
        raise UserError(
            f"--num-machines is {args.num_machines}, and this machine has no GPU to use.\n"
            "For CPU processes on several machines start the command with torchrun on each."
        )


def _launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return _join_environment(main, args)
    gpus = torch.cuda.device_count()
    _check_machines(args, gpus)
    if args.num_gpus > max(gpus, 1):
        raise UserError(
            f"--num-gpus is {args.num_gpus}, and PyTorch finds {gpus} GPU(s) here.\n"
            "Leave --num-gpus out to run on one GPU, or on the CPU if there is no GPU; "
            "for several CPU processes start the command with torchrun."
        )
    dist_url = "auto" if args.num_machines == 1 else args.dist_url
    launch_processes(
        _resumable,
        main,
        args,
        processes=args.num_gpus,
        machines=args.num_machines,
        machine=args.machine_rank,
        dist_url=dist_url,
    )


def _resumable(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call ``main(args)``; if a signal ends it before training starts, say how to resume."""
    try:
        main(args)
    except Stopped as stopped:
        if stopped.message or getattr(args, "eval_only", False):
            raise
        raise Stopped(
            stopped.number, f"what was saved stays. To go on: {command('--resume')}"
        ) from stopped


def launch_processes(
    function: Callable[..., object],
    *args: object,
    processes: int,
    machines: int = 1,
    machine: int = 0,
    dist_url: str = "auto",
) -> None:
    """Call ``function(*args)`` in each process of a new group; a group of one is this process.

    When a process fails or a signal ends it, all others end, too, and this one exits with the code
    of the first that ended. Signals to this process are passed on to them, and they do not outlive
    it.

    Args:
        function: importable by its name.
        args: can be pickled.
        processes: number on this machine.
        machines: number of machines, on each of which this function is called.
        machine: rank of this machine.
        dist_url: where the processes meet; "auto" on one machine.
    """
    if processes * machines == 1:
        function(*args)
        return
    asked: list[int] = []  # the signals that came

    def pass_on(number: int, frame: FrameType | None) -> None:
        children = multiprocessing.active_children()
        if not children:
            raise Stopped(number)
        asked.append(number)
        for child in children:
            child.terminate()

    try:
        with handling(pass_on):
            detectron2_launch(
                _one_of_several,
                processes,
                num_machines=machines,
                machine_rank=machine,
                dist_url=dist_url,
                args=(os.getpid(), imported(), function, *args),
            )
    except ProcessExitedException as error:
        _end_like(error, processes, asked)
    if asked:
        raise Stopped(asked[0])


def _end_like(error: ProcessExitedException, processes: int, asked: list[int]) -> NoReturn:
    """End this process in the way in which the first of its children has ended.

    Args:
        error: of the child.
        processes: number of children.
        asked: signals that asked this process to end.
    """
    by_signal = signal.Signals[error.signal_name] if error.signal_name else 0
    if error.exit_code - 128 in SIGNALS:
        sys.exit(error.exit_code)  # the child has printed what happens to the work
    # Without an exit code of its own, the child got the signal before it could handle signals.
    if by_signal in SIGNALS or (asked and not by_signal):
        raise Stopped(asked[0] if asked else by_signal) from error
    if by_signal:
        raise UserError(
            f"{error.signal_name} ended process {error.error_index} of {processes}, and the run "
            "with it.\n"
            "SIGKILL usually means that the memory was full (see `dmesg`), or that somebody ended "
            "the process. Go on with --resume."
        ) from error
    if error.exit_code != 1:
        raise error
    sys.exit(1)  # the child has printed what the user can correct


def _one_of_several(
    parent: int, plugins: Sequence[Plugin], function: Callable[..., object], *args: object
) -> None:
    end_with_parent(signal.SIGTERM, parent)
    with_one_screen_errors(_in_group, _with_plugins, plugins, function, *args)


def _with_plugins(
    plugins: Sequence[Plugin], function: Callable[..., object], *args: object
) -> None:
    import_as(plugins)
    function(*args)


def _join_environment(
    main: Callable[[argparse.Namespace], object], args: argparse.Namespace
) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # torchrun leaves its processes running when it is killed.
        end_with_parent(signal.SIGTERM)
    has_gpu = torch.cuda.is_available()
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if has_gpu:
        torch.cuda.set_device(comm.get_local_rank())
    _in_group(_resumable, main, args)


def _in_group(function: Callable[..., object], *args: object) -> None:
    """Call ``function(*args)`` in a process of a group, and leave the group with the others."""
    try:
        function(*args)
        # A process that leaves the group while another still works can abort.
        comm.synchronize()
    except Stopped as stopped:
        if comm.is_main_process():
            raise
        # The launcher ends all processes when one has ended; the main one prints what is saved.
        time.sleep(2)
        sys.exit(stopped.exit_code)
    except Exception as error:
        if is_lost_peer(error):
            _let_the_other_speak()
        raise
    finally:
        _leave_group()


def _let_the_other_speak() -> None:
    """Wait for the launcher to see which process ended first: the run gets its message and code."""
    try:
        time.sleep(20)
    except Stopped:
        sys.exit(1)


@atexit.register  # also for a user's own script, under any launcher
def _leave_group() -> None:
    """Leave the group of processes before Python ends.

    A thread of gloo frees the tensors of a collective after the collective has returned, and needs
    Python's lock for it. If Python has begun to end by then, the lock ends the thread instead, and
    C++ the process: SIGABRT, "terminate called without an active exception", although all work is
    done. The thread outlives the group, because Detectron2 keeps the group.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        _await_idle_threads()


def _await_idle_threads(checks: int = 3, timeout: float = 5.0) -> None:
    """Wait until all other threads of this process were asleep in several checks in a row.

    A sleep of this thread frees Python's lock, so a thread that waits for the lock goes on between
    two checks.
    """
    deadline = time.monotonic() + timeout
    idle = 0
    while idle < checks and time.monotonic() < deadline:
        time.sleep(0.01)
        idle = 0 if _is_another_thread_running() else idle + 1


def _is_another_thread_running() -> bool:
    """Return whether another thread is awake; False where this is unknown, outside Linux."""
    for stat in Path("/proc/self/task").glob("*/stat"):
        try:
            state = stat.read_text().rpartition(") ")[2][:1]
        except OSError:  # the thread has ended
            continue
        if state != "S" and int(stat.parent.name) != threading.get_native_id():
            return True
    return False


def _drop_traceback_of_user_errors(record: logging.LogRecord) -> bool:
    if record.exc_info and explain(record.exc_info[1]) is not None and not wants_traceback():
        record.exc_info = None
    return True
