"""Described things found in pictures: heat maps and boxes of labels, by a dual encoder or a detection model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from clipcond.find.boxes import Region, regions_of, scaled, spread, strongest
from clipcond.find.gallery import Unread, plain_pictures
from clipcond.find.heat_maps import HeatMaps, map_shape
from clipcond.find.labels import Label
from clipcond.images.places import cell_at
from clipcond.models.detection import Detector
from clipcond.models.sightings import LEAST, check_texts, segments, sightings

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A place of a label. score: a cosine, or a detection model's probability; of Florence-2, of the words that it wrote.

    box: left, top, right, bottom in pixels.   place: the cell of nine of its strongest point.   rather: another label that
    fits that point better.
    """

    label: str
    score: float
    box: tuple[int, int, int, int]
    place: str
    rather: str | None = None

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"label": self.label, "score": round(self.score, 6), "place": self.place}
        return document | {"box": list(self.box), "rather": self.rather}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DetectedPicture:
    """A picture's places, label by label, best first. absent: labels without one.

    heat: (L, h, w) float32, where maps were asked for and the model makes them.
    """

    path: Path
    width: int
    height: int
    found: tuple[Found, ...]
    absent: tuple[str, ...]
    heat: NDArray[np.float32] | None = None

    def to_json(self) -> dict[str, object]:
        """The row of this picture."""
        return {
            "path": str(self.path),
            "width": self.width,
            "height": self.height,
            "found": [each.to_json() for each in self.found],
            "absent": list(self.absent),
        }


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sight:
    """The regions of each label in a picture's pixels, and their heat. rather: for each region the better label."""

    regions: tuple[tuple[Region, ...], ...]
    rather: tuple[tuple[int | None, ...], ...]
    heat: NDArray[np.float32] | None


class Eye(Protocol):
    """Something that finds labels in pictures. least: the score below which a region is none, where nobody says another."""

    least: float

    def look(self, image: Image.Image) -> Sight:
        """Find every label in an upright picture in RGB."""


class HeatEye:
    """Finds labels by maps of heat, whose peaks they are; of a dual encoder every label has one, there or not."""

    def __init__(self, maps: HeatMaps, *, least: float = -1.0, floor: float | None = None) -> None:
        self._maps, self.least, self._floor = maps, least, floor

    def look(self, image: Image.Image) -> Sight:
        """The regions around each map's peaks."""
        heat = self._maps.of(image)
        across, down = image.width / heat.shape[2], image.height / heat.shape[1]
        found = [regions_of(one, floor=self._floor) for one in heat]
        return Sight(
            regions=tuple(tuple(scaled(each, across, down) for each in regions) for regions in found),
            rather=tuple(
                tuple(_better(heat, number, each) for each in regions) for number, regions in enumerate(found)
            ),
            heat=heat,
        )


def _better(heat: NDArray[np.float32], own: int, region: Region) -> int | None:
    best = int(heat[:, int(region.peak[1]), int(region.peak[0])].argmax())
    return None if best == own else best


class BoxEye:
    """Finds labels with a model that gives boxes: OWL-ViT, OWLv2, Grounding DINO, Florence-2."""

    def __init__(self, detector: Detector, labels: Sequence[Label]) -> None:
        """Raises ModelError for another model, ConfigError for labels that it does not read whole."""
        self._detector, self._count = detector, len(labels)
        self._texts, self._owners = _texts_of(labels)
        check_texts(detector, self._texts)
        self.least = LEAST[detector.family.model_type]

    def look(self, image: Image.Image) -> Sight:
        """Every box, with the label that fits it best."""
        seen = sightings(self._detector, image, self._texts)
        regions: list[list[Region]] = [[] for _ in range(self._count)]
        for (left, top, right, bottom), score, text in zip(
            seen.boxes.tolist(), seen.scores.tolist(), seen.texts.tolist(), strict=True
        ):
            middle = ((left + right) / 2, (top + bottom) / 2)
            regions[self._owners[text]].append(Region(box=(left, top, right, bottom), score=score, peak=middle))
        none = tuple((None,) * len(each) for each in regions)
        return Sight(regions=tuple(map(tuple, regions)), rather=none, heat=None)


class SegmentMaps:
    """CLIPSeg's probabilities as heat; of a label with several texts the highest."""

    def __init__(self, detector: Detector, labels: Sequence[Label]) -> None:
        """Raises ModelError for another model, ConfigError for labels that it does not read whole."""
        self._detector, self._count = detector, len(labels)
        self._texts, self._owners = _texts_of(labels)
        check_texts(detector, self._texts)

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """(L, rows, columns) float32."""
        whole = (0.0, 0.0, float(image.width), float(image.height))
        found = segments(self._detector, image, self._texts)
        heat = spread([found], [whole], image.size, map_shape(*image.size))
        owners = np.array(self._owners)
        return np.stack([heat[owners == number].max(axis=0) for number in range(self._count)])


def detector_eye(detector: Detector, labels: Sequence[Label]) -> Eye:
    """The eye of a detection model. Raises ModelError for one that finds no places, ConfigError for labels it cannot read."""
    if detector.family.model_type == "clipseg":
        return HeatEye(SegmentMaps(detector, labels), least=LEAST["clipseg"], floor=0.0)
    return BoxEye(detector, labels)


def _texts_of(labels: Sequence[Label]) -> tuple[list[str], list[int]]:
    """All texts of all labels, and whose each is."""
    texts = [text for label in labels for text in label.texts]
    return texts, [number for number, label in enumerate(labels) for _ in label.texts]


def detect(
    paths: Sequence[Path],
    eye: Eye,
    labels: Sequence[Label],
    *,
    most: int = 5,
    min_score: float | None = None,
    sure: bool = False,
    keep_heat: bool = False,
    on_progress: Callable[[int], object] = lambda count: None,
) -> tuple[tuple[DetectedPicture, ...], tuple[Unread, ...]]:
    """Find labels in picture files.

    most: places of a label in a picture.   min_score: by default the eye's own.   sure: leave a label out that has only
    places which another label fits better; else the best of these is told.   keep_heat: for a page.
    Returns the pictures and those that could not be read. Raises ModelError for values that are not finite.
    """
    names = [label.name for label in labels]
    least = eye.least if min_score is None else min_score
    pictures, unread = list[DetectedPicture](), list[Unread]()
    for path, image in plain_pictures(paths):
        if isinstance(image, Unread):
            unread.append(image)
        else:
            sight = eye.look(image)
            found, absent = _named(sight, names, image.size, most, least, sure)
            pictures.append(
                DetectedPicture(
                    path=path, width=image.width, height=image.height, found=found, absent=absent,
                    heat=sight.heat if keep_heat else None,
                )
            )  # fmt: skip
        on_progress(1)
    return tuple(pictures), tuple(unread)


def _named(
    sight: Sight, names: Sequence[str], size: tuple[int, int], most: int, least: float, sure: bool
) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """The places that are found, and the labels without any. Of a label without a certain place the best doubtful one."""
    found: list[Found] = []
    for name, regions, rather in zip(names, sight.regions, sight.rather, strict=True):
        better = dict(zip(regions, rather, strict=True))
        good = [each for each in regions if each.score >= least]
        certain = [each for each in good if better[each] is None]
        for region in strongest(certain, most) if certain or sure else strongest(good, 1):
            other = better[region]
            found.append(_found(name, region, size, None if other is None else names[other]))
    there = {each.label for each in found}
    return tuple(found), tuple(name for name in names if name not in there)


def _found(name: str, region: Region, size: tuple[int, int], rather: str | None) -> Found:
    left, top, right, bottom = map(round, region.box)
    return Found(
        label=name,
        score=region.score,
        box=(left, top, right, bottom),
        place=cell_at(region.peak[0] / size[0], region.peak[1] / size[1]),
        rather=rather,
    )
