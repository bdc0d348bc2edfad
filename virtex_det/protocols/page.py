"""docs/protocols.md, generated from the protocols, their configs and published results."""

from pathlib import Path

from virtex_det.benchmark.published import PublishedResult, published_for
from virtex_det.config import load_config
from virtex_det.config.files import packaged_config
from virtex_det.protocols.card import protocol_card
from virtex_det.protocols.catalog import protocols
from virtex_det.protocols.matching import FREE, SHOWN
from virtex_det.utils import fill_template

PAGE = Path("docs/protocols.md")  # in a clone


def render() -> str:
    """Return the page: how ids are made, what is reproducible, and all protocols."""
    cards, published = {}, {}
    for name, protocol in protocols().items():
        cards[name] = protocol_card(load_config(str(packaged_config(protocol.config)), []))
        published[name] = [_row(result) for result in published_for(name)]
    return fill_template(
        Path(__file__).with_name("page.md.j2"),
        protocols=protocols().values(),
        cards=cards,
        published=published,
        free=sorted(FREE),
        shown=SHOWN,
    )


def _row(result: PublishedResult) -> dict[str, str]:
    titles = {"bbox": "box ", "segm": "mask ", "svm": "", "classification": ""}
    numbers = []
    for task, table in result.metrics.items():
        numbers += [f"{titles[task]}{name} {value:.1f}" for name, value in table.items()]
    return {
        "start": result.start,
        "numbers": ", ".join(numbers),
        "paper": result.paper,
        "source": result.place,
        "differs": result.differs,
    }
