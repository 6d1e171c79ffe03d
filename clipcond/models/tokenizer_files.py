"""Tokenizers and text configs of transformers, from a folder, the cache or the hub. Nothing of theirs is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipcond.encode.tokenizers import LibraryTokenizer
from clipcond.errors import ModelError
from clipcond.files import write_file
from clipcond.models.checks import check_numbers
from clipcond.models.folder_models import TOKENIZER_FILES, has_tokenizer
from clipcond.runtime.hub import offline_where_unreachable, why_not
from clipcond.runtime.quiet import quiet_calls, quiet_logs
from clipcond.runtime.torchvision_repair import repair
from clipcond.wording import first_line, visible

TEXT_MODELS = ("roberta", "xlm-roberta", "mt5", "bert", "m2m_100")  # that open_clip builds a text encoder around


def read_tokenizer(spec: str, places: Sequence[str | Path], **settings: Any) -> LibraryTokenizer:
    """Return the tokenizer of the first place that has one: folders first, then a name of the hub or its cache.

    settings: for `LibraryTokenizer`.   Raises ModelError, which names every place that was tried.
    """
    return LibraryTokenizer(read_library_tokenizer(spec, places), **settings)


def read_library_tokenizer(spec: str, places: Sequence[str | Path]) -> Any:
    """The tokenizer of `read_tokenizer` as transformers has it."""
    repair()
    tried = []
    for place in places:
        folder = Path(place).expanduser()
        local = folder.is_dir()
        if local and not has_tokenizer(folder):
            tried.append(f"{folder} (none of {', '.join(TOKENIZER_FILES)})")
            continue
        try:
            with quiet_calls(), quiet_logs(), nullcontext() if local else offline_where_unreachable():
                return _auto_tokenizer(str(folder if local else place))
        except Exception as error:
            tried.append(f"{place} ({first_line(error) if local else why_not(error).removeprefix('are ')})")
    raise ModelError(
        f"the tokenizer of {spec} is not at hand: tried {', '.join(tried)}; "
        "connect once, or state a folder that holds it as ,tokenizer=FOLDER"
    )


def stated_class(tokenizer: Any) -> str:
    """The class that a loaded tokenizer's own file states, which need not be the one that it was loaded by."""
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    return str(get_tokenizer_config(tokenizer.name_or_path).get("tokenizer_class") or "")


def _auto_tokenizer(place: str) -> Any:
    """The tokenizer of its own class; where that wants SentencePiece, which is not installed, of `tokenizer.json`."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except ImportError as error:
        try:
            return PreTrainedTokenizerFast.from_pretrained(place, trust_remote_code=False)
        except Exception:
            raise error from None


@contextmanager
def text_model_folder(spec: str, places: Sequence[str | Path]) -> Iterator[str]:
    """While open, a folder with the config of a text model of transformers and nothing else, to build it from.

    places: folders or names of the hub, of which the first wins that has the config of a kind that open_clip builds a text
    encoder around.   Raises ModelError where none has.
    """
    document = _text_config(spec, places)
    with TemporaryDirectory(prefix="clipcond-") as folder:
        write_file(Path(folder) / "config.json", json.dumps(document))
        yield folder


def _text_config(spec: str, places: Sequence[str | Path]) -> dict[str, Any]:
    repair()
    from transformers import PretrainedConfig

    tried = []
    for place in places:
        folder = Path(place).expanduser()
        local = folder.is_dir()
        if local and not (folder / "config.json").is_file():
            continue
        try:
            with quiet_calls(), quiet_logs(), nullcontext() if local else offline_where_unreachable():
                document, _ = PretrainedConfig.get_config_dict(str(folder if local else place))
        except Exception as error:
            tried.append(f"{place} ({first_line(error) if local else why_not(error).removeprefix('are ')})")
            continue
        if document.get("model_type") not in TEXT_MODELS:
            kind = visible(str(document.get("model_type")))
            tried.append(f"{place} (a {kind}; open_clip builds on {', '.join(TEXT_MODELS)} alone)")
            continue
        check_numbers(f"the config of {place}", document)
        return {name: value for name, value in document.items() if name not in ("auto_map", "_name_or_path")}
    raise ModelError(
        f"the config of the text model of {spec} is not at hand: tried {', '.join(tried) or 'nothing'}; "
        "connect once, or state a folder that holds it as ,tokenizer=FOLDER"
    )
