"""List, describe, download and verify the published weights that virtex_det knows by name.

python tools/model_zoo.py list clip
python tools/model_zoo.py info bicaptioning_R_50_L1_H2048
python tools/model_zoo.py download bicaptioning_R_50_L1_H2048 clip_RN50
python tools/model_zoo.py verify
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from virtex_det.cli.parsers import command_parser
from virtex_det.errors import UserError
from virtex_det.escaping import say
from virtex_det.model_zoo import list_models
from virtex_det.model_zoo.cache import cache_folder, cache_path, check
from virtex_det.model_zoo.catalog import Record, catalog, find, is_address, record_of
from virtex_det.model_zoo.download import fetch
from virtex_det.model_zoo.page import PAGE, render
from virtex_det.utils import write_atomically
from virtex_det_commands import as_called

_VALID = "ok"

Rows = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks."""
    options = _parser().parse_args(arguments)
    options.run(options)


def list_records(options: argparse.Namespace) -> None:
    """Print a row for each record that matches the filter."""
    records = [find(name) for name in list_models(options.filter)]
    if options.json:
        _print_json([dataclasses.asdict(record) for record in records])
    elif records:
        print(tabulate([_row(record) for record in records], headers="keys", disable_numparse=True))
        more = as_called("python tools/model_zoo.py info NAME")
        say(f"\n{len(records)} weights; the cache is {cache_folder()}. Details of one: {more}")
    else:
        raise UserError(
            f"No weights match {options.filter!r}.\nList all: python tools/model_zoo.py list"
        )


def info(options: argparse.Namespace) -> None:
    """Print all that is known about one file."""
    record = find(options.name)
    path = cache_path(record)
    facts = dataclasses.asdict(record) | {"cached": str(path) if path.exists() else ""}
    if options.json:
        _print_json(facts)
        return
    for field, value in facts.items():
        for line in _lines(value):
            say(f"{field:<14}{line}")
            field = ""


def download(options: argparse.Namespace) -> None:
    """Fetch files into the cache and print where they are."""
    records = [_named(name) for name in options.names]
    rows = [{"name": record.name, "path": str(fetch(record))} for record in records]
    _print_rows(rows, options.json)


def verify(options: argparse.Namespace) -> None:
    """Read cached files again and compare hashes; exit with 1 if one differs or is missing."""
    if options.name:
        records = [_named(options.name)]
    else:
        records = [record for record in catalog() if cache_path(record).exists()]
    rows = [_verified(record) for record in records]
    _print_rows(rows, options.json)
    if not rows:
        say(f"the cache {cache_folder()} is empty", file=sys.stderr)
    if bad := [row["name"] for row in rows if row["state"] != _VALID]:
        raise UserError(
            f"{len(bad)} of {len(rows)} files are damaged or missing: {', '.join(bad)}.\n"
            "Download them again: python tools/model_zoo.py download NAME"
        )


def write_zoo_page(options: argparse.Namespace) -> None:
    """Write MODEL_ZOO.md anew."""
    write_atomically(PAGE, render())
    say(PAGE)


def _named(name: str) -> Record:
    return record_of(name) if is_address(name) else find(name)


def _verified(record: Record) -> dict[str, Any]:
    path = cache_path(record)
    if not path.exists():
        return {"name": record.name, "state": "not in the cache", "sha256": ""}
    try:
        digest = check(record, path, thorough=True)
    except UserError as error:
        return {"name": record.name, "state": str(error).partition("\n")[0], "sha256": ""}
    return {"name": record.name, "state": _VALID, "sha256": digest}


def _row(record: Record) -> dict[str, str]:
    return {
        "name": record.name,
        "network": record.architecture,
        "format": record.format,
        "pretraining": record.pretraining,
        "licence": record.licence or "not stated",
        "here": "yes" if cache_path(record).exists() else "",
    }


def _lines(value: Any) -> list[str]:
    """Return the lines that show a field's value; none for an empty value."""
    if value is None:
        return ["not known"]
    if isinstance(value, dict):
        return [f"{key}: {', '.join(_lines(entry))}" for key, entry in value.items()]
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return [str(value)] if value != "" else []


def _print_rows(rows: Rows, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
    elif rows:
        print(tabulate(rows, headers="keys", disable_numparse=True))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, sentence: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=sentence, description=sentence)
        command.set_defaults(run=run)
        if run is not write_zoo_page:
            command.add_argument("--json", action="store_true", help="print JSON")
        return command

    command = add("list", list_records, "list all weights, or those that match")
    command.add_argument(
        "filter",
        nargs="?",
        default="",
        metavar="FILTER",
        help="text in a name, family, format, architecture or pretraining",
    )
    command = add("info", info, "print all that is known about one file")
    command.add_argument("name", metavar="NAME", help="of a listed file")
    command = add("download", download, "fetch files into the cache")
    command.add_argument("names", nargs="+", metavar="NAME", help="names or http addresses")
    command = add("verify", verify, "read cached files again and compare their hashes")
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="name or http address (default: all cached files)"
    )
    add("page", write_zoo_page, "write MODEL_ZOO.md anew")
    return parser
