"""Encoders of each model family in the order of the pipeline, with their limits and pad ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from clipcond.prompt.chats import (
    BARE,
    FLUX2,
    FLUX2_KLEIN,
    HUNYUAN_VIDEO,
    KANDINSKY5,
    KANDINSKY5_VIDEO,
    KANDINSKY6,
    LUMINA2,
    QWEN_IMAGE,
    SANA,
    Z_IMAGE,
)
from clipcond.prompt.language import Chat
from clipcond.prompt.tokenizer import BOS, CONTENT, CONTEXT, EOS

Family = Literal["sd15", "sd2", "sdxl", "sd3", "flux"]  # those that encoders are trained and exported for
T5_EOS, T5_PAD = 1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """One text encoder of a family.

    limit: content tokens that a stock pipeline gives it; special tokens come on top (2 for CLIP, whose chunks have as many
    places, 1 for T5).
    pad_id: what fills a sequence on the right.   kind: a CLIP's longer prompts are laid out in several chunks, a T5 reads
    them as one sequence, a language model as part of a `chat`, whose end is cut off at the limit.
    pads_apart: the tokenizer reads every `!` of a text as the padding token of that name, id 0, as transformers'
    tokenizers of OpenCLIP's towers do; open_clip itself does not.
    """

    name: str
    limit: int
    pad_id: int
    kind: Literal["clip", "t5", "language"] = "clip"
    pads_apart: bool = False
    chat: Chat | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Tokens around the content of a sequence: an opening id or none, a closing id, padding up to `length`."""

    opening: int | None
    closing: int
    length: int

    @property
    def content(self) -> int:
        """Return the number of places for content tokens."""
        return self.length - 1 - (self.opening is not None)


def clip_frame(content: int) -> Frame:
    """A CLIP sequence with places for so many content tokens."""
    return Frame(opening=BOS, closing=EOS, length=content + CONTEXT - CONTENT)


CLIP_FRAME = clip_frame(CONTENT)

# OpenCLIP's text towers pad with `!`, id 0
_L = Encoder(name="clip_l", limit=CONTENT, pad_id=EOS)
_G = Encoder(name="clip_g", limit=CONTENT, pad_id=0, pads_apart=True)
_LONG = 126  # content tokens of HiDream's towers, which have more positions than its pipeline gives them
_H = Encoder(name="clip_h", limit=CONTENT, pad_id=0, pads_apart=True)


def _t5(positions: int, name: str = "t5") -> Encoder:
    return Encoder(name=name, limit=positions - 1, pad_id=T5_PAD, kind="t5")


def _language(name: str, limit: int, chat: Chat) -> Encoder:
    return Encoder(name=name, limit=limit, pad_id=0, kind="language", chat=chat)


FAMILIES: Mapping[str, Mapping[str, Encoder]] = {
    family: {encoder.name: encoder for encoder in encoders}
    for family, encoders in {
        "sd15": (_L,),
        "sd2": (_H,),
        "sdxl": (_L, _G),
        "sd3": (_L, _G, _t5(256)),
        "flux": (_L, _t5(512)),
        "hidream": (replace(_L, limit=_LONG), replace(_G, limit=_LONG), _t5(128), _language("llama", 128, BARE)),
        "cascade": (Encoder(name="clip_g", limit=CONTENT, pad_id=EOS),),
        "hunyuan-video": (_language("llama", 256, HUNYUAN_VIDEO), _L),
        "kandinsky5": (_language("qwen", 510, KANDINSKY5), _L),
        "kandinsky5-video": (_language("qwen", 510, KANDINSKY5_VIDEO), _L),
        "kandinsky6": (_language("qwen", 1024, KANDINSKY6), _L),
        "pixart-alpha": (_t5(120),),
        "pixart-sigma": (_t5(300),),
        "chroma": (_t5(512),),
        "wan": (_t5(512, "umt5"),),
        "auraflow": (_language("pile-t5", 255, BARE),),
        "sana": (_language("gemma", 298, SANA),),
        "lumina2": (_language("gemma", 256, LUMINA2),),
        "qwen-image": (_language("qwen", 512, QWEN_IMAGE),),
        "z-image": (_language("qwen", 512, Z_IMAGE),),
        "flux2": (_language("mistral", 512, FLUX2),),
        "flux2-klein": (_language("qwen", 512, FLUX2_KLEIN),),
    }.items()
}


def t5_frame(content: int, limit: int) -> Frame:
    """A T5 sequence of so many content tokens: one EOS at the end, and never cut, so longer than the limit if need be."""
    return Frame(opening=None, closing=T5_EOS, length=max(content, limit) + 1)
