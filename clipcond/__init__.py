"""clipcond: conditioning for text-to-image models. Importing it imports neither torch nor anything heavy."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from clipcond._version import __version__

_HOME = {
    "Cache": "clipcond.condition.cache",
    "ClipCondError": "clipcond.errors",
    "ClipcondGuider": "clipcond.diffusion.modular_guider",
    "ClipcondTextBlock": "clipcond.diffusion.modular",
    "Conditioner": "clipcond.diffusion.conditioner",
    "Conditioning": "clipcond.diffusion.conditioning",
    "ConfigError": "clipcond.errors",
    "DataError": "clipcond.errors",
    "ImageError": "clipcond.errors",
    "ImageTower": "clipcond.encode.image",
    "Matcher": "clipcond.models.matching",
    "ModelError": "clipcond.errors",
    "OutputExists": "clipcond.errors",
    "PromptSyntaxError": "clipcond.errors",
    "Region": "clipcond.diffusion.regions",
    "ResourceMissing": "clipcond.errors",
    "Scorer": "clipcond.rerank.scorer",
    "ShapeError": "clipcond.errors",
    "TextTower": "clipcond.encode.text",
    "TrainConfig": "clipcond.train.config",
    "adapters_of": "clipcond.diffusion.adapters",
    "composed": "clipcond.diffusion.compose_denoiser",
    "draw_steered": "clipcond.diffusion.counterfactual.drawing",
    "evaluate": "clipcond.train.evaluate",
    "explain": "clipcond.pages.explain",
    "export": "clipcond.workflows.export",
    "load_adapters": "clipcond.diffusion.adapters",
    "load_pipeline": "clipcond.diffusion.pipelines",
    "parse": "clipcond.prompt.dialects.parse",
    "plan": "clipcond.prompt.plan",
    "replace": "clipcond.diffusion.counterfactual.replace",
    "steered": "clipcond.diffusion.counterfactual.denoiser",
    "tokenize": "clipcond.prompt.tokenizer",
    "translate": "clipcond.prompt.dialects.translate",
    "travelled": "clipcond.diffusion.travel",
}
_MODULES = ("mini", "rerank", "train")  # sub-packages that are part of the surface; the last two can be called
__all__ = [*_HOME, *_MODULES, "__version__"]

if TYPE_CHECKING:  # the same names, for editors and mypy
    from clipcond import mini as mini
    from clipcond.condition.cache import Cache as Cache
    from clipcond.diffusion.adapters import adapters_of as adapters_of
    from clipcond.diffusion.adapters import load_adapters as load_adapters
    from clipcond.diffusion.compose_denoiser import composed as composed
    from clipcond.diffusion.conditioner import Conditioner as Conditioner
    from clipcond.diffusion.conditioning import Conditioning as Conditioning
    from clipcond.diffusion.counterfactual.denoiser import steered as steered
    from clipcond.diffusion.counterfactual.drawing import draw_steered as draw_steered
    from clipcond.diffusion.counterfactual.replace import replace as replace
    from clipcond.diffusion.modular import ClipcondTextBlock as ClipcondTextBlock
    from clipcond.diffusion.modular_guider import ClipcondGuider as ClipcondGuider
    from clipcond.diffusion.pipelines import load_pipeline as load_pipeline
    from clipcond.diffusion.regions import Region as Region
    from clipcond.diffusion.travel import travelled as travelled
    from clipcond.encode.image import ImageTower as ImageTower
    from clipcond.encode.text import TextTower as TextTower
    from clipcond.errors import ClipCondError as ClipCondError
    from clipcond.errors import ConfigError as ConfigError
    from clipcond.errors import DataError as DataError
    from clipcond.errors import ImageError as ImageError
    from clipcond.errors import ModelError as ModelError
    from clipcond.errors import OutputExists as OutputExists
    from clipcond.errors import PromptSyntaxError as PromptSyntaxError
    from clipcond.errors import ResourceMissing as ResourceMissing
    from clipcond.errors import ShapeError as ShapeError
    from clipcond.models.matching import Matcher as Matcher
    from clipcond.pages.explain import explain as explain
    from clipcond.prompt.dialects.parse import parse as parse
    from clipcond.prompt.dialects.translate import translate as translate
    from clipcond.prompt.plan import plan as plan
    from clipcond.prompt.tokenizer import tokenize as tokenize
    from clipcond.rerank.ranking import rerank as rerank
    from clipcond.rerank.scorer import Scorer as Scorer
    from clipcond.train.config import TrainConfig as TrainConfig
    from clipcond.train.evaluate import evaluate as evaluate
    from clipcond.train.loop import train as train
    from clipcond.workflows.export import export as export


class _TorchvisionFinder:
    """Stands in front of torchvision's first import, by whomever, and declares what a CPU-only torch lacks for it."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision" and cls in sys.meta_path:
            sys.meta_path.remove(cls)
            from clipcond.runtime.torchvision_repair import repair

            repair()


sys.meta_path.insert(0, _TorchvisionFinder)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"clipcond.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'clipcond' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
