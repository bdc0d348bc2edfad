"""Starting a command on one process or many, and ending it on one screen when the user can mend what went wrong."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable

import torch
from detectron2.engine import launch as launch_processes
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from virtex_det.engine.explain import explain, wants_traceback
from virtex_det.errors import UserError


def launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run ``main(args)`` on the GPUs that ``args`` asks for, under torchrun, or in this process.

    Under ``torchrun`` (or any launcher that sets ``WORLD_SIZE``) each process joins the group of the environment, with
    NCCL on GPUs and gloo without. Exits with code 1 after printing the message of a :class:`UserError`.
    """
    with_one_screen_errors(_launch, main, args)


def with_one_screen_errors(function: Callable[..., object], *args: object) -> None:
    """Call ``function(*args)``; for a mistake of the user's print its message, without a traceback, and exit with 1.

    So ends also what the disk refuses, a full memory, a training that diverges and the like (see ``explain``).
    """
    logging.getLogger("detectron2.engine.train_loop").addFilter(_drop_traceback_of_user_errors)
    try:
        function(*args)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain again when it ends
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted; what was saved stays", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if wants_traceback():
            traceback.print_exception(error)
        print(f"\nerror: {message}", file=sys.stderr)
        sys.exit(1)


def _launch(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return _join_environment(main, args)
    gpus = torch.cuda.device_count()
    if args.num_gpus > max(gpus, 1):
        raise UserError(
            f"--num-gpus {args.num_gpus} was asked for and PyTorch finds {gpus} GPU(s) here.\n"
            "Leave --num-gpus out to run on one GPU, or on the CPU where there is none; "
            "for several CPU processes start the command with torchrun."
        )
    try:
        launch_processes(
            _main_on_one_screen,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url="auto" if args.num_machines == 1 else args.dist_url,
            args=(main, args),
        )
    except ProcessExitedException as error:
        if error.exit_code != 1:
            raise
        sys.exit(1)  # the process has said what the user can mend


def _main_on_one_screen(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    with_one_screen_errors(main, args)


def _join_environment(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    has_gpu = torch.cuda.is_available()
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if has_gpu:
        torch.cuda.set_device(comm.get_local_rank())
    try:
        main(args)
        comm.synchronize()  # one that tears its group down while another still works can end in an abort
    finally:
        torch.distributed.destroy_process_group()


def _drop_traceback_of_user_errors(record: logging.LogRecord) -> bool:
    if record.exc_info and explain(record.exc_info[1]) is not None and not wants_traceback():
        record.exc_info = None
    return True
