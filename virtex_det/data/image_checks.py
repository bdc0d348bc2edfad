"""A look at the images of data sets before a run: what would end an evaluation, or leave nothing to train on."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from detectron2.utils import comm
from tqdm import tqdm

from virtex_det.data.images import check_size, read_image
from virtex_det.errors import BrokenExample, UserError
from virtex_det.image_files import inspect_image

# So many images of a training set are read whole: enough to tell a broken file from data that is of no kind read.
_LOOKED_AT = 8
_SHOWN = 3
_THREADS = 8  # which wait for the disk together


def check_images(name: str, dicts: Sequence[dict[str, Any]], max_value: float, whole: int = 0) -> None:
    """Check that all images of an evaluation set can be read and have their annotated size.

    Header and end of a file take about 0.2 ms on a local disk, and do not tell damage in between.

    Args:
        name: of the data set.
        dicts: its dataset dicts; images within tar files are left alone.
        max_value: as INPUT.MAX_VALUE.
        whole: read so many images whole, the first ones.

    Raises:
        UserError: says how many cannot be used, and what to do about the first.
    """
    files = [entry for entry in dicts if "encoded_image" not in entry]
    checks = [(entry, max_value, number < whole) for number, entry in enumerate(files)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda check: _fault(*check), checks)
        quiet = None if comm.is_main_process() else True
        with tqdm(found, f"images of {name}", len(files), leave=False, disable=quiet, delay=2, unit="image") as bar:
            faults = [fault for fault in bar if fault]
    if faults:
        raise UserError(
            f"data set {name}: {len(faults)} of {len(dicts)} images cannot be used, and the numbers of an evaluation "
            f"without them would be others.\n{_some(faults)}"
        )


def check_some(name: str, dicts: Sequence[dict[str, Any]], max_value: float) -> None:
    """Read a few images of a training set, from its first to its last, and refuse the set if none can be used.

    Raises:
        UserError: says what to do about the first.
    """
    looked_at = dicts[:: max(len(dicts) // _LOOKED_AT, 1)][:_LOOKED_AT]
    faults = [fault for entry in looked_at if (fault := _fault(entry, max_value, whole=True))]
    if looked_at and len(faults) == len(looked_at):
        raise UserError(
            f"{name}: of {len(dicts)} images to train on {len(faults)} were looked at, and none can be used.\n"
            f"{_some(faults)}"
        )


def _fault(entry: dict[str, Any], max_value: float, whole: bool) -> str:
    """Return what is wrong with an image, "" for nothing; a fault of its header counts if reading it whole has one."""
    try:
        if not whole and _has_good_header(entry, max_value):
            return ""
        read_image(dict(entry), "RGB", max_value)
    except BrokenExample as error:
        return str(error)
    return ""


def _has_good_header(entry: dict[str, Any], max_value: float) -> bool:
    try:
        check_size(dict(entry), entry["file_name"], inspect_image(entry["file_name"], max_value))
    except BrokenExample:
        return False
    return True


def _some(faults: Iterable[str]) -> str:
    """Return the first faults of each kind, told apart by what follows the first line."""
    by_advice: dict[str, list[str]] = {}
    for fault in faults:
        first, _, advice = fault.partition("\n")
        by_advice.setdefault(advice, []).append(first)
    shown = list(by_advice.items())[:_SHOWN]
    lines = []
    for advice, firsts in shown:
        lines += [firsts[0] + (f" (and {len(firsts) - 1} more)" if len(firsts) > 1 else ""), advice]
    return "\n".join(lines)
