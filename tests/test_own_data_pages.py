"""The pages for own data: their commands, config keys, names of weights and links exist."""

import io
import re
import shlex
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from itertools import pairwise

import pytest
import yaml

from tests.conftest import ROOT
from virtex_det.cli.parsers import split_overrides
from virtex_det.config import load_config
from virtex_det.data import load_train_dicts
from virtex_det.model_zoo.catalog import find
from virtex_det_commands import choose

DOCS = ROOT / "docs"
BASE = "detectron2/_base_mask_rcnn_R_50_FPN.yaml"
PAGES = {
    name: (DOCS / f"{name}.md").read_text()
    for name in ("your_own_data", "how_do_i", "predict", "export")
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Return the words of each virtex-det command in the page's blocks, without comments."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["virtex-det"]]


COMMANDS = [pytest.param(words, id=shlex.join(words)) for page in PAGES for words in commands(page)]
YAML = [block for page in PAGES for block in blocks(page, "yaml")]


@cache
def options(module: str) -> set[str]:
    """Return the options that the help of a command names."""
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        import_module(f"virtex_det.cli.{module}").main(["-h"])
    return set(re.findall(r"--[a-z-]+", printed.getvalue()))


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_has_the_options_keys_and_weights_that_the_page_names(words):
    command, arguments = choose(words)
    assert {word for word in arguments if word.startswith("--")} <= options(command.module)
    after = dict(pairwise(arguments))
    config = after.get("--config-file", BASE)
    if keys := split_overrides(arguments)[1]:
        load_config(config if config.startswith("detectron2/") else BASE, keys)
    for name in (after.get("--weights", ""), after.get("MODEL.WEIGHTS", "")):
        assert not name or name.endswith(".pth") or find(name.removeprefix("virtex://"))


@pytest.mark.parametrize("block", YAML)
def test_the_keys_of_a_block_exist_and_agree(block, tmp_path):
    keys = yaml.safe_load(block)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**keys, "_BASE_": BASE}))
    load_config(str(path))


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(line) for line in file.read_text().splitlines()}, target


def slug(line: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    title = re.sub(r"^#+ ", "", line) if line.startswith("#") else ""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_script_that_registers_data_gives_images_to_train_on(
    tmp_path, monkeypatch, write_image, catalog
):
    [script] = blocks("your_own_data", "python")
    [config] = blocks("your_own_data", "yaml")
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "images" / "a.jpg", (640, 480))
    (tmp_path / "run.yaml").write_text(config)
    exec(compile(script, "my_train.py", "exec"), {"__name__": "my_train"})
    [image] = load_train_dicts(load_config("run.yaml"))
    assert image["annotations"][0]["category_id"] == 0
