"""Other tools that make prompt embeds of a Stable Diffusion 1 pipeline, each called as its own documentation says.

None is installed by clipcond. compel: README of https://github.com/damian0815/compel, section "Long prompts".
sd_embed: `get_weighted_text_embeddings_sd15` of https://github.com/xhinker/sd_embed. lpw: `get_weighted_text_embeddings` of
diffusers' community file `lpw_stable_diffusion.py`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from clipcond.errors import ModelError, ResourceMissing
from clipcond.runtime.quiet import quiet_loading
from clipcond.wording import first_line

EncodeBoth = Callable[[str, str], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool, and the settings with which a Conditioner should give the same.

    module: what is imported.   package: the distribution that tells its version, None for a single file.
    dialect: whose syntax it reads.   open: from the module and a pipeline to a function of prompt and negative prompt that
    returns the states (1, T, D) of both.   get: one line for those who do not have it.
    """

    name: str
    module: str
    package: str | None
    dialect: str
    weighting: str
    chunking: str
    open: Callable[[Any, Any], EncodeBoth]
    get: str

    def version(self) -> str | None:
        """Return the version of the installed package, None where there is none to ask."""
        try:
            return version(self.package) if self.package else None
        except PackageNotFoundError:
            return None

    def load(self, folder: Path | None = None) -> Any:
        """Import the tool. folder: where its module lies, if it is not installed.

        Raises ResourceMissing, saying how to get it, and ModelError for one that is there and cannot be imported.
        """
        try:
            with _importable(folder), quiet_loading():
                return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing and f"{self.module}.".startswith(f"{missing}."):
                raise ResourceMissing(f"{self.name} is not there: {self.get}") from error
            raise ModelError(f"{self.name} needs {missing}, which is not installed: pip install {missing}") from error
        except Exception as error:
            raise self._unusable(error) from error

    def encoder(self, module: Any, pipe: Any) -> EncodeBoth:
        """Open the imported tool for a pipeline. Raises ModelError where the tool refuses."""
        try:
            with quiet_loading():
                return self.open(module, pipe)
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ModelError:
        return ModelError(f"{self.name} cannot be used here: {type(error).__name__}: {first_line(error)}")


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules be imported from a folder, too."""
    if folder is None:
        yield
        return
    place = str(folder.resolve())
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)


def _compel(module: Any, pipe: Any) -> EncodeBoth:
    compel = module.Compel(
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        textual_inversion_manager=module.DiffusersTextualInversionManager(pipe),
        truncate_long_prompts=False,
    )

    def encode(prompt: str, negative: str) -> tuple[Tensor, Tensor]:
        positive, other = compel.pad_conditioning_tensors_to_same_length([compel(prompt), compel(negative)])
        return positive, other

    return encode


class _With:
    """An object with some attributes more, for tools that reach for what their libraries no longer have."""

    def __init__(self, base: Any, **own: Any) -> None:
        self._base = base
        self.__dict__.update(own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._base(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


def _sd_embed(module: Any, pipe: Any) -> EncodeBoth:
    encoder = pipe.text_encoder
    with_model = _With(encoder, text_model=getattr(encoder, "text_model", encoder))  # transformers had it until 5.5
    older = _With(pipe, text_encoder=with_model)

    def encode(prompt: str, negative: str) -> tuple[Tensor, Tensor]:
        positive, other = module.get_weighted_text_embeddings_sd15(
            older, prompt=prompt, neg_prompt=negative, pad_last_block=True
        )
        return positive, other

    return encode


def _lpw(module: Any, pipe: Any) -> EncodeBoth:
    def encode(prompt: str, negative: str) -> tuple[Tensor, Tensor]:
        positive, other = module.get_weighted_text_embeddings(pipe=pipe, prompt=prompt, uncond_prompt=negative)
        return positive, other

    return encode


def own_tool(named: str, *, dialect: str, weighting: str, chunking: str) -> Tool:
    """A function of the user's own, `module:function`: (pipeline, prompt, negative prompt) → the states (1, T, D) of both."""
    module, _, function = named.partition(":")
    return Tool(
        name=named,
        module=module,
        package=None,
        dialect=dialect,
        weighting=weighting,
        chunking=chunking,
        open=lambda loaded, pipe: partial(getattr(loaded, function), pipe),
        get=f"write {function}(pipe, prompt, negative) in {module}.py, and give its folder with --path",
    )


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="compel",
            module="compel",
            package="compel",
            dialect="compel",
            weighting="compel",
            chunking="compel-sentences",
            open=_compel,
            get="pip install compel",
        ),
        Tool(
            name="sd_embed",
            module="sd_embed.embedding_funcs",
            package="sd_embed",
            dialect="a1111",
            weighting="sd_embed",
            chunking="a1111",
            open=_sd_embed,
            get="pip install git+https://github.com/xhinker/sd_embed.git",
        ),
        Tool(
            name="lpw",
            module="lpw_stable_diffusion",
            package=None,
            dialect="a1111",
            weighting="a1111",
            chunking="a1111",
            open=_lpw,
            get="save examples/community/lpw_stable_diffusion.py of github.com/huggingface/diffusers, and give its folder "
            "with --path",
        ),
    )
}
