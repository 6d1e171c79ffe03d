"""The report of a training run: what it says, and that it fits its window."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import drive

from clipcond.cli import main
from clipcond.errors import DataError
from clipcond.pages.curve import Curve, _axis, chart
from clipcond.pages.run_report import run_report
from clipcond.workflows.run_record import read_run

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
CHANCE = {"image_to_text": {"R@1": 0.125, "R@5": 0.625}, "text_to_image": {"R@1": 0.125}}


def recall(step: int, share: float) -> dict:
    found = {"image_to_text": {"R@1": share, "R@5": 0.9}, "text_to_image": {"R@1": share}, "images": 8, "texts": 8}
    return {"step": step, "event": "evaluation", **found, "chance": CHANCE}


def step(number: int, loss: float) -> dict:
    return {
        "step": number, "loss": loss, "terms": {"contrastive": loss, "retention": 0.25}, "learning_rate": 1e-4,
        "grad_norm": 2.0, "logit_scale": 50.0, "pairs_per_second": 31.0, "by_stage": {"data": 900.0, "forward_backward": 40.0},
    }  # fmt: skip


def drift(number: int, words: float) -> dict:
    return {"step": number, "event": "drift", "spread_ratio": 1.0, "measures": {"words": words, "eos": 0.002}}


def score(number: int, value: float, best: float, at: int) -> dict:
    return {"step": number, "event": "score", "score": value, "best": best, "best_step": at, "waited": 0}


LINES = [
    {"step": 0, "event": "start", "steps": 40, "images": 64, "captions": 70},
    {"step": 0, "event": "note", "note": "<b>2 rows</b> are left out"},
    recall(0, 0.25), step(10, 2.0), step(20, 1.5), recall(20, 0.75), drift(20, 0.01), score(20, 0.74, 0.74, 20),
    step(30, 9.0),  # lost to a kill
    {"step": 20, "event": "resume", "steps": 40, "images": 64, "captions": 70},
    step(30, 1.25), step(40, 1.0), recall(40, 0.5), drift(40, 0.04), score(40, 0.48, 0.74, 20),
]  # fmt: skip
END = {"step": 40, "event": "done", "model": "run/model", "retrieval": recall(20, 0.75)}
PAIR = {
    "caption": "a fox & a hound " * 12, "rank": 3, "rank_before": 8, "cosine": 0.21, "other_cosine": 0.34,
    "picture": {"name": "a-very-long-name-of-a-picture-" * 4 + ".png", "uri": ""}, "other": {"name": "b.png", "uri": DOT},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "my <run>"
    run.mkdir()
    config = {
        "model": "mini",
        "data": "pairs.csv",
        "keep_best": True,
        "max_drift": 0.5,
        "warmup": None,
        "batch_size": 16,
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*LINES, END]) + '{"step": 41, "los')
    (run / "pairs.json").write_text(json.dumps({"images": 8, "before": [], "worst": [PAIR], "best": [PAIR]}))
    return run


def test_a_record_has_each_step_once_and_knows_the_step_of_the_model(folder: Path) -> None:
    run = read_run(folder)
    assert [(line["step"], line["loss"]) for line in run.steps] == [(10, 2.0), (20, 1.5), (30, 1.25), (40, 1.0)]
    assert (run.model_step, run.last_step) == (20, 40)
    assert run.before is not None
    assert run.before["step"] == 0
    assert run.after == END["retrieval"]
    assert run.drift is not None
    assert run.drift["step"] == 20


def test_a_run_that_is_not_done_has_its_last_numbers(folder: Path) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "pairs.json").unlink()
    run = read_run(folder)
    assert run.after is not None
    assert (run.end, run.after["step"]) == (None, 40)
    page = run_report(run)
    assert "step 40 of 40, not done yet" in page
    assert "so far" in page
    assert "Captions that fare" not in page


def test_the_page_holds_recall_beside_before_and_chance_drift_and_pairs_and_loads_nothing(folder: Path) -> None:
    page = run_report(read_run(folder))
    assert "my &lt;run&gt;" in page
    assert "<b>2 rows</b>" not in page
    row = re.search(r"<td>image to text R@1</td>(.*?)</tr>", page)
    assert row is not None
    assert re.findall(r"<td>(.*?)</td>", row[1]) == ["25.0 %", "75.0 %", "12.5 %"]
    assert "<td>words</td><td>0.01</td>" in page
    assert "rank 3, before the training 8" in page
    assert page.count("<img ") == 2
    assert "a fox &amp; a hound" in page
    labels = re.findall(r'aria-label="(.*?)"', page)
    assert "loss: loss from 2 to 1" in labels
    assert "temperature: temperature from 0.02 to 0.02" in labels
    assert "R@1: image to text from 25.0 % to 50.0 %; text to image from 25.0 % to 50.0 %" in labels
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', page)


def test_a_chart_puts_points_where_they_belong() -> None:
    drawn = chart("t", [Curve(name="a", points=[(0, 0.0), (10, 1.0), (20, float("nan")), (30, 4.0)])], shown=str)
    assert 'd="M 52.0 164.0 L 144.7 125.5 L 330.0 10.0"' in drawn
    assert _axis(0.0, 4.0) == (0.0, 4.0, [0.0, 1.0, 2.0, 3.0, 4.0])
    low, high, ticks = _axis(0.07, 0.07)
    assert low < 0.07 < high
    assert 3 <= len(ticks) <= 7
    many = chart("t", [Curve(name="a", points=[(n, float(n)) for n in range(5000)])], shown=str)
    assert many.count(" L ") <= 400
    assert "<circle" not in many


def test_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"is no training run: config\.json cannot be read"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "log.jsonl").write_text("[]\nx\n")
    assert main(["report", str(tmp_path)]) == 3
    assert capsys.readouterr().err == f"error: {tmp_path}/log.jsonl has no line that starts a run\n"


def test_the_command_replaces_the_runs_own_page_and_no_other_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["report", str(folder)]) == 0
        assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    other = folder.parent / "other.html"
    other.write_text("mine")
    assert main(["report", str(folder), "--out", str(other)]) == 3
    assert other.read_text() == "mine"
    assert main(["report", str(folder), "--out", str(other), "--force"]) == 0
    assert other.read_text() == (folder / "report.html").read_text()


DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => setTimeout(() => {{
  const d = frame.contentDocument, w = frame.contentWindow, seen = {{}};
  seen.width = w.innerWidth; seen.over = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  seen.cut = [...d.querySelectorAll(".card, .tile")].filter(e => e.scrollWidth > e.clientWidth + 1).length;
  const charts = [...d.querySelectorAll(".charts figure")];
  seen.charts = charts.length; seen.columns = charts.filter(c => c.offsetTop === charts[0].offsetTop).length;
  seen.ground = w.getComputedStyle(d.body).backgroundColor;
  document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}}, 300);
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_page_fits_a_phone_and_a_desk(folder: Path, tmp_path: Path, width: int, dark: bool) -> None:
    seen = drive(DRIVER, run_report(read_run(folder)), tmp_path, width=width, dark=dark)
    assert seen == {
        "width": width, "over": 0, "cut": 0, "charts": 9, "columns": 1 if width == 390 else 3,
        "ground": "rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)",
    }  # fmt: skip
