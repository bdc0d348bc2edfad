from pathlib import Path

from virtex_det.benchmark.published import published
from virtex_det.escaping import in_markdown
from virtex_det.protocols.catalog import protocols
from virtex_det.protocols.matching import FREE
from virtex_det.protocols.page import PAGE, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_in_the_repository_is_what_the_protocols_give():
    assert render() == (ROOT / PAGE).read_text(), "stale; run: python tools/benchmark.py protocols"


def test_every_protocol_key_and_published_number_is_on_the_page():
    text = render()
    assert all(f"\n## {name}\n" in text for name in protocols())
    assert all(f"`{key}`" in text for key in FREE)
    for result in published():
        section = text.partition(f"\n## {result.protocol}\n")[2].partition("\n## ")[0]
        rows = [
            line
            for line in section.splitlines()
            if line.startswith(f"| {in_markdown(result.start)} | ")
        ]
        row = next(line for line in rows if f"| {in_markdown(result.place)} |" in line)
        assert f"| {in_markdown(result.paper)} |" in row
        assert all(
            f" {value:.1f}" in row for table in result.metrics.values() for value in table.values()
        )
