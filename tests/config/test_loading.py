from virtex_det.config import load_config


def test_the_home_directory_is_written_out_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my.yaml").write_text("MODEL:\n  WEIGHTS: ~/r50.pth\nOUTPUT_DIR: ~/run\n")
    cfg = load_config(str(tmp_path / "my.yaml"), ["INPUT.CAPTION.TOKENIZER", "~/a.model"])
    assert cfg.MODEL.WEIGHTS == f"{tmp_path}/r50.pth" and cfg.OUTPUT_DIR == f"{tmp_path}/run"
    assert cfg.INPUT.CAPTION.TOKENIZER == f"{tmp_path}/a.model"
