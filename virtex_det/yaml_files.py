"""Reading of users' YAML within bounds: plain values only, and each key once."""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import yaml

from virtex_det.errors import UserError
from virtex_det.files import read_regular

MAX_BYTES = 4 << 20
MAX_VALUES = 200_000  # an alias counts as all values that it repeats
MAX_DEPTH = 50
# PyYAML's errors; LookupError and TypeError for tags on invalid values, such as !!bool x.
_UNREADABLE = (
    yaml.YAMLError,
    ValueError,
    OverflowError,
    RecursionError,
    TypeError,
    AttributeError,
    LookupError,
)
T = TypeVar("T")
Text = Annotated[str, msgspec.Meta(min_length=1)]  # of fields that must not be empty
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # many times faster, if PyYAML has it


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """Makes plain values only: dates are text, and numbers have at most 64 bits.

    Larger numbers cannot be used and may be too long to print.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"
        ]
        for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_int(self, node: yaml.ScalarNode) -> int:
        number: int = self.construct_yaml_int(node)
        if number.bit_length() > 64:
            raise yaml.constructor.ConstructorError(
                None, None, "an integer of more than 64 bits", node.start_mark
            )
        return number

    def refuse(self, node: yaml.Node) -> None:
        kind = node.tag.rpartition(":")[2]
        raise yaml.constructor.ConstructorError(
            None, None, f"!!{kind} is not a plain value", node.start_mark
        )


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
for _kind in ("binary", "omap", "pairs", "set", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse)


class YamlFile(NamedTuple):
    """A YAML file that was read, whose values are checked with their line.

    Attributes:
        path: the file.
        content: its plain values.
        text: its bytes.
    """

    path: Path
    content: Any
    text: bytes

    def at(self, *place: str | int) -> str:
        """Return file and line of a value, or of the nearest around it, for messages.

        Args:
            place: the keys and indices that lead to the value.
        """
        node, line = yaml.compose(self.text, Loader=_SafeLoader), 1
        for step in place:
            found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
            if isinstance(node, yaml.MappingNode):
                found = {str(key.value): (key, value) for key, value in node.value}
            elif isinstance(node, yaml.SequenceNode):
                found = {str(index): (item, item) for index, item in enumerate(node.value)}
            if str(step) not in found:  # it is missing, or merged in from another mapping
                break
            first, node = found[str(step)]
            line = first.start_mark.line + 1
        return f"{self.path}, line {line}"

    def convert(self, value: Any, kind: type[T], *place: str | int) -> T:
        """Return a value of the file as a dataclass, checked against its types.

        Args:
            value: what stands at the place.
            kind: a dataclass.
            place: the keys and indices that lead to the value.

        Raises:
            UserError: a field is unknown, missing or of another type; says file, line and field.
        """
        if not isinstance(value, dict):
            raise UserError(f"{self.at(*place)}: expected fields and values, not {value!r:.80}.")
        known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        if unknown := [str(field) for field in value if field not in known]:
            nearest = difflib.get_close_matches(unknown[0], known, n=1) or known
            raise UserError(
                f"{self.at(*place, unknown[0])}: there is no field {unknown[0]:.80}; the nearest: "
                f"{', '.join(nearest)}."
            )
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            said, _, path = str(error).partition(" - at `$")
            steps = re.findall(r"\.(\w+)|\[(\d+)\]", path.partition("[...]")[0])
            inner = [name or int(index) for name, index in steps]
            field = f"field {'.'.join(map(str, inner))}: " if inner else ""
            raise UserError(f"{self.at(*place, *inner)}: {field}{said}.") from error


def read_yaml_file(path: str | Path) -> YamlFile:
    """Return the content of a YAML file as plain values, which can be checked with their lines.

    Raises:
        UserError: it is not a regular file, or not plain YAML within MAX_BYTES, MAX_VALUES and
            MAX_DEPTH.
    """
    text = read_regular(path, MAX_BYTES)
    return YamlFile(Path(path), parse_yaml(text, str(path)), text)


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file as plain values; errors as of ``read_yaml_file``."""
    return read_yaml_file(path).content


def parse_yaml(content: str | bytes, where: str) -> Any:
    """Return the plain values of a YAML text, without objects and without repeated keys.

    Args:
        content: the text, at most MAX_BYTES.
        where: name of the text in messages.

    Raises:
        UserError: the text is not plain YAML.
    """
    try:
        _check_size(content)
        return _construct(content)
    except _UNREADABLE as error:
        reason = _in_one_screen(error)
        raise UserError(f"{where} cannot be read as plain YAML: {reason}") from error


def _check_size(content: str | bytes) -> None:
    """Refuse too deep nesting, and aliases of aliases, which would grow without end."""
    sizes: dict[str, tuple[int, int]] = {}  # anchor -> number of values and depth of its node
    # anchor, number of values and depth so far of each open node
    opened: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    for event in yaml.parse(content, Loader=_SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1, 1))
            if len(opened) > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _, _ in opened]:
                raise ValueError(
                    f"the alias *{event.anchor:.50} is inside the value that it repeats"
                )
            values, depth = sizes.get(event.anchor, (1, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = opened.pop()
            sizes |= {anchor: (values, depth)} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values, depth = 1, 1
            sizes |= {event.anchor: (values, depth)} if event.anchor else {}
        else:
            continue
        outer, before, deepest = opened.pop()
        if before + values > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values, with aliases expanded")
        if len(opened) + depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep, with aliases expanded")
        opened.append((outer, before + values, max(deepest, depth + 1)))


def _construct(content: str | bytes) -> Any:
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated_keys(loader, node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_repeated_keys(loader: Any, node: yaml.Node, done: set[int]) -> None:
    """Refuse a key that occurs twice in a mapping; PyYAML silently keeps the last one."""
    if id(node) in done or isinstance(node, yaml.ScalarNode):
        return
    done.add(id(node))
    pairs = (
        node.value if isinstance(node, yaml.MappingNode) else [(None, item) for item in node.value]
    )
    seen: set[Any] = set()
    for key, value in pairs:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            name = loader.construct_object(key)
            if name in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"line {line}: the key {shortened(name)} occurs twice")
            seen.add(name)
        _refuse_repeated_keys(loader, value, done)


def _in_one_screen(error: Exception) -> str:
    text = str(error).replace('in "<byte string>", ', "").replace('in "<unicode string>", ', "")
    lines = [line[:200] for line in text.splitlines()[:8]]
    if "cannot start any token" in text:
        lines.append(
            "Indent lines by spaces, not by tabs, and put quotes around text that begins with @, ` "
            "or %."
        )
    return "\n".join(lines) or type(error).__name__


def shortened(value: Any) -> str:
    """Return a value's repr, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
