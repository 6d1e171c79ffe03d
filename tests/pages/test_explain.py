"""The page and the grid of an explanation: read as text and pixels, and driven in a headless Chromium where there is one."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import drive
from PIL import Image

from clipcond.diffusion.explain.explanation import ExplainedPhrase, ExplainedPicture, Explanation
from clipcond.diffusion.findings import PlacedFinding
from clipcond.errors import OutputExists
from clipcond.pages.explain import ShownExplanation, explanation_page
from clipcond.pages.heat import RAMP, coloured, levels
from clipcond.pages.map_grid import SIDE, map_grid, map_grid_png

PHRASES = (
    ("a red fox", 0.9, "top left"),
    ("a hat", 0.4, "bottom right"),
    ("zxqv", 0.01, "nowhere"),
    ("blurry", 0.5, "center"),
)


def explanation(*, pictures: int = 2, side: int = 8, pooled: float | None = None) -> Explanation:
    """Phrases that act in one corner each: the fox at the top left, the hat at the bottom right, `blurry` is negative."""
    maps = torch.full((4, side, side), 0.1)
    third = side * 3 // 8
    maps[0, :third, :third] = 2.0
    maps[1, -third:, -third:] = 1.0
    maps[2] = 0.001
    maps[3, third:-third, third:-third] = 0.8
    return Explanation(
        prompt="a red fox, a hat, zxqv",
        negative_prompt="blurry",
        phrases=tuple(
            ExplainedPhrase(
                text=text, start=n, end=n + 1, side="negative_prompt" if text == "blurry" else "prompt", part=0,
                strength=strength, where=where, dead=text == "zxqv", pooled_share=pooled,
                through="a red fox" if text == "a hat" else None,
            )
            for n, (text, strength, where) in enumerate(PHRASES)
        ),
        pictures=tuple(
            ExplainedPicture(image=Image.new("RGB", (64, 64), (90, 40 * n, 200)), seed=7 + n, maps=maps + n)
            for n in range(pictures)
        ),
        findings=(PlacedFinding("phrase-dead", "“zxqv” does next to nothing", 2, 3, "prompt", 0),),
        steps=20, at_steps=(6, 11, 15), rows=21, dialect="plain", family="sd15",
    )  # fmt: skip


def test_the_page_holds_everything_and_loads_nothing() -> None:
    page = explanation_page(explanation(pooled=0.25))
    assert not re.search(r"<link|url\(|@import|https?://|\bsrc=", page)
    assert "sd15, steps 6, 11, 15 of 20, 21 rows of the denoiser" in page
    assert "<li>“zxqv” does next to nothing</li>" in page


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", '"\u2028\x1b[31m', "\udcff", "$data"]
)
def test_hostile_prompts_stay_text(text: str) -> None:
    given = explanation()
    first = replace(given.phrases[0], text=text)
    page = explanation_page(replace(given, prompt=text, phrases=(first, *given.phrases[1:])))
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert "\x1b" not in page
    page.encode()


def test_large_pictures_and_maps_are_made_smaller() -> None:
    given = explanation(pictures=1, side=128)
    large = replace(given.pictures[0], image=Image.new("RGB", (3000, 1500)))
    page = explanation_page(replace(given, pictures=(large,)))
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    picture = json.loads(found[1])["pictures"][0]
    assert (picture["rows"], picture["columns"]) == (64, 64)
    assert picture["src"].startswith("data:image/jpeg;base64,")
    assert picture["most"] == pytest.approx(2.0, rel=1e-6)


def test_a_shown_explanation_writes_its_files_and_shows_itself(tmp_path: Path) -> None:
    given = explanation()
    shown = ShownExplanation(**{name: getattr(given, name) for name in given.__dataclass_fields__})
    assert shown.save_html(tmp_path / "page.html").read_text("utf-8") == explanation_page(given)
    with pytest.raises(OutputExists, match="there already"):
        shown.save_html(tmp_path / "page.html")
    with Image.open(shown.save_png(tmp_path / "maps.png")) as grid:
        assert grid.format == "PNG"
    framed = shown._repr_html_()
    assert framed.startswith("<iframe srcdoc=")
    assert "<script" not in framed, "escaped: it is inside an attribute"


def test_the_grid_shows_each_map_on_one_scale() -> None:
    grid = map_grid(explanation(pictures=1))
    pixels = np.asarray(grid)
    assert grid.width > 5 * SIDE
    tile = SIDE + 12  # with the gap
    corner = pixels[12 + 20, 12 + tile + 20]
    assert tuple(int(each) for each in corner) == RAMP[-1], "the strongest place is the lightest"
    assert pixels[12 + 20, 12 + 2 * tile + 20].sum() < pixels[12 + SIDE - 20, 12 + 2 * tile + SIDE - 20].sum()
    assert tuple(pixels[12 + 20, 12 + 20]) == (90, 0, 200), "the picture comes first"
    assert Image.open(io.BytesIO(map_grid_png(explanation()))).size == grid.size


def test_levels_and_colours() -> None:
    assert levels(torch.tensor([[0.0, 1.0, 4.0]]), 2.0).tolist() == [[0, 128, 255]]
    assert levels(torch.zeros(1, 2), 0.0).tolist() == [[0, 0]]
    ends = np.asarray(coloured(np.array([[0, 255]], np.uint8)))
    assert [tuple(each) for each in ends[0]] == [RAMP[0], RAMP[-1]]
    grey = [sum(each) for each in RAMP]
    assert grey == sorted(grey), "each colour is lighter than the one before"


# in a browser

DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => setTimeout(() => {{
  const d = frame.contentDocument, w = frame.contentWindow, seen = {{}}, at = id => d.getElementById(id);
  const chips = [...d.querySelectorAll(".chip")], stage = at("frame");
  const press = key => d.activeElement.dispatchEvent(new w.KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}}));
  const light = (x, y) => [...at("map").getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3).reduce((a, b) => a + b);
  const mouse = (element, kind, more) =>
    element.dispatchEvent(new w.PointerEvent(kind, {{pointerType: "mouse", bubbles: true, ...more}}));
  const box = () => stage.getBoundingClientRect();
  const spot = (x, y) => ({{clientX: box().left + box().width * x, clientY: box().top + box().height * y}});
  const on = () => stage.classList.contains("on"), here = n => +chips[n].style.getPropertyValue("--here");
  seen.width = w.innerWidth; seen.over = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  seen.lists = [...d.querySelectorAll("h2")].map(h => h.textContent);
  seen.chips = chips.map(c => c.innerText.replace(/\\s+/g, " ").trim());
  seen.quiet = on();
  mouse(chips[0], "pointerenter"); seen.hover = [on(), light(0, 0) > light(7, 7)];
  mouse(chips[0], "pointerleave"); seen.left = on();
  chips[1].click(); seen.tap = [on(), light(7, 7) > light(0, 0), chips[1].getAttribute("aria-pressed")];
  stage.dispatchEvent(new w.MouseEvent("click", {{bubbles: true, ...spot(.1, .1)}}));
  seen.place = [at("said").textContent, here(0) > here(1), chips[0].classList.contains("made")];
  mouse(stage, "pointermove", spot(.9, .9)); seen.moved = here(1) > here(0);
  mouse(stage, "pointerleave"); seen.away = [at("cross").hidden, here(1)];
  chips[1].focus(); press("ArrowDown"); seen.down = [d.activeElement === chips[2], chips[2].tabIndex, chips[1].tabIndex];
  press("ArrowUp"); press("ArrowUp"); seen.up = d.activeElement === chips[0] && light(0, 0) > light(7, 7);
  stage.focus(); press("ArrowLeft"); for (let n = 0; n < 5; n++) {{ press("ArrowLeft"); press("ArrowUp"); }}
  seen.keyed = at("said").textContent.startsWith("made by a red fox");
  press("Escape"); seen.escaped = [on(), at("cross").hidden];
  seen.which = at("which").textContent;
  at("next").click(); seen.next = at("which").textContent;
  at("next").click(); seen.round = at("which").textContent;
  seen.sizes = Math.min(...chips.map(c => c.offsetHeight)); seen.shown = stage.offsetWidth > 150 && stage.offsetHeight > 150;
  seen.ground = w.getComputedStyle(d.body).backgroundColor;
  document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}}, 400);
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_the_page_works_in_a_browser(width: int, dark: bool, tmp_path: Path) -> None:
    seen = drive(DRIVER, explanation_page(explanation(pooled=0.25)), tmp_path, width=width, dark=dark)
    assert (seen["width"], seen["over"]) == (width, 0), "something does not fit"
    assert seen["lists"] == ["prompt", "negative prompt"]
    assert seen["chips"] == [
        "a red fox 0.90 top left · 25 % through the pooled vector",
        "a hat 0.40 bottom right · 25 % through the pooled vector · only through “a red fox”",
        "zxqv 0.01 does next to nothing · 25 % through the pooled vector",
        "blurry 0.50 center · 25 % through the pooled vector",
    ]
    assert (seen["quiet"], seen["hover"], seen["left"]) == (False, [True, True], False)
    assert seen["tap"] == [True, True, "true"]
    assert seen["place"] == ["made by a red fox 95 %", True, True]
    assert (seen["moved"], seen["away"]) == (True, [True, 0])
    assert (seen["down"], seen["up"], seen["keyed"]) == ([True, 0, -1], True, True)
    assert seen["escaped"] == [False, True]
    assert [seen["which"], seen["next"], seen["round"]] == ["1 of 2, seed 7", "2 of 2, seed 8", "1 of 2, seed 7"]
    assert int(str(seen["sizes"])) >= 44
    assert seen["shown"]
    assert seen["ground"] == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")
