"""Limits of a pickle's size, checked step by step before it is unpickled.

Unpickling trusts the lengths and numbers in a file: ten bytes can ask for gigabytes, and a key of
nested tuples can take forever to hash. So the steps are followed first, without making any object.
"""

import pickletools
import re
from typing import Any, BinaryIO, NamedTuple

MAX_STEPS = 2_000_000
MAX_DEPTH = 50  # of tuples in tuples
MAX_ITEMS = 100_000  # of a tuple, counting the items of nested tuples
# Of all keys other than text and numbers together; their hashes can be made to collide.
MAX_KEY_ITEMS = 10_000
MAX_BITS = 4096  # of an integer


class Refused(ValueError):
    """A refused file; the message continues a sentence that begins with the file's name."""


class _Item(NamedTuple):
    """The size of an entry of the unpickler's stack; lists, dicts and objects count as one item."""

    depth: int
    items: int


_PLAIN = _Item(0, 0)  # text, bytes, numbers of at most 64 bits
_OBJECT = _Item(1, 1)
_PUSHED = {info.name: len(info.stack_after) for info in pickletools.opcodes}
_MARKED = {info.name: pickletools.markobject in info.stack_before for info in pickletools.opcodes}
_POPPED = {
    info.name: len(
        [
            item
            for item in info.stack_before
            if item not in (pickletools.markobject, pickletools.stackslice)
        ]
    )
    for info in pickletools.opcodes
} | {"OBJ": 0}  # its class is above the mark
_VALUES = re.compile(r".*(INT\d?|LONG\d?|FLOAT|STRING|UNICODE\d?|BYTES\d?|NONE|NEWTRUE|NEWFALSE)")
_PLAIN_STEPS = {info.name for info in pickletools.opcodes if _VALUES.fullmatch(info.name)}


def check_pickle(file: BinaryIO) -> None:
    """Follow one pickle to its end, and set the file back to the pickle's beginning.

    Args:
        file: its ``read`` must not allocate more memory than the file has, as of an ``mmap`` or a
            ``BytesIO``.

    Raises:
        Refused: it exceeds the limits of this module.
        ValueError: it is not a whole pickle.
    """
    begin, end = file.tell(), length_of(file)
    stack = _Stack()
    for count, (info, argument, position) in enumerate(pickletools.genops(file), start=1):
        if count > MAX_STEPS:
            raise Refused(
                f"holds a pickle of more than {MAX_STEPS:,} steps, the most that are allowed."
            )
        if info.name == "FRAME" and (argument or 0) > end - (position or 0):
            raise ValueError("a frame is longer than the file")
        stack.follow(info.name, argument, count)
    file.seek(begin)


def length_of(file: BinaryIO) -> int:
    """Return the number of bytes of a file."""
    here = file.tell()
    file.seek(0, 2)
    length = file.tell()  # the seek of an mmap returns nothing before Python 3.13
    file.seek(here)
    return length


class _Stack:
    """The unpickler's stack and memo, with the sizes of objects instead of the objects."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.marks: list[int] = []
        self.memo: dict[int, _Item] = {}
        self.key_items = 0

    def follow(self, step: str, argument: Any, count: int) -> None:
        if step in _PLAIN_STEPS:
            self.items.append(_result(step, argument))
        elif step == "MARK":
            self.marks.append(len(self.items))
        elif step in ("PUT", "BINPUT", "LONG_BINPUT"):
            if not 0 <= argument <= count:
                raise Refused(
                    f"holds an invalid pickle: step {count:,} stores object number {argument:,}."
                )
            self.memo[argument] = self.items[-1]
        elif step == "MEMOIZE":
            self.memo[len(self.memo)] = self.items[-1]
        elif step in ("GET", "BINGET", "LONG_BINGET"):
            self.items.append(self.memo[argument])
        elif step == "DUP":
            self.items.append(self.items[-1])
        elif step == "POP" and self.marks and self.marks[-1] == len(self.items):
            self.marks.pop()
        else:
            self._exchange(step, argument)

    def _exchange(self, step: str, argument: Any) -> None:
        """Replace the arguments of a step on the stack by its result."""
        above = self._take(len(self.items) - self.marks.pop()) if _MARKED[step] else []
        below = self._take(_POPPED[step])
        self._count_keys(step, below, above)
        if step.startswith("TUPLE") or step == "EMPTY_TUPLE":
            self.items.append(_tuple_of([*below, *above]))
        elif _PUSHED[step]:
            self.items.append(_result(step, argument))

    def _take(self, count: int) -> list[_Item]:
        if not 0 <= count <= len(self.items):
            raise ValueError("it takes more from its stack than is there")
        taken = self.items[len(self.items) - count :]
        del self.items[len(self.items) - count :]
        return taken

    def _count_keys(self, step: str, below: list[_Item], above: list[_Item]) -> None:
        if step == "SETITEM":
            keys = below[1:2]
        elif step in ("SETITEMS", "DICT"):
            keys = above[::2]
        elif step in ("ADDITEMS", "FROZENSET"):
            keys = above
        else:
            return
        self.key_items += sum(key.items for key in keys)
        if self.key_items > MAX_KEY_ITEMS:
            raise Refused(f"has dict keys with more than {MAX_KEY_ITEMS:,} parts in all.")


def _tuple_of(items: list[_Item]) -> _Item:
    made = _Item(
        1 + max((item.depth for item in items), default=0),
        1 + sum(max(1, item.items) for item in items),
    )
    if made.depth > MAX_DEPTH:
        raise Refused(f"holds tuples nested more than {MAX_DEPTH} deep.")
    if made.items > MAX_ITEMS:
        raise Refused(
            f"holds a tuple of more than {MAX_ITEMS:,} items, including those of nested tuples."
        )
    return made


def _result(step: str, argument: Any) -> _Item:
    if step not in _PLAIN_STEPS:
        return _OBJECT
    if isinstance(argument, int) and argument.bit_length() > 64:
        if argument.bit_length() > MAX_BITS:
            raise Refused(f"holds an integer of more than {MAX_BITS} bits.")
        return _OBJECT
    return _PLAIN
