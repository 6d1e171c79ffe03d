"""The page of a detection: read as text, and driven in a headless Chromium where there is one."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import drive
from PIL import Image

from clipcond.find.detect import DetectedPicture, Found
from clipcond.find.gallery import Unread
from clipcond.pages.detect import detection_page, heat_levels, heights
from clipcond.workflows.detect import DetectResult

LABELS = ("a red fox", "</script><b>snow", "a hat")


def result(folder: Path, *, heat: bool = True) -> DetectResult:
    """Two pictures; the fox is in both, the snow in the first, the hat in none."""
    pictures = []
    for number in range(2):
        path = folder / f"{number}.png"
        Image.new("RGB", (80, 40), (90, 0, 200)).save(path)
        maps = np.zeros((3, 8, 16), dtype=np.float32)
        maps[0, :2, :2], maps[1, -2:, -2:] = 1 - number / 2, 0.5
        fox = Found(label=LABELS[0], score=0.75 - number / 2, box=(0, 0, 10, 10), place="top left")
        snow = Found(label=LABELS[1], score=0.5, box=(70, 30, 80, 40), place="bottom right", rather=LABELS[0])
        pictures.append(
            DetectedPicture(
                path=path, width=80, height=40, found=(fox, snow)[: 2 - number], absent=LABELS[2 - number :],
                heat=maps if heat else None,
            )
        )  # fmt: skip
    unread = (Unread(path=Path("<b>gone</b>.png"), error="no such file"),)
    return DetectResult(labels=LABELS, model="mini", method="patches", pictures=tuple(pictures), unread=unread)


def data_of(page: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    document: dict = json.loads(found[1])
    return document


def test_the_page_holds_pictures_boxes_and_heat(tmp_path: Path) -> None:
    page = detection_page(result(tmp_path))
    assert "http" not in page.replace("http-equiv", "")
    assert "2 pictures, 3 places · mini, by patches" in page
    assert "<b>snow" not in page
    assert "&lt;b&gt;gone&lt;/b&gt;.png: no such file" in page
    data = data_of(page)
    first, second = data["pictures"]
    assert data["labels"] == list(LABELS)
    assert first["src"].startswith("data:image/png;base64,")
    assert [(each["label"], each["rather"]) for each in first["found"]] == [(0, None), (1, 0)]
    assert (first["absent"], second["absent"]) == ([2], [1, 2])
    maps = np.frombuffer(base64.b64decode(second["maps"]), np.uint8).reshape(3, 8, 16)
    assert (maps[0, 0, 0], maps[1, -1, -1], maps[2].max()) == (128, 255, 0), "half as hot as in the first"


def test_a_page_without_heat_and_of_pictures_that_are_gone(tmp_path: Path) -> None:
    found = result(tmp_path, heat=False)
    (tmp_path / "0.png").unlink()
    data = data_of(detection_page(found))
    assert [each["src"] == "" for each in data["pictures"]] == [True, False]
    assert [(each["rows"], each["maps"]) for each in data["pictures"]] == [(0, "")] * 2


def test_heat_begins_at_the_median() -> None:
    heat = np.array([[[5.0, 5.0, 5.0, 4.0, 7.0]], [[1.0, 1.0, 1.0, 1.0, 1.0]]], dtype=np.float32)
    assert heat_levels(heat, np.array([4.0, 0.0], dtype=np.float32)).tolist() == [[[0, 0, 0, 0, 128]], [[0] * 5]]
    assert heights((), 2).tolist() == [0, 0]


DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => setTimeout(() => {{
  const d = frame.contentDocument, w = frame.contentWindow, seen = {{}}, at = id => d.getElementById(id);
  const all = name => [...d.querySelectorAll(name)], shown = name => all(name).filter(e => e.offsetParent !== null).length;
  const event = key => new w.KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}});
  const press = key => (d.activeElement || d.body).dispatchEvent(event(key));
  const pressed = () => all("#labels button").map(b => b.getAttribute("aria-pressed")).indexOf("true");
  const pixel = (n, x, y) => [...all("canvas")[n].getContext("2d").getImageData(x, y, 1, 1).data];
  const light = (n, x, y) => pixel(n, x, y).slice(0, 3).reduce((a, b) => a + b);
  seen.width = w.innerWidth; seen.over = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  seen.chips = all("#labels button").map(b => b.innerText.replace(/\\s+/g, " ").trim());
  seen.rows = all(".row").map(r => r.innerText.replace(/\\s+/g, " ").trim());
  seen.absent = all(".absent").map(p => p.textContent);
  seen.first = [shown(".box"), pressed(), at("heat").getAttribute("aria-pressed")];
  all(".row")[1].click(); const box = all(".box")[1].getBoundingClientRect(), stage = all(".frame")[0].getBoundingClientRect();
  seen.placed = [box.right - stage.right, box.bottom - stage.bottom, box.width / stage.width - 1 / 8].every(n => Math.abs(n) < 1);
  all(".row")[1].click(); all("#labels button")[1].click(); seen.fox = [shown(".box"), shown(".row"), pressed()];
  at("heat").click(); seen.hot = [all(".hot").length, light(0, 0, 0) > light(1, 0, 0), light(1, 0, 0) > light(1, 15, 7)];
  press("2"); seen.snow = [shown(".box"), pressed(), light(0, 15, 7) > light(0, 0, 0)];
  press("h"); seen.cold = all(".hot").length;
  press("b"); seen.plain = [shown(".box"), at("boxes").getAttribute("aria-pressed")];
  press("b"); press("Escape"); seen.back = [shown(".box"), pressed()];
  press("h"); seen.some = [all(".hot").length, pressed()]; press("0");
  all(".row")[1].click(); seen.chosen = [pressed(), all(".box.strong").length, all(".row")[1].getAttribute("aria-pressed")];
  all(".row")[1].click(); seen.left = [pressed(), all(".box.strong").length];
  all(".row")[0].focus(); press("ArrowDown"); seen.down = d.activeElement === all(".row")[1];
  press("ArrowDown"); press("ArrowDown"); press("ArrowUp"); seen.up = d.activeElement === all(".row")[1];
  seen.sizes = Math.min(...all("button").map(b => b.offsetHeight));
  seen.ground = w.getComputedStyle(d.body).backgroundColor;
  document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}}, 400);
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_the_page_works_in_a_browser(width: int, dark: bool, tmp_path: Path) -> None:
    seen = drive(DRIVER, detection_page(result(tmp_path)), tmp_path, width=width, dark=dark)
    assert (seen["width"], seen["over"]) == (width, 0), "something does not fit"
    assert seen["chips"] == ["all 3", "a red fox 2", "</script><b>snow 1", "a hat 0"]
    assert seen["rows"] == [
        "a red fox 0.75 top left",
        "</script><b>snow 0.50 bottom right, rather a red fox",
        "a red fox 0.25 top left",
    ]
    assert seen["absent"] == ["not found: a hat", "not found: </script><b>snow, a hat"]
    assert (seen["first"], seen["placed"]) == ([2, 0, "false"], True)
    assert (seen["fox"], seen["hot"]) == ([2, 2, 1], [2, True, True])
    assert (seen["snow"], seen["cold"], seen["plain"], seen["back"]) == ([1, 2, True], 0, [0, "false"], [2, 0])
    assert seen["some"] == [2, 1]
    assert (seen["chosen"], seen["left"]) == ([2, 1, "true"], [0, 0])
    assert (seen["down"], seen["up"]) == (True, True)
    assert int(str(seen["sizes"])) >= 44
    assert seen["ground"] == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")
