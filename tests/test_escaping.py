import csv
import io
import logging
import re

import pytest

from virtex_det.escaping import (
    VisibleText,
    in_code,
    in_csv,
    in_inline_code,
    in_latex,
    in_markdown,
    in_plot,
    log_visibly,
    on_one_screen,
    say,
    visible,
)

NAMES = {
    "a script": "<script>alert(1)</script>",
    "an image that runs": "<img src=x onerror=alert(1)>",
    "the end of a tag": '"><svg/onload=alert(1)>',
    "the end of a comment": "--><script>x</script>",
    "entities": "&lt;script&gt; &#60;b&#62;",
    "a link": "[here](javascript:alert(1))",
    "a link by reference": "[here][1] and [1]: javascript:x",
    "an image": "![x](http://evil/x.png)",
    "an automatic link": "<javascript:alert(1)>",
    "columns": "a | b || c",
    "code": "`rm -rf` ``x`` ```",
    "emphasis": "**bold** _it_ ~~gone~~ *x*",
    "lines": "a\n\n# Heading\n\n<b>x</b>\n| a |\r\n---",
    "a heading": "# Heading",
    "a list": "- item",
    "a number": "1. item",
    "a rule": "---",
    "backslashes": "\\| \\` \\<b>",
    "a formula of a spreadsheet": '=HYPERLINK("http://evil","x")',
    "formulas with signs": "+1+cmd|' /C calc'!A0",
    "a formula after a minus": "-2+3+cmd|' /C calc'!A0",
    "a formula after an at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "a formula after blanks": "  =1+1",
    "a formula after a tab": "\t=1+1",
    "a formula after a separator": "a;=1+1",
    "a full-width formula": "\uff1d1+1",
    "a command of LaTeX": "\\input{/etc/passwd}",
    "the end of a comment of LaTeX": "x\n\\immediate\\write18{touch x}",
    "all that is special in LaTeX": "& % $ # _ { } ~ ^ \\ | < >",
    "an option of LaTeX": "[2cm]",
    "a star of LaTeX": "*x",
    "a formula of Matplotlib": r"$\frac{1}{$",
    "half a formula": "costs $5 and $",
    "an escaped dollar": r"\$\frac{$",
    "hidden from legends": "_nolegend_",
    "half a surrogate": "x\udc80\ud83dy",
    "the other direction": "abc\u202egnp.exe\u2066x\u2069",
    "a terminal's escapes": "\x1b[31mred\x1b]0;title\x07\x1b[2J",
    "zeros": "a\0b",
    "separators of lines": "a\u2028b\u2029c\x85d\x0be",
    "tags that are not seen": "a\U000e0041\ufeff\u2060b",
    "a long name": "x" * 100_000,
    "a long word of backslashes": "\\" * 10_000,
    "nothing": "",
}
BLOCKS = ("p", "h1", "ul", "li", "table", "thead", "tbody", "tr", "th", "td")
each = pytest.mark.parametrize("name", NAMES)


def is_seen(text: str) -> bool:
    return not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u202a-\u202e\u2066-\u2069]", text
    )


@each
def test_nothing_acts_on_a_terminal_or_cannot_be_written(name):
    shown = visible(NAMES[name])
    assert is_seen(shown)
    shown.encode()
    assert len(visible(NAMES[name], "").splitlines()) <= 1


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "x\n" * 10_000, "x " * 10_000, "[" + "1, " * 9000 + "]", "\x1b" * 999]
)
def test_a_message_fits_on_one_screen(text):
    shown = on_one_screen(f"MODEL.X is {text}, and must be a number.")
    assert len(shown) < 8000 and len(shown.splitlines()) <= 60
    assert shown.startswith("MODEL.X is ") and is_seen(shown)


def test_a_message_of_common_length_is_not_changed():
    message = "Cannot read /data/a file.jpg\n" + "\n".join(
        f"  class {number}: nut" for number in range(30)
    )
    assert on_one_screen(message) == message


@each
def test_what_a_command_says_and_logs_does_not_act_on_the_terminal(name, capsys, monkeypatch):
    say(f"{NAMES[name]}: a caption")
    assert is_seen(capsys.readouterr().out)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_visibly()
    logging.getLogger("virtex_det").warning("no %s", NAMES[name])
    assert is_seen(capsys.readouterr().err)


@pytest.mark.parametrize("logger", ["virtex_det.data", "detectron2.data"])
def test_a_name_in_the_log_does_not_act_on_the_terminal(logger):
    record = logging.LogRecord(
        logger, logging.WARNING, "x.py", 1, "no %s\nnow", ("\x1b]0;title\x07\udc80\r",), None
    )
    assert VisibleText().filter(record)
    assert record.getMessage() == "no \\x1b]0;title\\x07\\udc80\\r\nnow"


def test_colours_of_detectron2s_log_stay():
    record = logging.LogRecord(
        "detectron2.x", logging.INFO, "x.py", 1, "\x1b[36m%s\x1b[0m", ("a\x07",), None
    )
    assert VisibleText().filter(record)
    assert record.getMessage() == "\x1b[36ma\\x07\x1b[0m"


@pytest.mark.parametrize(
    "name", ["R-50", "Ünïcödé", "日本語", "שלום", "می‌خواهم", "👩‍👩‍👧", "½ ± 1", "a b"]
)
def test_common_text_is_not_changed(name):
    assert visible(name) == in_markdown(name) == in_csv(name) == in_plot(name) == name


@each
def test_markdown_shows_a_name_as_it_is_and_nothing_else(name):
    markdown_it = pytest.importorskip("markdown_it")
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    text = in_markdown(NAMES[name])
    for begin, end in (
        ("# ", ""),
        ("- ", ""),
        ("", ""),
        ("| a | b |\n| --- | --- |\n| ", " | x |"),
    ):
        page = reader.render(f"{begin}{text}{end}")
        tags = set(re.findall(r"<(/?\w+)", page)) - {
            f"{end}{tag}" for tag in BLOCKS for end in ("", "/")
        }
        assert not tags, page[:300]
        assert page.count("<td>") == (2 if begin.startswith("|") else 0)
        assert page.count("<li>") == (begin == "- ") and page.count("<h1>") == (begin == "# ")


@each
def test_a_spreadsheet_sees_text(name):
    for delimiter in ",;\t":
        file = io.StringIO()
        csv.writer(file).writerow([in_csv(NAMES[name]), in_csv(-1.5), in_csv(None), in_csv(3)])
        for row in csv.reader(io.StringIO(file.getvalue()), delimiter=delimiter):
            cells = [cell for cell in row if cell not in ("-1.5", "3")]
            assert not [
                cell
                for cell in cells
                if cell.strip()[:1] in tuple("=+-@\uff1d\uff0b\uff0d\uff20") and cell.strip()[:1]
            ]
    assert "\n" not in in_csv(NAMES[name]) and (in_csv(-1.5), in_csv(None)) == (-1.5, None)


@each
def test_latex_sees_text(name):
    text = in_latex(NAMES[name])
    assert "\n" not in text and not text.startswith(("[", "*"))
    for harmless in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textbar{}",
        "$<$",
        "$>$",
        r"$\pm$",
    ):
        text = text.replace(harmless, "")
    text = re.sub(r"\\[&%$#_{}]", "", text).replace("{[}", "").replace("{*}", "")
    assert not re.search(r"[\\&%$#_{}~^]", text)


def test_matplotlib_draws_every_name_as_text_and_hides_none(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for text in NAMES.values():
        axes.plot([0, 1], [0, 1], label=in_plot(text) or " ")
        axes.set(title=in_plot(text), ylabel=in_plot(text))
        figure.draw_without_rendering()
    assert len(axes.legend().get_texts()) == len(NAMES)
    figure.savefig(tmp_path / "names.svg")


@each
def test_a_name_cannot_end_a_block_of_code(name):
    markdown_it = pytest.importorskip("markdown_it")
    page = markdown_it.MarkdownIt("commonmark", {"html": True}).render(
        in_code([NAMES[name], "second"])
    )
    assert set(re.findall(r"<(\w+)", page)) == {"pre", "code"} and page.rstrip().endswith(
        "second\n</code></pre>"
    )
    cell = in_inline_code(NAMES[name])
    assert cell.count("`") == 2 and "|" not in cell and "\n" not in cell
