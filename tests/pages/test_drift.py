"""The page of a drift report: read as text, and looked at for its width in a headless Chromium where there is one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from browser import drive

from clipcond.diffusion.denoiser_change import DenoiserChange
from clipcond.models.clinic import Difference
from clipcond.pages.drift import drift_page
from clipcond.score.drift import measure_drift
from clipcond.score.drift_detail import drift_detail
from clipcond.workflows.drift import DriftReport, EncoderDrift

TEXTS = (
    ("", ()),
    ("a red fox", ("a", "red", "fox")),
    ("a small blue bird in the snow", ("a", "small", "blue", "bird", "in")),
)
ENDS = torch.tensor([1, 4, 6])


def encoder(*, states: bool = True) -> EncoderDrift:
    """Words turn a little, the word `red` the other way round."""
    draw = torch.Generator().manual_seed(0)
    before, noise = torch.randn(3, 77, 8, generator=draw), torch.randn(3, 77, 8, generator=draw)
    after = before + 0.1 * noise
    after[1, 2] *= -1
    pooled = None if states else (before[:, 0], after[:, 0])
    given = (before, after) if states else (None, None)
    return EncoderDrift(
        drift=measure_drift(*given, ENDS, pooled=pooled), layer="hidden_states[-1]", texts=TEXTS,
        differences=(Difference("padding", "filled with <0>"),), detail=drift_detail(*given, ENDS, pooled=pooled),
    )  # fmt: skip


def report() -> DriftReport:
    return DriftReport(
        before="mini", after="runs/<fox>", target="sd15", prompts=2, encoders={"clip_l": encoder()}, denoiser=(), failed={},
        limits={},
    )  # fmt: skip


def test_the_page_holds_everything_and_loads_nothing() -> None:
    page = drift_page(report())
    assert not re.search(r"<script|<link|url\(|@import|https?://|\bsrc=", page)
    assert "mini → runs/&lt;fox&gt;, as sd15 reads them, on 2 prompts" in page
    assert "<b>padding</b> filled with &lt;0&gt;" in page
    assert page.count("<circle") == 2 * (7 + 75), "a curve of directions and one of lengths"
    first_prompt = re.search(r'class="prompts".*?<tbody>\s*<tr><th scope="row">(.*?)</th>', page, re.S)
    assert first_prompt is not None
    assert first_prompt[1] == "a red fox", "those that turned most come first"
    assert re.search(r"<td>red <span>1\.\d{4}</span></td>", page), "and the word that turned most is named"
    assert "No limits were given" in page


def test_the_verdict_stands_first_and_beside_its_measure() -> None:
    value = encoder().drift.measures()["words"]
    failing = drift_page(replace(report(), limits={"words": 0.01, "bos": 1.0}, failed={"words": (value, 0.01)}))
    assert "<h1>Fails: 1 measure beyond its limit</h1>" in failing
    assert re.search(r'<tr class=failed><th scope="row">words</th>.*?0\.01</td><td><b class="bad">fails', failing)
    assert re.search(r'<tr><th scope="row">bos</th>.*?>1</td><td><b class="good">holds', failing)
    assert "<h1>Holds: no measure beyond its limit</h1>" in drift_page(replace(report(), limits={"bos": 1.0}))


def test_a_pooled_vector_alone_and_what_it_is_worth_to_the_denoiser() -> None:
    changes = (DenoiserChange(timestep=749.0, change=0.021, text=0.4, pooled=0.034),)
    page = drift_page(replace(report(), target="flux", encoders={"clip_l": encoder(states=False)}, denoiser=changes))
    assert "The pooled vector of clip_l turned by" in page
    assert "no words in the pooled vector" in page
    assert "3.40%" in page
    assert "<svg" not in page


@pytest.mark.parametrize("text", ["</table><script>alert(1)</script>", '"\u2028\x1b[31m', "\udcff", "$body"])
def test_hostile_prompts_stay_text(text: str) -> None:
    own = replace(encoder(), texts=(TEXTS[0], (text, (text, text, text)), TEXTS[2]))
    page = drift_page(replace(report(), encoders={"clip_l": own}, after=text))
    assert "<script" not in page
    assert "\x1b" not in page
    page.encode()


DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => setTimeout(() => {{
  const d = frame.contentDocument, seen = {{
    beyond: d.documentElement.scrollWidth - d.documentElement.clientWidth,
    letters: parseFloat(getComputedStyle(d.querySelector("svg text")).fontSize)
      * d.querySelector("svg").getBoundingClientRect().width / 480,
    cut: [...d.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
    dark: getComputedStyle(d.body).backgroundColor,
  }};
  document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}}, 200);
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_nothing_is_cut_on_a_phone_or_a_screen(width: int, dark: bool, tmp_path: Path) -> None:
    seen = drive(DRIVER, drift_page(report()), tmp_path, width=width, dark=dark)
    assert seen["beyond"] == 0
    assert seen["cut"] == 0
    assert seen["letters"] > 8  # type: ignore[operator]
    assert seen["dark"] == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")
