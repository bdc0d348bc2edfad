"""The exception for mistakes that the user can correct: commands print it without a traceback."""

import re

from virtex_det_commands import as_called

_FROM_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback ")


class UserError(Exception):
    """A mistake in a path, a config, a dataset or a weights file.

    The message says what was found, what was expected and what to do, on one screen; as text it
    names the commands as this process was started, ``python tools/train_net.py`` or ``virtex-det
    train``.
    """

    def __str__(self) -> str:
        message = as_called(super().__str__())
        if not _FROM_A_WORKER.match(message):
            return message
        # A data loader's worker process hands its errors over with the traceback written into the
        # message.
        return message.rpartition(f"\n{type(self).__module__}.{type(self).__qualname__}: ")[
            2
        ].rstrip("\n")


class BrokenExample(UserError):
    """An invalid image or annotation, which training may skip; ``reason`` says why."""

    def __init__(self, message: str, reason: str = "cannot be used") -> None:
        super().__init__(message)
        self.reason = reason
