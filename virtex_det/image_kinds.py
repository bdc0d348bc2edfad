"""Identifies files that are not readable images by their first bytes, and says what to do."""

# Kinds of files that are often found among images.
_FOREIGN = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a Git LFS pointer, whose file git lfs pull fetches",
    b"<svg": "SVG",
    b"<": "a web page or other XML",
    b"{": "JSON",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed by gzip",
    b"SIMPLE  =": "FITS",
    b"\x89HDF": "HDF5",
    b"v/1\x01": "OpenEXR",
    b"P7\n": "PAM",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
}
# Files that begin with zeros or a length: (offset, bytes, kind).
_FOREIGN_AT = (
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (4, b"ftyphei", "HEIC, as phones write it"),
    (4, b"ftyphev", "HEIC, as phones write it"),
    (4, b"ftypmif1", "HEIF, as phones write it"),
    (4, b"ftypmsf1", "HEIF, as phones write it"),
    (4, b"ftypmp4", "a video"),
    (4, b"ftypisom", "a video"),
    (4, b"ftypqt", "a video"),
    (128, b"DICM", "DICOM"),
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The format that a damaged file claims to be.
_CLAIMS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"P1": "PPM/PGM",
    b"P2": "PPM/PGM",
    b"P3": "PPM/PGM",
    b"P4": "PPM/PGM",
    b"P5": "PPM/PGM",
    b"P6": "PPM/PGM",
    b"PF": "a colour float map of PPM's kind",
}
# Second bytes of the markers that begin a JPEG's frame; lossless ones (JPEG-LS too) are not
# decoded.
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF, 0xF7)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC5, 0xC6, 0xC9, 0xCA, 0xCD, 0xCE, *_LOSSLESS)


def not_read(head: bytes, formats: str) -> str:
    """Return what a file is that Pillow cannot identify, and what to do.

    Args:
        head: its first few thousand bytes.
        formats: the readable formats, in words.
    """
    if not head:
        return "The file is empty: download it again, or leave it out."
    if head.startswith(_TIFF):
        return (
            "It is a damaged TIFF, or one that is not supported: supported are 1, 3 or 4 "
            "channels of integers up to 16 bits, 32-bit integers or 32-bit floats.\n"
            "Save it as a grey or RGB image of 8 or 16 bits, or download it again."
        )
    what = _variety(head) or "Its first bytes are not those of an image: it is damaged or no image."
    return f"{what} Supported formats: {formats}.\nConvert it, download it again, or leave it out."


def _variety(head: bytes) -> str:
    if variety := variety_of_jpeg(head):
        return f"It is {variety}, which is not supported."
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    kind = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), "")
    kind = next((kind for place, magic, kind in _FOREIGN_AT if head.startswith(magic, place)), kind)
    if kind:
        return f"It is {kind}."
    claim = next((claim for magic, claim in _CLAIMS.items() if head.startswith(magic)), "")
    return (
        f"It begins as {claim}, but is damaged, has no pixels, or is of an unsupported variety."
        if claim
        else ""
    )


def variety_of_jpeg(head: bytes) -> str:
    """Return the variety of a JPEG that Pillow does not decode, such as "a lossless JPEG"; else "".

    Args:
        head: the file's first bytes.
    """
    place = 2
    while head.startswith(b"\xff\xd8\xff") and place + 4 < len(head) and head[place] == 0xFF:
        marker, length, bits = (
            head[place + 1],
            int.from_bytes(head[place + 2 : place + 4], "big"),
            head[place + 4],
        )
        if marker in _LOSSLESS:
            return "a lossless JPEG"
        if marker in _FRAMES:
            return f"a JPEG of {bits} bits" if bits != 8 else ""
        place += 2 + length
    return ""
