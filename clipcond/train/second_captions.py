"""Second captions: what a pipeline's second text encoder reads beside the caption that the first one reads."""

from __future__ import annotations

from dataclasses import replace

from clipcond.train.config import TrainConfig
from clipcond.train.data import Pairs
from clipcond.train.encoders import SECOND, TWO_ENCODERS


def for_encoder(target: str | None, pairs: Pairs) -> Pairs:
    """Return the pairs with the captions of the encoder that trains: of a second one both are exchanged, where there are any."""
    if target not in SECOND or not any(each.seconds for each in pairs.relations):
        return pairs
    own = [each.seconds or said for each, said in zip(pairs.relations, pairs.captions, strict=True)]
    relations = [replace(each, seconds=said) for each, said in zip(pairs.relations, pairs.captions, strict=True)]
    return replace(pairs, captions=own, relations=relations)


def beside(pairs: Pairs, row: int, number: int) -> str:
    """Return what the other encoder reads beside one caption of an image: the caption itself where nothing else is said."""
    seconds = pairs.relations[row].seconds if pairs.relations else ()
    return (seconds or pairs.captions[row])[number]


def second_captions_notes(pairs: Pairs, config: TrainConfig) -> list[str]:
    """Say what becomes of the second captions of the data, where it has any."""
    if not any(each.seconds for each in pairs.relations):
        return []
    if config.target in SECOND:
        return [
            f"{config.target} trains on caption_2 of the data; the other encoder, where a loss asks it, reads caption"
        ]
    if config.target in TWO_ENCODERS and config.denoise_weight:
        return [f"{config.target} trains on caption of the data; the other encoder reads caption_2"]
    return ["caption_2 of the data is for the second text encoder of a pipeline; this run does not read it"]
