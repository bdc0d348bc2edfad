import pytest

from virtex_det.data.datasets.voc import (
    check_for_detectron2s_evaluator,
    read_image_set,
    read_voc_image,
)
from virtex_det.errors import UserError

XML = (
    "<annotation><size><width>80</width><height>60</height></size>"
    "<object><name>cat</name><difficult>1</difficult>"
    "<bndbox><xmin>5</xmin><ymin>6.5</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>"
    "</object></annotation>"
)


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "000001.xml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_voc_image(path)

    return read


def test_an_object_is_read_as_the_file_has_it(read):
    image = read(XML)
    assert (image.height, image.width) == (60, 80)
    assert image.objects == (("cat", (5, 6.5, 20, 21), True),)
    assert not read(XML.replace("<difficult>1</difficult>", "")).objects[0].difficult
    assert read(
        b'<?xml version="1.0" encoding="latin-1"?>'
        + XML.replace("cat", "k\xe4fer").encode("latin-1")
    )


BROKEN = {
    "cut short": (XML[:-20], "is not XML"),
    "empty": ("", "is not XML"),
    "another form": ("<html></html>", "begins with <html>; expected <annotation>"),
    "an unknown encoding": (f'<?xml version="1.0" encoding="klingon"?>{XML}', "is not XML"),
    "no size": (XML.replace("<height>60</height>", ""), "no height in <size>"),
    "a size of 0": (XML.replace("<width>80", "<width>0"), "width '0'"),
    "a size of text": (XML.replace("<width>80", "<width>8_0"), "width '8_0'"),
    "full-width digits": (XML.replace("<width>80", "<width>８０"), "width '８０'"),
    "no name": (XML.replace("<name>cat</name>", ""), "object 1 has no <name>"),
    "two names": (
        XML.replace("<name>cat</name>", "<name>cat</name><name>dog</name>"),
        "object 1 has 2 <name>",
    ),
    "no box": (XML.replace("bndbox", "box"), "object 1 has no <bndbox>"),
    "no corner": (XML.replace("<xmax>20</xmax>", ""), r"object 1 \(cat\) has xmax ''"),
    "a corner of text": (XML.replace("<xmax>20", "<xmax>x"), r"object 1 \(cat\) has xmax 'x'"),
    "a corner with underscores": (XML.replace("<xmax>20", "<xmax>2_0"), "has xmax '2_0'"),
    "a corner of NaN": (XML.replace("<xmax>20", "<xmax>nan"), "has xmax 'nan'"),
    "an infinite corner": (XML.replace("<xmax>20", "<xmax>1e999"), "has xmax '1e999'"),
    "a box from right to left": (
        XML.replace("<xmax>20", "<xmax>2"),
        "reversed box xmin 5, ymin 6.5, xmax 2",
    ),
    "a box from bottom to top": (XML.replace("<ymax>21", "<ymax>2"), "reversed box"),
    "difficult of text": (XML.replace("<difficult>1", "<difficult>yes"), "difficult 'yes'"),
    "an object in a list": (
        XML.replace("<object>", "<list><object>").replace("</object>", "</object></list>"),
        "not read",
    ),
    "an object in capitals": (XML.replace("object>", "Object>"), "<Object> that is not read"),
    "entities": (f'<!DOCTYPE a [<!ENTITY b "b">]>{XML}', "defines XML entities"),
    "a file from elsewhere": (
        f'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>{XML}',
        "defines XML entities",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_mistake_names_the_file_and_the_object(case, read):
    content, message = BROKEN[case]
    with pytest.raises(UserError, match=rf"000001\.xml.*{message}"):
        read(content)


def test_entities_that_multiply_do_not_hang_in_another_encoding(read):
    bomb = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12))
    declared = f'<!DOCTYPE a [<!ENTITY a0 "{"b" * 100}">{bomb}]>'
    text = f'<?xml version="1.0" encoding="utf-16"?>{declared}<annotation>&a11;</annotation>'
    with pytest.raises(UserError, match="is not XML"):
        read(text.encode("utf-16"))


def test_xml_nested_without_end_is_refused(read):
    with pytest.raises(UserError, match="no height"):
        read("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")


def write_set(folder, content):
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/test.txt").write_bytes(content)
    return folder


def test_an_image_set_may_have_a_byte_order_mark_and_blank_lines(tmp_path):
    folder = write_set(tmp_path, "\ufeff000001\r\n\n 000002 \n".encode())
    assert read_image_set(folder, "test") == ["000001", "000002"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"000001  1\n000002 -1\n", "line 1 is '000001  1'"),
        (b"000001\n../000002\n", "line 2 is"),
        (b"a#1\na#2\n", "line 1 is 'a#1'"),
        (b"000001\n000002\n000001\n", "names an image twice: image id 000001"),
        (b"\n \n", "is empty"),
        ("000001\n".encode("utf-16"), "UTF-16"),
    ],
    ids=str,
)
def test_lines_that_do_not_name_one_image_are_refused(content, message, tmp_path):
    with pytest.raises(UserError, match=rf"test\.txt.*{message}"):
        read_image_set(write_set(tmp_path, content), "test")


WHOLE = XML.replace("6.5", "6").replace(
    "<difficult>", "<pose>Left</pose><truncated>0</truncated><difficult>"
)


@pytest.mark.parametrize(
    ("content", "lacking"),
    [
        (WHOLE.replace("<pose>Left</pose>", ""), "pose"),
        (WHOLE.replace("<truncated>0</truncated>", ""), "truncated"),
        (WHOLE.replace("<difficult>1</difficult>", ""), "difficult"),
        (WHOLE.replace("<ymin>6<", "<ymin>6.5<"), "ymin"),
        (WHOLE, ""),
    ],
)
def test_what_detectron2s_own_evaluator_needs_is_missed_before_it_runs(content, lacking, tmp_path):
    (tmp_path / "1.xml").write_text(content)
    if not lacking:
        return check_for_detectron2s_evaluator(tmp_path / "1.xml")
    with pytest.raises(
        UserError, match=rf"1\.xml: object 1 has no {lacking} .*\n.*METRICS_LIBRARY hotcoco"
    ):
        check_for_detectron2s_evaluator(tmp_path / "1.xml")
