"""An image of a data source with all that the source says of it."""

from __future__ import annotations

from dataclasses import dataclass

from clipcond.images.image_source import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """The relations of an image to others: captions and pictures that are near and wrong, and its groups.

    seconds: what a pipeline's second text encoder reads beside each caption, or none at all.
    """

    negatives: tuple[str, ...] = ()
    negative_images: tuple[ImageSource, ...] = ()
    groups: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """An image, its captions and its relations. repeats: how often it is shown in an epoch."""

    image: ImageSource
    captions: tuple[str, ...]
    relations: Relations = Relations()
    repeats: int = 1
