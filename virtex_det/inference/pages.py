"""Rendering of pages with pictures, with the code revision and the hardware."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from virtex_det.benchmark.records import code_revision, describe_hardware
from virtex_det.pages.html import render_html
from virtex_det.utils import write_atomically


def write_page(path: Path, template: str, facts: dict[str, str], **values: Any) -> Path:
    """Render a template of this folder with code and hardware as facts; write it atomically.

    Args:
        path: path of the page.
        template: file name.
        facts: rows of the "what was run" list, by name.
        values: other values of the template.
    """
    hardware = describe_hardware()
    processors = f"{hardware['cpu']}, {hardware['cores']} cores" + (
        f", {hardware['gpu']}" if "gpu" in hardware else ""
    )
    facts = facts | {"Code": code_revision(), "Hardware": processors}
    write_atomically(path, render_html(f"inference/{template}", facts=facts, **values))
    return path


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """Return a JPEG file of (height, width, 3) uint8 RGB."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
