import numpy as np
import pytest

from clipcond.train.match_ids import PairKeys, match_ids


def matching(ids, pairs):
    """The matches beside the pairs themselves, as (image, text)."""
    images, texts = ids
    same = (images[:, None] == texts[None]).any(axis=2)
    return {(int(i), int(j)) for i, j in np.argwhere(same) if i != j or i >= pairs}


def test_texts_that_another_image_of_the_batch_has_too_are_found():
    rows = [(("Red  fox", "x"), "Red  fox"), (("red fox",), "red fox"), (("y", "z"), "y"), (("z",), "z")]
    found = match_ids([PairKeys(captions=own, drawn=text) for own, text in rows])
    assert matching(found, 4) == {(0, 1), (1, 0), (2, 3)}
    assert match_ids([PairKeys(captions=("a",), drawn="a"), PairKeys(captions=("b",), drawn="b")]) is None


def test_images_of_a_group_match_with_all_its_captions():
    groups = [("g", "h"), ("g",), (), ("h",)]
    rows = [PairKeys(captions=(str(n),), drawn=str(n), groups=own) for n, own in enumerate(groups)]
    assert matching(match_ids(rows), 4) == {(0, 1), (1, 0), (0, 3), (3, 0)}


def test_a_group_is_no_caption_of_the_same_name():
    rows = [PairKeys(captions=("g",), drawn="g"), PairKeys(captions=("x",), drawn="x", groups=("g",))]
    assert match_ids(rows) is None


def test_a_hard_negative_that_is_true_for_another_pair_matches_it():
    rows = [PairKeys(captions=("a",), drawn="a", picture="0"), PairKeys(captions=("b", "c"), drawn="b", picture="1")]
    found = match_ids(rows, negatives=("C", "d"), negative_pictures=("0", "9"))
    assert matching(found, 2) == {(1, 2), (2, 0)}


@pytest.mark.parametrize("seed", range(5))
def test_columns_of_ids_say_what_the_keys_say(seed):
    draw = np.random.default_rng(seed)
    captions = [tuple(map(str, draw.integers(0, 6, draw.integers(1, 4)))) for _ in range(8)]
    groups = [tuple(map(str, draw.choice(5, draw.integers(0, 3), replace=False))) for _ in range(8)]
    drawn = [own[0] for own in captions]
    rows = [PairKeys(captions=c, drawn=d, groups=g) for c, d, g in zip(captions, drawn, groups, strict=True)]
    expected = {
        (i, j)
        for i in range(8)
        for j in range(8)
        if i != j and (drawn[j] in captions[i] or set(groups[i]) & set(groups[j]))
    }
    assert matching(match_ids(rows), 8) == expected
