"""Proofs of one tiny pipeline: its own encoding against clipcond's, and pictures of long, weighted and repeated prompts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from clipcond.diffusion.conditioner import Conditioner
from clipcond.wording import first_line
from tiny_pipelines.calls import COUNTED, NEGATIVE, PROMPT, arguments, taken

PLAIN = "a red fox in the snow, " * 20 + "a blue bird"  # two chunks of CLIP
WEIGHTED = "a (red:1.6) fox in the snow, " * 20 + "a blue bird"
LONG_NEGATIVE = "a blurry grey photo, " * 20
_DENOISERS = ("unet", "transformer", "prior", "decoder", "prior_prior")
_TEXT = ("encoder_hidden_states", "text_embed", "pooled", "clip_text", "timestep_cond", "proj_embedding")
_MASK = "encoder_attention_mask"
_PICTURES = ("image", "video", "image_embeddings", "token_indices")
_PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt")


BY_CALL, EACH, NEITHER = "call", "each", "nor own"
CLOSE = 1e-5


def doubled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pictures among some arguments, each twice."""
    found = {name: given[name] for name in _PICTURES if name in given}
    return {
        name: torch.cat([each, each]) if isinstance(each, torch.Tensor) else [each, each]
        for name, each in found.items()
    }


@dataclass(frozen=True, slots=True)
class Run:
    """A call: its pictures (N, …), and the tensors of text that each call of a denoiser read."""

    pictures: torch.Tensor
    texts: tuple[Mapping[str, torch.Tensor], ...]

    @property
    def positions(self) -> int:
        """The most positions of text that a denoiser read."""
        states = [each for call in self.texts for each in call.values() if each.ndim == 3]
        return max((each.shape[1] for each in states), default=self.pictures.shape[1] if not self.texts else 0)


def text_difference(one: Run, two: Run) -> float:
    """Return the largest difference of the text that denoisers read; of the results where a pipeline has no denoiser."""
    if not one.texts:
        return float((one.pictures - two.pictures).abs().max())
    calls = zip(map(_attended, one.texts), map(_attended, two.texts), strict=True)
    pairs = [(call[name], other[name]) for call, other in calls for name in call]
    wrong = next((f"{tuple(a.shape)} and {tuple(b.shape)}" for a, b in pairs if a.shape[1:] != b.shape[1:]), "")
    if wrong:
        raise AssertionError(f"texts of shape {wrong}")
    return max(float((a - b).abs().max()) for a, b in pairs)


def _attended(call: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The text of a call without positions that its mask hides; the texts of a call are of one length."""
    mask = call.get(_MASK)
    rest = {name: each for name, each in call.items() if name != _MASK}
    if mask is None:
        return rest
    length = int(mask.sum(dim=-1).max())
    return {name: each[:, :length] if each.ndim == 3 else each for name, each in rest.items()}


def picture_difference(one: Run, two: Run) -> float:
    """Return the largest difference of the pictures, where 1 is the largest value in them."""
    return float((one.pictures - two.pictures).abs().max() / one.pictures.abs().max())


@dataclass(frozen=True)
class Proofs:
    """The proofs of a pipeline, each measured when it is asked for."""

    pipe: Any

    @cached_property
    def conditioner(self) -> Conditioner:
        """The Conditioner of the pipeline."""
        return Conditioner.from_pipeline(self.pipe)

    @property
    def two_sides(self) -> bool:
        """True if the call takes the negative side as embeds."""
        return any(name.startswith("negative_prompt_emb") for name in self.conditioner.pipeline.takes)

    def run(self, given: Mapping[str, Any]) -> Run:
        """Call the pipeline with some text."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated classes
            more = arguments(self.pipe)
            with _texts_read(self.pipe) as texts:
                torch.manual_seed(0)
                result = self.pipe(**{**more, **given})
        pictures = _as_tensor(next(iter(result.values())) if isinstance(result, Mapping) else result[0])
        if not bool(torch.isfinite(pictures).all()):
            raise AssertionError("the picture is not finite")
        return Run(pictures, tuple(texts))

    def own(self, prompt: Any = PROMPT, negative: Any = NEGATIVE, **more: Any) -> Run:
        """Call the pipeline with words."""
        texts = {"prompt": prompt, "editing_prompt": [prompt], "negative_prompt": negative}
        return self.run({name: text for name, text in texts.items() if name in taken(self.pipe)} | more)

    def ours(
        self, prompt: Any = PROMPT, negative: Any = NEGATIVE, call: Mapping[str, Any] | None = None, **settings: Any
    ) -> Run:
        """Call the pipeline with clipcond's conditioning of words. call: further arguments of the call."""
        if getattr(self.conditioner.pipeline.shape, "shown", False):  # a language model reads the picture of the call
            settings["image"] = (call or {}).get("image", arguments(self.pipe)["image"])
        out = self.conditioner(prompt, negative, dialect="a1111", **settings)
        words = taken(self.pipe).get("prompt")
        more = dict(call or {})
        if words is not None and words.default is inspect.Parameter.empty:
            more["prompt"] = PROMPT if type(self.pipe).__name__ in COUNTED else None
        return self.run({**out.kwargs, **more})

    @cached_property
    def short(self) -> Run:
        """The picture of a short prompt."""
        return self.ours()

    @cached_property
    def stock(self) -> Run:
        """The picture of the same words by the pipeline's own encoding."""
        return self.own()

    @cached_property
    def long(self) -> Run:
        """The picture of a long prompt and a long negative one."""
        return self.ours(PLAIN, LONG_NEGATIVE)

    def text(self) -> float:
        """The difference of clipcond's text from the pipeline's own."""
        return text_difference(self.stock, self.short)

    def picture(self) -> float:
        """The difference of the picture from that of the pipeline's own text."""
        return picture_difference(self.stock, self.short)

    def long_prompt(self) -> int:
        """The positions of a long prompt that the denoiser read."""
        return self.long.positions

    def long_negative(self) -> float | None:
        """The change of the picture when a long negative prompt becomes a short one; None without a negative side."""
        return picture_difference(self.long, self.ours(PLAIN)) if self.two_sides else None

    def weights(self) -> float:
        """The change of the picture when a word is weighted."""
        return picture_difference(self.long, self.ours(WEIGHTED, LONG_NEGATIVE))

    def images(self) -> float | str:
        """The difference of clipcond's text from the pipeline's own for two pictures of a prompt.

        A word where the call wants more for two: `BY_CALL` the number itself, `EACH` its pictures twice; `NEITHER` where
        two fail with words as well.
        """
        name = next((each for each in _PER_PROMPT if each in taken(self.pipe)), "")
        number, twice = ({name: 2} if name else {}), doubled(arguments(self.pipe, prepared=False))
        words = {"prompt": [PROMPT] * 2, "negative": [NEGATIVE] * 2}
        _, theirs = self._first_of_two(
            {
                "": lambda: self.own(**number),
                "list": lambda: self.own(**words),
                EACH: lambda: self.own(**words, **twice),
            }
        )
        if theirs is None:
            return NEITHER
        said, ours = self._first_of_two(
            {
                "": lambda: self.ours(num_images_per_prompt=2),
                BY_CALL: lambda: self.ours(call=number),
                EACH: lambda: self.ours(num_images_per_prompt=2, call=twice),
            }
        )
        if ours is None:
            raise AssertionError("no two pictures of a prompt")
        difference = text_difference(theirs, ours)
        return said if said and difference <= CLOSE else difference

    def _first_of_two(self, ways: Mapping[str, Callable[[], Run]]) -> tuple[str, Run | None]:
        """The first way that draws two pictures, and its picture."""
        for said, way in ways.items():
            try:
                run = way()
            except Exception:  # a pipeline that cannot draw two so says it in many ways
                continue
            if len(run.pictures) == 2 * len(self.short.pictures):
                return said, run
        return "", None

    def offload(self) -> float | str:
        """The difference of the text and the picture when all weights are elsewhere until a module runs.

        `NEITHER` where the pipeline's own encoding fails then, too.
        """
        before = self.short
        try:
            with _offloaded(self.pipe):
                after = Proofs(self.pipe).ours()
        except (
            NotImplementedError,
            RuntimeError,
        ):  # of a module that computes beside its forward, or stands in two places
            if self._own_offloaded_fails():
                return NEITHER
            raise
        return max(text_difference(before, after), picture_difference(before, after))

    def _own_offloaded_fails(self) -> bool:
        try:
            with _offloaded(self.pipe):
                self.own()
        except (NotImplementedError, RuntimeError):
            return True
        return False


MEASURES: Mapping[str, Callable[[Proofs], float | str | None]] = {
    "text": Proofs.text,
    "picture": Proofs.picture,
    "long": Proofs.long_prompt,
    "weights": Proofs.weights,
    "negative": Proofs.long_negative,
    "images": Proofs.images,
    "offload": Proofs.offload,
}


def measured(pipe: Any) -> dict[str, float | str | None]:
    """Return all proofs of a pipeline: numbers, None where a proof does not apply, the reason where one failed."""
    proofs = Proofs(pipe)
    found: dict[str, float | str | None] = {}
    for name, measure in MEASURES.items():
        try:
            found[name] = measure(proofs)
        except Exception as error:  # whatever a pipeline raises is a finding
            found[name] = f"{type(error).__name__}: {first_line(error)}"
    return found


@contextmanager
def _offloaded(pipe: Any) -> Iterator[None]:
    """Take all weights away between forwards, as `enable_sequential_cpu_offload` does, with the CPU in the place of a GPU."""
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_module

    modules = [
        each
        for name, each in pipe.components.items()
        if isinstance(each, torch.nn.Module) and name not in pipe._exclude_from_cpu_offload
    ]
    try:
        for each in modules:
            cpu_offload(each, torch.device("cpu"), offload_buffers=bool(each._parameters))
        yield
    finally:
        for each in modules:
            remove_hook_from_module(each, recurse=True)


@contextmanager
def _texts_read(pipe: Any) -> Iterator[list[Mapping[str, torch.Tensor]]]:
    """Record the tensors of text that the denoisers of a pipeline are called with."""
    calls: list[Mapping[str, torch.Tensor]] = []

    def record(_: Any, __: Any, given: Mapping[str, Any]) -> None:
        calls.append({name: each for name, each in _named("", given) if _is_text(name)})

    modules = [getattr(pipe, name, None) for name in _DENOISERS]
    hooks = [
        each.register_forward_pre_hook(record, with_kwargs=True)
        for each in modules
        if isinstance(each, torch.nn.Module)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _is_text(name: str) -> bool:
    return name == "c" or any(word in name for word in (*_TEXT, _MASK))  # c: of Würstchen's prior


def _named(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value.detach().float().clone()
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named(f"{name}.{key}" if name else str(key), each)


def _as_tensor(value: Any) -> torch.Tensor:
    """The pictures, frames or latents of a result as one tensor."""
    if isinstance(value, torch.Tensor):
        return value.detach().float()
    if isinstance(value, (list, tuple)):
        return torch.stack([_as_tensor(each) for each in value])
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
