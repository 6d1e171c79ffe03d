"""The pages of `clipcond tokens --html`: read with html.parser, and driven in a headless Chromium where there is one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from browser import drive
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcond.cli import main
from clipcond.pages.tokens import MOST_CHUNKS, MOST_FINDINGS, prompt_page, survey_page
from clipcond.prompt.analysis.collection import survey
from clipcond.prompt.analysis.phrases import analyse
from clipcond.prompt.findings import Finding
from clipcond.prompt.plan import PromptPlan, plan

LONG = "a photo of " + "one small red fox, " * 20 + "<|endoftext|>, a (silver:1.2) key of 漢"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """The elements of a page: (tag, attributes, text inside); complains about tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs) -> None:
        element = (tag, {name: value or "" for name, value in attrs}, [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, texts in self.open:
            texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of a tag; cls: one of their classes."""
        cls = wanted.pop("cls", None)
        return [
            (attributes, "".join(texts))
            for name, attributes, texts in self.elements
            if name == tag
            and (cls is None or cls in attributes.get("class", "").split())
            and all(attributes.get(key) == value for key, value in wanted.items())
        ]


def page_of(prompt: str, **options: str) -> str:
    planned = plan(prompt, **options)
    return prompt_page([[planned]], [analyse(planned)])


def weighted(prompt: str, weights: dict[str, float]) -> PromptPlan:
    planned = plan(prompt)
    encoder = planned.encoders["clip_l"]
    chunks = tuple(
        replace(chunk, tokens=tuple(t._replace(weight=weights.get(t.text, 1.0)) for t in chunk.tokens))
        for chunk in encoder.chunks
    )
    return replace(planned, encoders={"clip_l": replace(encoder, chunks=chunks)})


# what stands in the page


def test_every_token_tells_its_id_and_piece() -> None:
    page = Page(page_of("an rutkowski fox"))
    tokens = page.all("button", cls="t")
    assert [text for _, text in tokens] == ["an", "rut", "kowski", "fox"]
    assert tokens[1][0]["title"] == (
        "“rut”  id 14973\npiece rut\ntoken 2, place 2 of chunk 1\nweight 1, characters 3 to 6"
    )
    assert ["gap" in attributes["class"].split() for attributes, _ in tokens] == [True, False, True, False]
    assert "1 token" not in page.all("h1")[0][1]
    assert page.all("h1")[0][1] == "4 tokens in 1 chunk: none dropped"


def test_a_table_says_the_same_without_script() -> None:
    page = Page(page_of("an rutkowski fox"))
    rows = [text for _, text in page.all("code")]
    assert rows == ["an</w>", "rut", "kowski</w>", "fox</w>"]
    assert "All tokens of clip_l as a table" in page.all("summary")[0][1]


def test_encoders_that_agree_share_a_strip() -> None:
    page = Page(page_of("a fox", family="sdxl"))
    assert page.all("h3")[0][1] == "sdxl · clip_l, clip_g: 2/75 → 1 chunk"
    assert "Chunks are filled with id 49407, 0." in page.all("caption")[0][1]


def test_dropped_text_is_marked() -> None:
    page = Page(page_of(LONG))
    planned = plan(LONG).encoders["clip_l"]
    assert planned.dropped is not None
    assert "".join(text for _, text in page.all("del")) == planned.dropped.text
    lost = page.all("button", cls="lost")
    assert len(lost) == planned.dropped.content_tokens
    assert "a stock pipeline drops it" in lost[0][0]["title"]
    assert "cut: all places are taken" in "".join(text for _, text in page.all("h4"))


def test_weights_are_bars() -> None:
    planned = weighted("a red fox", {"red": 1.5, "fox": 0.5})
    page = Page(prompt_page([[planned]], [analyse(planned)]))
    assert [attributes["style"] for attributes, _ in page.all("i") if "--h" in attributes.get("style", "")] == [
        "--h:11.0px",
        "--h:16.5px",
        "--h:5.5px",
    ]
    assert len(page.all("button", cls="more")) == len(page.all("button", cls="less")) == 1
    assert "--h" not in "".join(attributes.get("style", "") for attributes, _ in Page(page_of("a red fox")).all("i"))


def test_negative_and_huge_weights_stay_in_bounds() -> None:
    planned = weighted("a red fox", {"red": -3.0, "fox": 1e300})
    page = Page(prompt_page([[planned]], [analyse(planned)]))
    assert "against" in page.all("button", cls="t")[1][0]["class"]
    assert page.all("button", cls="more")[0][0]["style"] == "--m:100%"
    assert page.all("i", style="--h:22.0px") != []


def test_findings_and_passages_link_to_each_other() -> None:
    page = Page(page_of(LONG))
    ids = {attributes["id"] for _, attributes, _ in page.elements if "id" in attributes}
    links = [attributes["href"] for attributes, _ in page.all("a") if "href" in attributes]
    assert len(links) >= 6
    assert {link[1:] for link in links} <= ids
    assert all(link.startswith("#") for link in links)
    assert any("special-token-as-text" in text for _, text in page.all("li", cls="warning"))
    assert any("repeated-phrase" in text for _, text in page.all("li", cls="note"))


def test_overlapping_and_empty_passages_are_marked() -> None:
    planned = replace(
        plan("a red fox"),
        warnings=(
            Finding("one", "x", 0, 5),
            Finding("two", "y", 2, 9),
            Finding("end", "z", 9, 9),
            Finding("in", "w", 0, 5),
        ),
    )
    page = Page(prompt_page([[planned]], [analyse(planned)]))
    pieces = [(attributes["data-of"], text) for attributes, text in page.all("a") if "data-of" in attributes]
    assert pieces == [("s0-0 s0-1", "a "), ("s0-0 s0-1 s0-2", "red"), ("s0-2", " fo"), ("s0-2 s0-3", "x")]
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert {"s0-0", "s0-1", "s0-2", "s0-3"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_phrases_have_a_place() -> None:
    page = Page(page_of("masterpiece, a red fox, " + "a dog in the rain, " * 15))
    rows = [text for attributes, text in page.all("tr") if "a dog" in text]
    assert "again" in rows[1]
    assert page.all("i", cls="over") != []
    assert "boilerplate" in page.all("tr")[-len(rows) - 2][1]


def test_one_character_in_several_tokens_is_drawn_once() -> None:
    assert [text for _, text in Page(page_of("漢")).all("button", cls="t")] == ["漢", "⋯", "⋯"]


def test_two_plans_stand_beside_each_other() -> None:
    columns = [[plan("a (fox:1.2)", dialect=dialect, family=family) for family in ("sd15", "sd2")]
               for dialect in ("plain", "a1111")]  # fmt: skip
    page = Page(prompt_page(columns, [analyse(plans[0]) for plans in columns], ["dialect plain: no marks"]))
    assert len(page.all("div", cls="beside")) == 1
    assert [text for _, text in page.all("h2")] == ["sd15, sd2, read as plain", "sd15, sd2, read as a1111"]
    assert page.all("h3")[0][1] == "sd15 · clip_l; sd2 · clip_h: 8/75 → 1 chunk"
    assert page.all("p", cls="lead")[0][1].startswith("Dialect plain: no marks. Point at")
    assert page.all("h1")[0][1] == "8 tokens as plain, 2 tokens as a1111: none dropped"


def test_very_long_prompts_are_told_in_numbers() -> None:
    page = Page(page_of("a fox " * 75 * (MOST_CHUNKS // 2 + 1)))
    assert len(page.all("div", cls="strip")) == MOST_CHUNKS
    assert "and 2 more chunks" in "".join(text for _, text in page.all("p"))
    many = Page(page_of("<|endoftext|> " * (MOST_FINDINGS + 7)))
    assert len(many.all("li")) == MOST_FINDINGS + 1
    assert "more" in many.all("li")[-1][1]


def test_an_empty_prompt_has_a_page() -> None:
    page = Page(page_of(""))
    assert page.all("h1")[0][1] == "0 tokens in 1 chunk: none dropped"
    assert page.all("p", cls="prompt")[0][1] == "(empty)"


@pytest.mark.property
@settings(deadline=None)
@given(st.text("a </>&\"'$\n{}\ud800\x00\u202e漢", max_size=80))
def test_no_prompt_breaks_the_page(prompt: str) -> None:
    page = page_of(prompt + "</script><script>alert(1)</script>")
    page.encode("utf-8")
    assert len(Page(page).all("script")) == 1
    assert "\u202e" not in page
    assert "\x00" not in page


def test_the_page_loads_nothing() -> None:
    for page in (page_of(LONG), survey_page(survey([LONG]), [plan(LONG)], "x.txt")):
        assert not re.search(r"https?:|url\(|@import|<link|<img|<iframe|\bsrc=", page)


def test_a_collection_has_a_histogram_and_tables() -> None:
    prompts = ["a red fox, best quality", "rutkowski, best quality", LONG]
    found = survey(prompts)
    page = Page(survey_page(found, [plan(long.prompt) for long in found.longest_prompts], "x <1>.txt"))
    assert page.all("h1")[0][1] == "3 prompts: 33.3% longer than 75 tokens"
    assert len(page.all("li")) == len(found.histogram) + 1
    assert "33.3%" in page.all("li", cls="limit")[0][1]
    cells = [text for _, text in page.all("td")]
    assert {"rutkowski", "best quality"} <= set(cells)
    assert page.all("del")[0][1].endswith("key of 漢")
    assert Page(survey_page(survey([]), [], "none")).all("h1")[0][1].startswith("0 prompts")


def test_the_two_readers_numbers_add_up_in_heading_and_bar() -> None:
    page = Page(page_of("(fox:1.2) " * 12, dialect="a1111"))
    assert page.all("h1")[0][1] == (
        "12 tokens in 1 chunk; a stock pipeline reads the marks too, 84 tokens, and drops 9"
    )
    (bar,) = page.all("div", cls="gauge")
    assert [
        attributes["style"] for attributes, _ in page.all("i") if attributes.get("style", "").startswith("width")
    ] == [
        "width:89.29%",
        "width:10.71%",
    ]
    assert bar
    assert page.all("p", cls="legend")[1][1] == (
        "The bar: a stock pipeline reads 75 of 84 tokens and drops 9: marks are text to it. "
        "clipcond reads 12 without marks."
    )


def test_a_legend_names_the_tints_and_the_bars_that_occur() -> None:
    keys = Page(page_of("a (red:1.3) fox [small]", dialect="a1111")).all("p", cls="keys")[0][1]
    for name in ("tokens in turn", "weight above 1", "weight below 1", "bar: the weight; the line is 1"):
        assert name in keys
    assert "below 0" not in keys
    assert "bar" not in Page(page_of("a red fox")).all("p", cls="keys")[0][1]
    assert "dropped by a stock pipeline" in Page(page_of("fox " * 80)).all("p", cls="keys")[0][1]


def test_a_finding_shows_its_part_without_quotes_around_it() -> None:
    text = page_of('a "fox" here, ' + "x y z " * 40)
    assert "<q>" not in text
    parts = Page(text).all("code")
    assert any(" … " in part for _, part in parts)  # a long passage by its beginning and its end


def test_loras_changes_and_parts_stand_under_the_prompt() -> None:
    page = Page(page_of("a [cat:dog:0.4] <lora:x:0.8> AND a dog :0.5", dialect="a1111"))
    assert [text for _, text in page.all("dt")] == ["1 LoRA taken out", "changes", "2 parts"]
    assert [text for _, text in page.all("dd")] == [
        "x ×0.8",
        "cat → dog at 40 %",
        "drawn together (AND), weights 1 and 0.5",
    ]


# contrast


def _schemes(page: str) -> list[dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--(\S+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", page, re.S)
    )
    assert light.keys() == dark.keys() >= {"ink", "page", "card"}
    return [light, dark]


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PAIRS = [
    *((text, ground) for text in ("ink", "soft", "bad", "good") for ground in ("page", "card")),
    *(("token", ground) for ground in ("odd", "even", "more", "less", "against")),
    *((text, f"{kind}-wash") for kind in ("warn", "note") for text in (kind, "ink", "bad")),
    ("tip-ink", "tip"),
    *(("dim", ground) for ground in ("page", "card", "lost", "lost-even", "warn-wash", "note-wash")),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_stands_out(scheme: int, text: str, ground: str) -> None:
    colours = _schemes(page_of("a fox"))[scheme]
    dark, bright = sorted([_luminance(colours[text]), _luminance(colours[ground])])
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


# writing it


def test_the_command_writes_a_page(tmp_path, capsys) -> None:
    path = tmp_path / "fox.html"
    assert main(["tokens", LONG, "--html", str(path)]) == 0
    seen = capsys.readouterr()
    assert "2 chunks" in seen.out
    assert seen.err == f"wrote {path}\n"
    assert "a stock pipeline drops" in Page(path.read_text(encoding="utf-8")).all("h1")[0][1]


def test_json_goes_together_with_a_page(tmp_path, capsys) -> None:
    path = tmp_path / "fox.html"
    assert main(["tokens", "a fox", "--json", "--html", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == plan("a fox").to_json()
    assert path.is_file()


def test_a_page_of_a_file(tmp_path, capsys) -> None:
    prompts, path = tmp_path / "prompts.txt", tmp_path / "all.html"
    prompts.write_text(f"a fox\n{LONG}\n", encoding="utf-8")
    assert main(["tokens", "--file", str(prompts), "--html", str(path)]) == 0
    assert "2 prompts" in capsys.readouterr().out
    assert Page(path.read_text(encoding="utf-8")).all("title")[0][1] == "prompts.txt · clipcond tokens"


def test_nothing_is_overwritten(tmp_path, capsys) -> None:
    path = tmp_path / "fox.html"
    path.write_text("mine")
    assert main(["tokens", "a fox", "--html", str(path)]) == 3
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == (
        "",
        f"error: {path} is there already; name another file, or --overwrite, nothing is overwritten\n",
    )
    assert path.read_text() == "mine"
    assert main(["tokens", "a fox", "--html", str(path), "--overwrite"]) == 0
    assert "<!doctype html>" in path.read_text()


def test_a_folder_that_is_not_there_is_one_line_and_3(tmp_path, capsys) -> None:
    assert main(["tokens", "a fox", "--html", str(tmp_path / "no" / "fox.html")]) == 3
    seen = capsys.readouterr()
    assert seen == ("", f"error: there is no folder {tmp_path / 'no'} for fox.html; make it, or name another\n")


def test_a_full_disk_leaves_no_page_and_names_it(tmp_path, capsys, file_size_limit) -> None:
    path = tmp_path / "fox.html"
    with file_size_limit(1000):
        assert main(["tokens", "a fox", "--html", str(path)]) == 3
    assert capsys.readouterr().err == f"error: {path}: File too large\n"
    assert list(tmp_path.iterdir()) == []
    assert main(["tokens", "a fox", "--html", str(path)]) == 0


# in a browser

DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.srcdoc = {page};
frame.onload = () => {{
  const d = frame.contentDocument, w = frame.contentWindow, seen = {{}};
  const tip = d.getElementById("tip"), tokens = [...d.querySelectorAll(".strip .t")];
  const fits = () => {{
    const b = tip.getBoundingClientRect();
    return b.left >= 0 && b.right <= w.innerWidth + .5 && b.top >= 0;
  }};
  seen.width = w.innerWidth; seen.over = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  tokens[1].dispatchEvent(new w.MouseEvent("mouseenter")); seen.hover = tip.hidden ? null : tip.textContent; seen.fits = fits();
  tokens[1].dispatchEvent(new w.MouseEvent("mouseleave")); seen.left = tip.hidden;
  tokens[2].click(); seen.tap = tip.textContent; seen.described = tokens[2].getAttribute("aria-describedby");
  const press = key => d.activeElement.dispatchEvent(new w.KeyboardEvent("keydown", {{key, bubbles: true, cancelable: true}}));
  press("ArrowRight"); seen.arrow = tip.textContent;
  press("End"); seen.end = tip.textContent; seen.endFits = fits();
  seen.stops = d.querySelectorAll('.strip .t[tabindex="0"]').length; seen.strips = d.querySelectorAll(".strip").length;
  press("Escape"); seen.escaped = tip.hidden;
  const link = d.querySelector(".findings a");
  w.location.hash = link.getAttribute("href");
  setTimeout(() => {{
    seen.lit = d.querySelectorAll(".prompt a.lit").length;
    const struck = e => w.getComputedStyle(e).textDecorationLine !== "none";
    seen.strike = [...d.querySelectorAll(".prompt del, .t.lost span")].some(struck);
    seen.dimmed = d.querySelectorAll(".prompt del").length;
    seen.ground = w.getComputedStyle(d.body).backgroundColor;
    document.getElementById("out").textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
  }}, 50);
}};
</script>"""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_the_page_works_in_a_browser(width: int, dark: bool, tmp_path) -> None:
    seen = drive(DRIVER, page_of(LONG + " rutkowskistadtberg" * 3), tmp_path, width=width, dark=dark)
    assert seen["width"] == width
    assert seen["over"] == 0, "the page scrolls sideways"
    assert "id 1125\n" in str(seen["hover"])
    assert seen["fits"]
    assert seen["left"]
    assert str(seen["tap"]).startswith("“of”  id 539\npiece of</w>")
    assert seen["described"] == "tip"
    assert str(seen["arrow"]).startswith("“one”")
    assert "place 75 of chunk 1" in str(seen["end"])
    assert seen["endFits"]
    assert seen["stops"] == seen["strips"] == 2
    assert seen["escaped"]
    assert int(str(seen["lit"])) >= 1
    assert not seen["strike"]
    assert int(str(seen["dimmed"])) >= 1
    assert seen["ground"] == ("rgb(16, 21, 27)" if dark else "rgb(246, 247, 249)")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_of_a_collection_fits(width: int, tmp_path) -> None:
    found = survey(["a red fox, best quality", "x" * 400 + ", rutkowski", LONG, "fox"] * 3)
    page = survey_page(found, [plan(long.prompt) for long in found.longest_prompts], "prompts.txt")
    some_tokens = page_of("a red fox, a red fox").split("<main>")[1].split("</main>")[0]  # for the driver to use
    page = page.replace("</main>", f"<div>{some_tokens}</div></main>")
    seen = drive(DRIVER, page, tmp_path, width=width, dark=False)
    assert seen["over"] == 0, "the page scrolls sideways"


def test_the_heading_counts_an_encoder_that_is_known(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))  # no tokenizer of a language model
    headings = [Page(page_of("a red fox", family=family)).all("h1")[0][1] for family in ("kandinsky5", "flux2")]
    assert headings == ["3 tokens in 1 chunk: none dropped", "tokens unknown, without a tokenizer"]
    long = Page(page_of("a fox, " * 60, family="hidream"))
    assert "The first 126 tokens weigh most." in "".join(text for _, text in long.all("p", cls="lead"))
