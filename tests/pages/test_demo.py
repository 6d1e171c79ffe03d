"""The page of `clipcond demo`: whole, self-contained, and right in its numbers."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from clipcond.mini import world
from clipcond.pages.demo import page
from clipcond.prompt.plan import plan
from clipcond.workflows.demo import Shot, Story, demo_prompt

VOID = {"meta", "img", "rect", "circle", "path", "polygon"}


class Elements(HTMLParser):
    """Every element with its attributes and text; fails on a tag that is not closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def story(prompt, right_stock, right_clipcond):
    (encoder,) = plan(prompt).encoders.values()
    scene = world.parse(prompt)
    picture = Image.new("RGB", (64, 64), (0, 110, 110))

    def shots(side, rows):
        return tuple(
            Shot(side=side, seed=seed, image=picture, right=tuple(map(bool, row)), cosine=sum(row) / 10)
            for seed, row in enumerate(rows)
        )

    return Story(
        prompt=prompt,
        plan=encoder,
        scene=scene,
        read=len(world.parse(prompt[: encoder.dropped.start]).objects),
        sketch=picture,
        stock=shots("stock", right_stock),
        clipcond=shots("clipcond", right_clipcond),
        version="0.1.0",
        seconds=12.3,
    )


def told(prompt=None):
    stock, ours = [(1, 1, 1, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0)], [(1, 1, 1, 1, 1, 1, 0), (1,) * 7]
    return story(prompt or demo_prompt(0), stock, ours)


def test_the_page_is_well_formed_and_loads_nothing():
    html = page(told())
    elements = Elements(html)
    assert not re.search(r"<script|<link|url\(|@import|https?://", html)
    sources = [attributes["src"] for tag, attributes in elements.found if tag == "img"]
    assert len(sources) == 3 + 4 + 4
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
    assert all(attributes["alt"] for tag, attributes in elements.found if tag == "img")
    assert "$" not in html


def test_the_page_says_what_was_counted():
    text = " ".join(Elements(page(told())).text)
    assert "A prompt of 131 tokens. Stock pipelines read 75." in text
    assert "56 tokens, and with them 4 of 7 objects" in text
    assert "2.5 of 7 right on average, 0.0 of the 4 behind the cut" in text
    assert "6.5 of 7 right on average, 3.5 of the 4 behind the cut" in text
    assert "The best of clipcond's, seed 1, has 7 of 7 objects right" in text


def test_the_strip_holds_the_whole_prompt_in_its_tokens():
    html = page(told())
    strip = re.search(r'<div class="strip">(.*?)</div>', html, re.DOTALL)[1]
    read, lost = re.fullmatch(
        r'<span class="read">(.*)</span><span class="cut">.*?</span><span class="lost">(.*)</span>', strip
    ).groups()
    assert (read.count('class="t"'), lost.count('class="t"')) == (75, 56)
    assert re.sub(r"<[^>]*>", "", read + lost) == demo_prompt(0)


def test_what_the_prompt_says_is_escaped():
    prompt = 'a red circle <b>top left</b> & "quoted" <script>alert(1)</script> ' + "wide and long " * 30
    html = page(story(prompt, [(1,)], [(1,)]))
    assert "<script>" not in html
    assert "<b>top left" not in html
    Elements(html)


def test_the_ranking_is_by_score():
    (ranked,) = re.findall(r'<div class="pictures ranking">(.*?)</div>', page(told()), re.DOTALL)
    titles = re.findall(r"<b>(\d\. \w+)</b>", ranked)
    assert titles == ["1. clipcond", "2. clipcond", "3. stock", "4. stock"]
