"""Retrain CLIP encoders on image-caption pairs.

The package is callable: `clipcond.train(…)` is `clipcond.train.loop.train(…)`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from clipcond.train.loop import train

        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
