"""Files that would cost all time or memory, that contradict themselves, or that are not files."""

import io
import json
import os
import pickle
import socket
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.in_a_child import message_of
from virtex_det.checkpoint.reading import read_file
from virtex_det.errors import UserError

PROTO = b"\x80\x02"
GLOBAL = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(word: str) -> bytes:
    """The steps of a pickle that push a text."""
    encoded = word.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    """The steps of a pickle that push a whole number."""
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 1) -> bytes:
    return (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
        + b"tQ"
    )


def tensor(offset: int, size: tuple, stride: tuple, *, stored: bytes = storage()) -> bytes:
    """The steps of a pickle that rebuild a tensor."""
    return GLOBAL + b"(" + stored + number(offset) + numbers(*size) + numbers(*stride) + b"\x89NtR"


def storage_of(
    kind: bytes = b"ctorch\nFloatStorage\n", key: bytes = text("0"), more: bytes = b""
) -> bytes:
    return b"(" + text("storage") + kind + key + text("cpu") + number(1) + more + b"tQ"


def model(content: bytes) -> bytes:
    """A pickle of {"model": {"a": content}}."""
    return PROTO + b"}" + text("model") + b"}" + text("a") + content + b"ss."


def archive(
    pickled: bytes, storages: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip archive as torch.save writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", b"little")
        for key, content in (storages or {"0": bytes(4)}).items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", b"3\n")
    return stream.getvalue()


def legacy(
    pickled: bytes,
    storages: list[tuple[int, bytes]] = ((1, bytes(4)),),
    keys: bytes = b"]" + text("0") + b"a",
) -> bytes:
    """A file as torch.save wrote it before PyTorch 1.6."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    head = magic + PROTO + b"M\xe9\x03." + PROTO + b"}" + text("little_endian") + b"\x88s."
    return (
        head
        + pickled
        + PROTO
        + keys
        + b"."
        + b"".join(struct.pack("<q", n) + content for n, content in storages)
    )


def nested(levels: int, pair: bytes, begin: bytes = b"]") -> bytes:
    """Lists or tuples of two times the same, on as many levels."""
    return begin + b"".join(b"\x94" + pair for _ in range(levels))


SHARED_LISTS = b"]" + b"".join(
    b"q" + bytes([n]) + b"0](h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(40)
)
SHARED_TUPLES = b"N" + b"2\x86" * 40
SHARED_DICTS = b"}" + b"".join(
    b"q"
    + bytes([n])
    + b"0}("
    + text("a")
    + b"h"
    + bytes([n])
    + text("b")
    + b"h"
    + bytes([n])
    + b"u"
    for n in range(40)
)
MODULE = b"ctorch.nn.modules.container\nSequential\n)\x81"
SHARED_MODULES = MODULE + b"".join(
    b"q"
    + bytes([n])
    + b"0"
    + MODULE
    + b"}"
    + text("_modules")
    + b"}("
    + text("a")
    + b"h"
    + bytes([n])
    + text("b")
    + b"h"
    + bytes([n])
    + b"usb"
    for n in range(40)
)


def array(
    shape: tuple, code: str = "f4", order: str = "<", data: bytes = b"C\x04\0\0\0\0"
) -> bytes:
    """The steps of a pickle that rebuild an array."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = (
        b"cnumpy\ndtype\n("
        + text(code)
        + b"K\x00K\x01tR(K\x03"
        + text(order)
        + b"NNN"
        + number(-1) * 2
        + b"K\x00tb"
    )
    return made + b"(K\x01" + numbers(*shape) + dtype + b"\x89" + data + b"tb"


MILLION = b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"q\x00"
COPIES = [array((1 << 18,), order=">", data=MILLION if n == 0 else b"h\x00") for n in range(300)]
BYTES_IN_TEXT = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
PICKLES = {
    "many arrays of one text": PROTO
    + b"]("
    + array((1 << 20,), "u1", data=BYTES_IN_TEXT)
    + array((1 << 20,), "u1", data=b"h\x00") * 3000
    + b"e.",
    "a memo of 2^31 places": PROTO + b"Nr\xff\xff\xff\x7f.",
    "a memo of 10^12 places": PROTO + b"Np999999999999\n.",
    "a memo below nothing": PROTO + b"Np-1\n.",
    "a memo that was not filled": PROTO + b"h\x05.",
    "4 GB of bytes": b"\x80\x03B\xff\xff\xff\xffab.",
    "an exabyte of bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"ab.",
    "bytes of 2^64": b"\x80\x04\x8e" + b"\xff" * 8 + b"ab.",
    "4 GB of text": PROTO + b"X\xff\xff\xff\xffab.",
    "an exabyte of text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"ab.",
    "an exabyte in a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"ab.",
    "2 GB of Python 2's text": PROTO + b"T\xff\xff\xff\x7fab.",
    "less than no text": PROTO + b"T\xff\xff\xff\xffab.",
    "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "a number of 2 GB": PROTO + b"\x8b\xff\xff\xff\x7fab.",
    "a number of less than no bytes": PROTO + b"\x8b\xff\xff\xff\xffab.",
    "a number of 10,000 bits": PROTO + b"\x8b\x00\x05\0\0" + b"\x7f" * 1280 + b".",
    "a number of 5,000 digits": PROTO + b"I" + b"9" * 5000 + b"\n.",
    "lists that share lists": PROTO + SHARED_LISTS + b".",
    "dicts that share dicts": PROTO + SHARED_DICTS + b".",
    "tuples that share tuples": PROTO + SHARED_TUPLES + b".",
    "tuples that share tuples as a key": PROTO + b"}" + SHARED_TUPLES + b"Ns.",
    "modules that share modules": PROTO + SHARED_MODULES + b".",
    "tuples a million deep": PROTO + b"N" + b"\x85" * 1_000_000 + b".",
    "tuples a million deep as a key": PROTO + b"}N" + b"\x85" * 1_000_000 + b"Ns.",
    "lists in lists": PROTO + b"]" * 50_000 + b"a" * 49_999 + b".",
    "modules in modules": PROTO + (MODULE + b"}" + text("a")) * 3000 + b"N" + b"sb" * 3000 + b".",
    "a list in itself": PROTO + b"]q\x00h\x00a.",
    "a dict in itself": PROTO + b"}q\x00" + text("a") + b"h\x00s.",
    "a list in a tuple in itself": PROTO + b"]q\x00h\x00\x85a.",
    "three million steps": PROTO + b"N0" * 1_500_000 + b"N.",
    "no end": PROTO + b"N" * 1000,
    "nothing on its stack": PROTO + b".",
    "a mark that is not there": PROTO + b"t.",
    "an unknown step": PROTO + b"\xffN.",
    "a step of the registry": PROTO + b"\x82\x01.",
    "a buffer from outside": b"\x80\x05\x97.",
    "20,000 keys of objects": PROTO + b"}" + b"(" + b"K\x01\x85N" * 20_000 + b"u.",
    "a set of 20,000 objects": b"\x80\x04\x8f(" + b"K\x01\x85" * 20_000 + b"\x90.",
    "a text encoded a thousand times": PROTO
    + text("x" * 10_000_00)
    + b"q\x000"
    + b"]("
    + (b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R") * 5000
    + b"e.",
    "an ordered dict of odd keys": PROTO
    + b"ccollections\nOrderedDict\n](]("
    + SHARED_TUPLES
    + b"Nee\x85R.",
    "a state for a function": PROTO + b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("x") + b"Nsb.",
    "a state for a kind of storage": PROTO + b"ctorch\nFloatStorage\n}" + text("dtype") + b"Nsb.",
    "an array of an exabyte": PROTO + array((1 << 60,)) + b".",
    "an array of less than nothing": PROTO + array((-2, -2)) + b".",
    "an array of an unknown kind": PROTO + array((1,), "f3") + b".",
    "an array of huge numbers": PROTO + array((1,), "f999999999") + b".",
    "copies of an array": PROTO + b"](" + b"".join(COPIES) + b"e.",
    "a tensor without numbers": PROTO
    + GLOBAL
    + b"(N"
    + number(0)
    + numbers(1)
    + numbers(1)
    + b"\x89NtR.",
    "a sparse tensor": PROTO + b"ctorch._utils\n_rebuild_sparse_tensor\n)R.",
}
TENSORS = {
    "expanded to 10^12": tensor(0, (10**12,), (0,)),
    "expanded in many dimensions": tensor(0, (10**5,) * 4, (0,) * 4),
    "larger than its storage": tensor(0, (10**10,), (1,)),
    "of one number too many": tensor(0, (2,), (1,)),
    "beyond its storage": tensor(1, (1,), (1,)),
    "far beyond its storage": tensor(1 << 62, (1,), (1,)),
    "before its storage": tensor(-1, (1,), (1,)),
    "with negative strides": tensor(0, (1,), (-1,)),
    "with negative sizes": tensor(0, (-1,), (1,)),
    "with sizes of 2^70": tensor(0, (2**70, 0), (1, 1)),
    "with more strides than sizes": tensor(0, (1,), (1, 1)),
    "with sizes that are true": GLOBAL + b"(" + storage() + number(0) + b"\x88\x85\x88\x85\x89NtR",
    "with a list for sizes of text": GLOBAL
    + b"("
    + storage()
    + number(0)
    + b"]"
    + text("1")
    + b"a"
    + numbers(1)
    + b"\x89NtR",
    "of a storage that is larger than its bytes": tensor(
        0, (1,), (1,), stored=storage(count=1 << 40)
    ),
    "of a storage below nothing": tensor(0, (1,), (1,), stored=storage(count=-1)),
    "of an unknown kind of storage": tensor(0, (1,), (1,), stored=storage("FooStorage")),
    "of something else as a kind of storage": tensor(0, (1,), (1,), stored=storage("Size")),
    "of a missing storage": tensor(0, (1,), (1,), stored=storage(key="7")),
    "of a storage outside": tensor(0, (1,), (1,), stored=storage(key="../data.pkl", count=1)),
    "of a storage that is a word": tensor(0, (1,), (1,), stored=b"(" + text("module") + b"NNNNtQ"),
    "conjugated": GLOBAL
    + b"("
    + storage()
    + number(0)
    + numbers(1)
    + numbers(1)
    + b"\x89N}"
    + text("conj")
    + b"\x88stR",
    "of a storage named by shared lists": tensor(
        0, (1,), (1,), stored=storage_of(key=SHARED_LISTS)
    ),
    "of a kind of storage that is shared lists": tensor(
        0, (1,), (1,), stored=storage_of(kind=SHARED_LISTS)
    ),
    "of a size that is shared lists": GLOBAL
    + b"("
    + storage()
    + number(0)
    + b"("
    + SHARED_LISTS
    + b"t"
    + numbers(1)
    + b"\x89NtR",
    "of a size of 49,000 huge numbers": GLOBAL
    + b"("
    + storage()
    + number(0)
    + b"("
    + b"\x8b\xff\x01\0\0"
    + b"\x7f" * 511
    + b"q\x05"
    + b"h\x05" * 49_000
    + b"tq\x06h\x06\x89NtR",
    "of 20,000 storages named by one long tuple": b"("
    + b"K\x01" * 99_000
    + b"tq\x070]("
    + (b"(" + text("storage") + b"ctorch\nFloatStorage\nh\x07" + text("cpu") + b"K\x01tQ") * 20_000
    + b"e",
    "of 10^6 dimensions": tensor(0, (1,) * 200_000, (1,) * 200_000),
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_beyond_the_limits_is_refused(name, tmp_path):
    (tmp_path / "w.pkl").write_bytes(PICKLES[name])
    said = message_of(lambda: print(read_file(tmp_path / "w.pkl")))
    assert said.startswith(f"{tmp_path / 'w.pkl'} "), said
    assert len(said) < 500


@pytest.mark.parametrize(("written", "mmap"), [(archive, True), (archive, False), (legacy, True)])
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_not_in_the_file_is_refused(name, written, mmap, tmp_path):
    (tmp_path / "w.pth").write_bytes(written(model(TENSORS[name])))
    said = message_of(lambda: read_file(tmp_path / "w.pth", mmap=mmap))
    assert said.startswith(f"{tmp_path / 'w.pth'} "), said
    assert len(said) < 500


@pytest.mark.parametrize("written", [archive, legacy])
def test_harmless_files_of_the_same_form_are_read(written, tmp_path):
    (tmp_path / "w.pth").write_bytes(written(model(tensor(0, (1,), (1,)))))
    assert read_file(tmp_path / "w.pth")["model"]["a"].tolist() == [0]
    (tmp_path / "w.pkl").write_bytes(PROTO + array((1,)) + b".")
    assert read_file(tmp_path / "w.pkl").tolist() == [0]


@pytest.mark.parametrize("written", [archive, legacy])
@pytest.mark.parametrize(
    "name", ["lists that share lists", "tuples a million deep", "a memo of 2^31 places"]
)
def test_such_pickles_are_refused_within_torch_files_too(name, written, tmp_path):
    (tmp_path / "w.pth").write_bytes(written(PICKLES[name]))
    said = message_of(lambda: read_file(tmp_path / "w.pth"))
    assert said.startswith(f"{tmp_path / 'w.pth'} "), said


BOMB = zipfile.ZIP_DEFLATED
PICKLED = model(tensor(0, (1,), (1,)))
GOOD = archive(PICKLED)


def twice(name: str) -> bytes:
    stream = io.BytesIO(GOOD)
    with zipfile.ZipFile(stream, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there
        file.writestr(name, b"abcd")
    return stream.getvalue()


def directory_of(content: bytes) -> int:
    return content.rindex(b"PK\5\6")


def with_entry(content: bytes, name: str, place: int, form: str, value: int) -> bytes:
    """The archive with a field of a member's entry in the list of members changed."""
    entry = content.index(name.encode(), content.index(b"PK\1\2")) - 46
    changed = bytearray(content)
    struct.pack_into(form, changed, entry + place, value)
    return bytes(changed)


def with_end(content: bytes, place: int, form: str, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(form, changed, directory_of(content) + place, value)
    return bytes(changed)


def with_entries_behind_another_end(content: bytes, count: int) -> bytes:
    """The archive with a longer list of members, whose length only the zip64 end record has."""
    begin, end = content.index(b"PK\1\2"), directory_of(content)
    entries = content[begin : content.index(b"PK\6\6") if b"PK\6\6" in content else end]
    more = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0
    )
    all_of_them = entries + b"".join(more + b"%08d" % index for index in range(count))
    end_64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count + 4, count + 4, len(all_of_them), begin
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, begin + len(all_of_them), 1)
    usual = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, len(entries), begin, 0)
    return content[:begin] + all_of_them + end_64 + locator + usual


ARCHIVES = {
    "a compressed pickle of 50 MB of zeros": archive(bytes(50_000_000), compression=BOMB),
    "compressed weights": archive(PICKLED, compression=BOMB),
    "two pickles of one name": twice("archive/data.pkl"),
    "two storages of one name": twice("archive/data/0"),
    "two pickles": twice("other/data.pkl"),
    "a storage in the place of another member": with_entry(GOOD, "archive/data/0", 42, "<I", 0),
    "a storage beyond the file": with_entry(GOOD, "archive/data/0", 42, "<I", 1 << 30),
    "a storage of 4 GB": with_entry(
        with_entry(GOOD, "archive/data/0", 24, "<I", 0xFFFFFFF0),
        "archive/data/0",
        20,
        "<I",
        0xFFFFFFF0,
    ),
    "a storage of two sizes": with_entry(GOOD, "archive/data/0", 24, "<I", 3),
    "a pickle of 4 GB": with_entry(
        with_entry(GOOD, "archive/data.pkl", 24, "<I", 0xFFFFFFF0),
        "archive/data.pkl",
        20,
        "<I",
        0xFFFFFFF0,
    ),
    "a wrong checksum": with_entry(GOOD, "archive/data/0", 16, "<I", 1),
    "a wrong checksum of the pickle": with_entry(GOOD, "archive/data.pkl", 16, "<I", 1),
    "a flipped bit": GOOD.replace(bytes(4) + b"PK", b"\0\0\x80\x3fPK"),
    "an encrypted storage": with_entry(GOOD, "archive/data/0", 8, "<H", 1),
    "an unknown compression": with_entry(GOOD, "archive/data/0", 10, "<H", 77),
    "a list of members of 4 GB": with_end(GOOD, 12, "<I", 0xFFFFFFF0),
    "a list of members of an unknown size": with_end(GOOD, 12, "<I", 0xFFFFFFFF),
    "a list of members elsewhere": with_end(GOOD, 16, "<I", 0xFFFFFFF0),
    "no end": GOOD[: directory_of(GOOD)],
    "a beginning alone": b"PK\3\4",
    "the end alone in front": b"PK\3\4" + GOOD[directory_of(GOOD) :],
    "another byte order": archive(PICKLED).replace(b"little", b"big   "),
    "a long list of members": archive(PICKLED, {f"{'x' * 60_000}{n}": b"" for n in range(150)}),
    "arrays in an archive": b"",
}
with io.BytesIO() as stream:
    np.savez(stream, a=np.zeros(3))
    ARCHIVES["arrays in an archive"] = stream.getvalue()


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_contradicts_itself_is_refused(name, mmap, tmp_path):
    (tmp_path / "w.pth").write_bytes(ARCHIVES[name])
    said = message_of(lambda: read_file(tmp_path / "w.pth", mmap=mmap), spare_bytes=1 << 29)
    assert said.startswith(f"{tmp_path / 'w.pth'} "), said


def test_a_long_list_of_members_is_not_read(tmp_path):
    (tmp_path / "w.pth").write_bytes(with_entries_behind_another_end(GOOD, 400_000))
    assert "list of members takes" in message_of(lambda: read_file(tmp_path / "w.pth"))


def test_torchscript_that_contradicts_itself_is_refused(tmp_path):
    for name in ("compressed weights", "two storages of one name", "a wrong checksum"):
        stream = io.BytesIO(ARCHIVES[name])
        with zipfile.ZipFile(stream, "a") as file:
            file.writestr("archive/constants.pkl", b"")
        (tmp_path / "w.pt").write_bytes(stream.getvalue())
        assert message_of(lambda: read_file(tmp_path / "w.pt")).startswith(
            f"{tmp_path / 'w.pt'} "
        ), name


OLD = {
    "a view that is shared lists": legacy(
        model(tensor(0, (1,), (1,), stored=storage_of(more=SHARED_LISTS)))
    ),
    "storages named by one long tuple": legacy(
        PICKLED, keys=b"](" + b"(" + b"K\x01" * 99_000 + b"tq\x07" + b"h\x07" * 200_000 + b"e"
    ),
    "more storages than there are": legacy(PICKLED, keys=b"](" + text("0") + text("1") + b"e"),
    "no storages": legacy(PICKLED, keys=b"]"),
    "storages that are a number": legacy(PICKLED, keys=b"K\x07"),
    "a storage of 2^62 numbers": legacy(PICKLED, [(1 << 62, bytes(4))]),
    "a storage of less than nothing": legacy(PICKLED, [(-1, bytes(4))]),
    "a storage cut short": legacy(PICKLED, [(1, bytes(3))]),
    "a big machine's": legacy(PICKLED).replace(
        text("little_endian") + b"\x88", text("little_endian") + b"\x89"
    ),
    "another version": legacy(PICKLED).replace(b"M\xe9\x03.", b"M\xea\x03."),
    "the magic alone": legacy(PICKLED)[:25],
}


@pytest.mark.parametrize("name", OLD)
def test_a_file_of_the_older_format_that_contradicts_itself_is_refused(name, tmp_path):
    (tmp_path / "w.pth").write_bytes(OLD[name])
    said = message_of(lambda: read_file(tmp_path / "w.pth"))
    assert said.startswith(f"{tmp_path / 'w.pth'} "), said


def test_an_older_file_that_is_an_archive_of_links_as_well_is_not_unpacked(tmp_path):
    """PyTorch's own reader takes such a file for a tar archive, and follows what it unpacked."""
    import tarfile

    member = tarfile.TarInfo(legacy(PICKLED)[:20].decode("latin1"))
    pipe = tarfile.TarInfo("storages")
    pipe.type = tarfile.FIFOTYPE
    with tarfile.open(
        tmp_path / "w.pth", "w", format=tarfile.GNU_FORMAT, encoding="latin1"
    ) as file:
        file.addfile(member)
        file.addfile(pipe)
    said = message_of(lambda: read_file(tmp_path / "w.pth"), seconds=5)
    assert said.startswith(f"{tmp_path / 'w.pth'} is cut short or damaged"), said


def safetensors(header: object, data: bytes = bytes(4), length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(begin: int = 0, end: int = 4, shape: tuple = (1,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SAFETENSORS = {
    "a header of 2^60": safetensors({"a": entry()}, length=1 << 60),
    "a header of 50 MB": safetensors({"a": entry()}, length=50_000_000),
    "a header longer than the file": safetensors({"a": entry()}, length=1000),
    "offsets beyond the file": safetensors({"a": entry(0, 8, (2,))}),
    "offsets that overlap": safetensors({"a": entry(), "b": entry()}),
    "offsets backwards": safetensors({"a": entry(4, 0)}),
    "a hole": safetensors({"a": entry(4, 8)}, bytes(8)),
    "bytes left over": safetensors({"a": entry()}, bytes(8)),
    "an unknown dtype": safetensors({"a": entry(dtype="F33")}),
    "a shape of another size": safetensors({"a": entry(shape=(2,))}),
    "a shape below nothing": safetensors({"a": entry(shape=(-1,))}),
    "a shape of 2^64": safetensors({"a": entry(shape=(1 << 63, 2))}),
    "a shape of 2^63 times nothing": safetensors({"a": entry(0, 0, (1 << 63, 1 << 63, 0))}, b""),
    "a name twice": safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
    "a field twice": safetensors(
        b'{"a": {"dtype": "F32", "dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}'
    ),
    "a header nested deep": safetensors(b'{"a":' + b"[" * 100_000),
    "a header of a list": safetensors(b"{]"),
    "a header cut": safetensors(b'{"a": {"dtype": "F3'),
    "a header that is not UTF-8": safetensors(b'{"\xff": 1}'),
    "a header of numbers": safetensors({"a": 3}),
    "a number of 5,000 digits": safetensors(b'{"a": %s}' % (b"9" * 5000)),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_contradict_themselves_are_refused(name, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[name])
    said = message_of(lambda: read_file(tmp_path / "w.safetensors"), spare_bytes=1 << 29)
    assert said.startswith(f"{tmp_path / 'w.safetensors'} "), said
    assert len(said) < 500


def test_arrays_of_objects_are_not_weights(tmp_path):
    np.save(tmp_path / "w.npy", np.array([{}, Path("x")]), allow_pickle=True)
    with pytest.raises(UserError, match=r"w.npy is not a weights file"):
        read_file(tmp_path / "w.npy")


@pytest.mark.parametrize(
    "kind",
    ["pipe", "socket", "/dev/zero", "/dev/null", "folder", "link to a pipe", "circle of links"],
)
def test_only_regular_files_are_opened(kind, tmp_path):
    path = Path(kind) if kind.startswith("/") else tmp_path / "w.pth"
    if "pipe" in kind:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle of links":
        path.symlink_to("w.pth")
    said = message_of(lambda: read_file(path), seconds=5)
    assert str(path) in said and not said.startswith(("KILLED", "TRACEBACK", "ACCEPTED")), said


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(GOOD)
    found = torch.frombuffer

    def grown(*args: object, **options: object) -> torch.Tensor:
        with path.open("ab") as file:
            file.write(b"more")
        return found(*args, **options)

    monkeypatch.setattr(torch, "frombuffer", grown)
    with pytest.raises(UserError, match="changed while it was read"):
        read_file(path)


def test_a_pickle_of_python_2_with_its_arrays_as_text_is_read(tmp_path):
    values = np.arange(3, dtype=np.float32)
    (tmp_path / "w.pkl").write_bytes(PROTO + array((3,), data=b"U\x0c" + values.tobytes()) + b".")
    assert read_file(tmp_path / "w.pkl").tolist() == [0, 1, 2]


def test_shared_values_within_the_limits_stay_shared(tmp_path):
    tied = torch.ones(3)
    torch.save({"a": tied, "b": tied, "c": tied[1:], "list": [[1], (2, 3)]}, tmp_path / "w.pth")
    content = read_file(tmp_path / "w.pth")
    assert content["a"] is content["b"]
    assert content["c"].data_ptr() == content["a"].data_ptr() + 4
    assert content["list"] == [[1], (2, 3)]


@pytest.mark.parametrize(
    "dtype", [torch.uint16, torch.float8_e4m3fn, torch.complex64, torch.bool, torch.bfloat16]
)
def test_other_dtypes_are_read(dtype, tmp_path):
    torch.save({"a": torch.ones(5).to(dtype)[1:3]}, tmp_path / "w.pth")
    found = read_file(tmp_path / "w.pth")["a"]
    assert found.dtype == dtype and found.shape == (2,)
    assert found.to(torch.complex64).tolist() == [1, 1]


def test_a_tensor_with_attributes_of_its_own_is_read(tmp_path):
    tensor_with_more = torch.nn.Parameter(torch.ones(2))
    tensor_with_more.is_frozen = True
    torch.save({"a": tensor_with_more}, tmp_path / "w.pth")
    assert read_file(tmp_path / "w.pth")["a"].tolist() == [1, 1]


def test_a_module_with_a_reference_to_its_parent_gives_its_tensors_once(tmp_path):
    inner, outer = torch.nn.Linear(1, 1), torch.nn.Sequential()
    outer.add_module("inner", inner)
    inner.__dict__["owner"] = outer
    torch.save(outer, tmp_path / "w.pth")
    assert set(read_file(tmp_path / "w.pth")) == {"inner.weight", "inner.bias"}
