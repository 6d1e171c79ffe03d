from __future__ import annotations

import numpy as np

from clipcond.find.captions import interrogate, rank_captions
from clipcond.find.gallery import Gallery

CAPTIONS = ("a blue circle", "a red circle", "a green circle " * 40, "a yellow circle")


def test_captions_in_order_of_fit(pictures: Gallery) -> None:
    found = rank_captions(pictures, CAPTIONS)
    for each in found:
        cosines = [caption.cosine for caption in each.captions]
        assert cosines == sorted(cosines, reverse=True)
        assert abs(sum(caption.probability for caption in each.captions) - 1) < 1e-9
        assert each.path.parent.name in each.captions[0].caption
    long = next(caption for caption in found[0].captions if "green" in caption.caption)
    assert long.content_tokens == 120


def test_a_caption_is_put_together_while_it_gains(pictures: Gallery) -> None:
    phrases = ["red", "blue", "green", "yellow", "circle", "square", "ring", "star", "cross", "triangle"]
    found = interrogate(pictures, phrases, candidates=10, most=3)
    for each in found:
        assert each.path.parent.name in each.caption.split(", ")
        assert all(phrase.gain > 0 for phrase in each.phrases)
        assert np.isclose(each.phrases[-1].cosine, each.cosine)
        assert np.isclose(sum(phrase.gain for phrase in each.phrases), each.cosine)
        assert len(each.phrases) <= 3


def test_a_caption_keeps_within_a_chunk(pictures: Gallery) -> None:
    phrases = ["red circle " * 30, "red star " * 30]  # 60 tokens each
    (first, *_) = interrogate(pictures.only([0]), phrases)
    assert first.content_tokens == 60
    assert len(first.phrases) == 1
