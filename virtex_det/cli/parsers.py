"""What the parsers of the commands share."""

import argparse

from virtex_det_commands import as_called


def command_parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose ``-h`` shows a text, such as a module's docstring, line by line.

    The text names commands as ``python tools/train_net.py``; shown is what this process was started as.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=as_called(text or ""), formatter_class=formatter)


def positive(text: str) -> int:
    """Return the whole number above 0 that an argument states.

    Raises:
        ArgumentTypeError: it states none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)
