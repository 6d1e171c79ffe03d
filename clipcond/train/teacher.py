"""Embeddings of a run's pairs by a model that does not train: computed once, kept in a file, read row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipcond.errors import ConfigError
from clipcond.files import writing
from clipcond.images.image_source import ImageSource
from clipcond.train.data import Pairs
from clipcond.train.parts import Parts, Place
from clipcond.train.pixels import prepare_all
from clipcond.wording import first_line

if TYPE_CHECKING:
    from clipcond.models.load import DualEncoder

ENDING = ".safetensors"
_GROUP = 64  # pictures or captions at once


class TeacherEmbeddings:
    """(N, Q) unit rows of N images and (M, Q) of their M different captions, after `fill`."""

    what = "embeddings by the teacher"

    def __init__(self, spec: str, pairs: Pairs, place: Place, *, out: Path, device: str = "cpu") -> None:
        """spec: a file of stored embeddings, or a model, whose embeddings go to `teacher.safetensors` in `out`.

        place: of the parts until they are whole; embeddings of other pairs and pictures than it names are refused.
        device: where the model computes them; they are kept on the CPU.
        """
        self._spec, self._pairs, self._fingerprints = spec, pairs, dict(place.fingerprints)
        self._device = device
        self._parts = {name: Parts(place, f"teacher-{name}") for name in ("texts", "images")}
        self._given = spec.endswith(ENDING)
        self._path = Path(spec) if self._given else out / f"teacher{ENDING}"
        self._captions: dict[str, int] = {}
        for own in pairs.captions:
            for caption in own:
                self._captions.setdefault(caption, len(self._captions))
        self._images = self._texts = torch.empty(0)
        self.scale = 100.0
        if self._given:
            self._read()

    def of(self, rows: np.ndarray, drawn: np.ndarray) -> tuple[Tensor, Tensor]:
        """(B,) rows of the pairs, and the number of each one's caption, to (B, Q) unit rows of each, float32."""
        said = [self._captions[self._pairs.captions[row][number]] for row, number in zip(rows, drawn, strict=True)]
        return self._images[torch.from_numpy(rows)].float(), self._texts[torch.tensor(said)].float()

    def fill(self) -> int:
        """Embed all pairs, unless that is done already; return the bytes. Raises DataError, ModelError, OSError."""
        if not self._given and not self._read():
            self._embed()
            self._write()
            for parts in self._parts.values():
                parts.remove()
        return self._images.nbytes + self._texts.nbytes

    @property
    def kept(self) -> int:
        """The rows of captions and pictures that are in files."""
        return sum(parts.kept for parts in self._parts.values())

    def forget(self) -> None:
        """Nothing: its file is for other runs, too."""

    def _embed(self) -> None:
        from clipcond.models.load import load_dual

        dual = load_dual(self._spec, device=self._device)
        self.scale = dual.logit_scale
        sources, captions = self._pairs.images, list(self._captions)
        order = sorted(range(len(captions)), key=lambda number: len(captions[number]))
        texts = self._parts["texts"].fill(
            len(order), _GROUP, lambda rows: dual.texts.embed([captions[n] for n in order[rows]])
        )
        self._texts = torch.empty_like(texts)
        self._texts[torch.tensor(order)] = texts
        self._images = self._parts["images"].fill(len(sources), _GROUP, lambda rows: _embed_images(dual, sources[rows]))

    def _write(self) -> None:
        from safetensors.torch import save

        told = {"scale": repr(self.scale), "teacher": self._spec, **self._fingerprints}
        with writing(self._path, overwrite=True) as file:
            file.write(save({"images": self._images.contiguous(), "texts": self._texts.contiguous()}, metadata=told))

    def _read(self) -> bool:
        """Read the file; False where a run has none of these pairs yet. Raises ConfigError for a given one that will not do."""
        from safetensors import SafetensorError, safe_open

        if not self._given and not self._path.is_file():
            return False
        try:
            with safe_open(self._path, framework="pt") as file:
                told, found = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"teacher {self._path} cannot be read: {first_line(error)}") from error
        if problem := self._problem(told, found):
            if self._given:
                raise ConfigError(f"teacher {self._path} {problem}; name the model instead, and it is made")
            return False
        self._images, self._texts, self.scale = found["images"], found["texts"], float(told["scale"])
        return True

    def _problem(self, told: Mapping[str, str], found: Mapping[str, Tensor]) -> str | None:
        if set(found) != {"images", "texts"} or "scale" not in told:
            return "holds no embeddings of a teacher"
        if any(told.get(name) != value for name, value in self._fingerprints.items()):
            return "was made of other pairs or pictures"
        if (len(found["images"]), len(found["texts"])) != (len(self._pairs), len(self._captions)):
            return f"holds {len(found['images'])} images, the data {len(self._pairs)}"
        if not self._given and told.get("teacher") != self._spec:
            return "is of another teacher"
        return None


def _embed_images(dual: DualEncoder, sources: Sequence[ImageSource]) -> Tensor:
    return normalize(dual.image.embed_pixels(prepare_all(sources, dual.image.preprocess)).float(), dim=-1).cpu()
