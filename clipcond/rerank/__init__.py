"""Score pictures against prompts and put them in order.

The package is callable: `clipcond.rerank(…)` is `clipcond.rerank.ranking.rerank(…)`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from clipcond.rerank.ranking import rerank

        return rerank(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
