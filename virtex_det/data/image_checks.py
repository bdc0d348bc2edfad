"""Checks of a dataset's images before a run, for faults that would end it later."""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from detectron2.utils import comm
from tqdm import tqdm

from virtex_det.data.images import check_size, read_image
from virtex_det.errors import BrokenExample, UserError
from virtex_det.escaping import visible
from virtex_det.image_files import inspect_image
from virtex_det.utils import map_in_threads

# Number of training images that are checked, and number of these that are read whole.
_LOOKED_AT, _READ_WHOLE = 1000, 8
# Largest share of images of an unknown kind or another size than annotated.
_SHARE_OF_A_KIND = 0.1
_DAMAGE = ("image cannot be read", "image file is missing")
_SHOWN = 3
_THREADS = 8  # they mostly wait for the disk


def check_images(
    name: str, dicts: Sequence[dict[str, Any]], max_value: float, whole: int = 0
) -> None:
    """Check that all images of an evaluation set can be read and have their annotated size.

    The header and the end of a file take about 0.2 ms on a local disk; they do not show damage in
    between.

    Args:
        name: name of the dataset.
        dicts: its dataset dicts; images in tar files are not checked.
        max_value: as INPUT.MAX_VALUE.
        whole: number of images to read whole, from the first on.

    Raises:
        UserError: some images cannot be used.
    """
    files = [entry for entry in dicts if "encoded_image" not in entry]
    faults = _faults(name, files, max_value, range(whole))
    if faults:
        raise UserError(
            f"data set {name}: {len(faults)} of {len(dicts)} images cannot be used, and without "
            "them the metrics would not be comparable.\n"
            f"{_some(faults)}"
        )


def check_some(name: str, dicts: Sequence[dict[str, Any]], max_value: float) -> None:
    """Check a sample of a training set's images for systematic faults.

    Damaged files are an error only if all files are damaged, since training skips them.

    Args:
        name: name of the dataset.
        dicts: its dataset dicts.
        max_value: as INPUT.MAX_VALUE.

    Raises:
        UserError: no image can be used, or many are of an unknown kind or not of their annotated
            size.
    """
    looked_at = [
        entry for entry in dicts[:: len(dicts) // _LOOKED_AT + 1] if "encoded_image" not in entry
    ]
    whole = range(0, len(looked_at), len(looked_at) // _READ_WHOLE + 1)
    faults = _faults(name, looked_at, max_value, whole)
    of_a_kind = [fault for fault in faults if fault.reason not in _DAMAGE]
    if looked_at and (
        len(faults) == len(looked_at) or len(of_a_kind) > _SHARE_OF_A_KIND * len(looked_at)
    ):
        raise UserError(
            f"{name}: {len(looked_at)} of {len(dicts)} training images were checked, and "
            f"{len(faults)} cannot be used.\n"
            f"{_some(of_a_kind or faults)}"
        )


def _faults(
    name: str, dicts: Sequence[dict[str, Any]], max_value: float, whole: Container[int]
) -> list[BrokenExample]:
    """Return the faults of images; images at indices in ``whole`` are read whole."""
    checks = [(entry, max_value, place in whole) for place, entry in enumerate(dicts)]
    quiet = None if comm.is_main_process() else True
    with tqdm(
        desc=f"images of {visible(name, '')}",
        total=len(dicts),
        leave=False,
        disable=quiet,
        delay=2,
        unit="image",
    ) as bar:
        found = map_in_threads(lambda check: _fault(*check), checks, _THREADS, on_done=bar.update)
    return [fault for fault in found if fault]


def _fault(entry: dict[str, Any], max_value: float, whole: bool) -> BrokenExample | None:
    """Return an image's fault; a fault of its header counts only if reading it whole fails too."""
    try:
        if not whole and _has_good_header(entry, max_value):
            return None
        read_image(dict(entry), "RGB", max_value)
    except BrokenExample as error:
        return error
    return None


def _has_good_header(entry: dict[str, Any], max_value: float) -> bool:
    try:
        file: Any = entry.get("file_name")
        check_size(dict(entry), file, inspect_image(file, max_value))
    except BrokenExample:
        return False
    return True


def _some(faults: Iterable[BrokenExample]) -> str:
    """Return the first fault of each kind, and the number of others of that kind."""
    by_reason: dict[str, list[BrokenExample]] = {}
    for fault in faults:
        by_reason.setdefault(fault.reason, []).append(fault)
    lines = []
    for of_reason in list(by_reason.values())[:_SHOWN]:
        first, _, advice = str(of_reason[0]).partition("\n")
        lines += [
            first + (f" (and {len(of_reason) - 1} more)" if len(of_reason) > 1 else ""),
            advice,
        ]
    return "\n".join(lines)
