import json
from pathlib import Path

import pytest

from clipcond.cli import main


def test_the_path_goes_to_stdout_and_the_proof_to_stderr(
    dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(dual_folder), "--to", "transformers", "--out", str(out), "--dtype", "bfloat16"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert said.err.startswith("read back: 6 outputs differ by at most 0.0e+00 from ") or "e-0" in said.err
    assert "; bfloat16 itself moved them by " in said.err


def test_json_holds_every_difference(dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clip_l.safetensors"
    given = ["export", str(dual_folder), "--to", "comfyui", "-o", str(out), "--no-projection", "--json"]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["path"], found["to"], found["encoder"], found["layers"]) == (str(out), "comfyui", "clip_l", 2)
    assert set(found["differences"]) >= {"last_hidden_state", "pooler_output", "hidden_states[-2]"}


def test_wrong_use_and_what_is_in_the_way_have_their_codes(
    dual_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "mini", "--to", "a1111", "--out", str(tmp_path / "x.safetensors")]) == 2
    assert "--into" in capsys.readouterr().err
    assert main(["export", str(dual_folder), "--to", "transformers", "--out", str(tmp_path)]) == 3
    assert "say --force, nothing is overwritten" in capsys.readouterr().err
