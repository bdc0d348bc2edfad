"""The one exception that means "the user can mend this": tools print it without a traceback and exit with code 1."""


class UserError(Exception):
    """A mistake in a path, a config, a dataset or a weights file.

    The message says what was found, what was expected and what to do, on one screen.
    """

    def __str__(self) -> str:
        # A data loader's worker process hands its errors over with the traceback written into the message.
        return super().__str__().rpartition(f"{type(self).__name__}: ")[2]
