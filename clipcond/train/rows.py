"""Rows of training data as files hold them: an image's name and its captions; and rows that will not do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from clipcond.errors import DataError
from clipcond.wording import visible

IMAGE_COLUMNS = ("image", "path", "filepath", "file_name", "url")
CAPTION_COLUMNS = ("caption", "captions", "title", "text")
SECOND_COLUMNS = ("caption_2", "captions_2")
NEGATIVE_COLUMNS = ("negative", "negatives", "negative_caption", "negative_captions")
NEGATIVE_IMAGE_COLUMNS = ("negative_image", "negative_images")
GROUP_COLUMNS = ("group", "group_id")
MISSING, EMPTY, NAN, ENCODING, OTHER = "missing file", "empty caption", "missing value", "encoding", "unreadable row"
UNREADABLE = "unreadable picture"
_NO_VALUE = frozenset({"nan", "<na>", "null", "none"})  # what tables of programs have in place of a missing caption
_HIGH_BYTES = re.compile(rb"([A-Za-z]?)([\x80-\xff]+)([A-Za-z]?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """An image and its captions as one row names them. where: the row's place, for messages.

    negatives, negative_images: captions and pictures that are near to these and wrong. groups: rows that share one
    belong together. seconds: what a pipeline's second text encoder reads, one for each caption, or none at all.
    """

    where: str
    image: str
    captions: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    negative_images: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()


class RowError(DataError):
    """A row that will not do. kind: of its fault, by which such rows are counted."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text, kind)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[0])


class BadRows:
    """Rows that are left out, up to a limit; the next one is the error that ends the reading."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.reasons: list[str] = []
        self.kinds: list[str] = []

    def leave_out(self, error: DataError) -> None:
        """Leave out the row that an error names. Raises the error beyond the limit."""
        if len(self.reasons) < self.limit:
            self.reasons.append(str(error))
            self.kinds.append(error.kind if isinstance(error, RowError) else OTHER)
        elif self.limit:
            raise DataError(f"{error} (max_bad_rows is {self.limit}, and so many are left out already)")
        else:
            raise error


def pair_row(
    where: str, image: str, captions: tuple[str, ...], *,
    negatives: tuple[str, ...] = (), negative_images: tuple[str, ...] = (), groups: tuple[str, ...] = (),
    seconds: tuple[str, ...] = (),
) -> PairRow | DataError:  # fmt: skip
    """Return the row, or an error that names its fault: no image, a web address, an empty caption, characters that are none.

    What is optional may be empty texts, which are left out.
    """
    if not image:
        return DataError(f"{where}: the image path is empty")
    optional = {
        "negatives": negatives,
        "negative_images": tuple(name.strip() for name in negative_images),
        "groups": tuple(name.strip() for name in groups),
    }
    given = {name: tuple(text for text in texts if text.strip()) for name, texts in optional.items()}
    for name in (image, *given["negative_images"]):
        if name.lower().startswith(("http://", "https://")):
            return DataError(
                f"{where}: {visible(name)} is a web address; download the pictures first and name their files"
            )
    if any(text.strip() for text in seconds):
        if len(seconds) not in (1, len(captions)):
            return DataError(
                f"{where}: {len(captions)} captions and {len(seconds)} in {SECOND_COLUMNS[0]}; expected one, or one each"
            )
        seconds = seconds * len(captions) if len(seconds) == 1 else seconds
        given["seconds"] = tuple(two if two.strip() else one for one, two in zip(captions, seconds, strict=True))
    for text in (image, *captions, *(text for texts in given.values() for text in texts)):
        if problem := problem_with(text):
            return RowError(f"{where}: {problem}", ENCODING)
    if fault := caption_fault(where, captions, f"the caption of {visible(image)}"):
        return fault
    return PairRow(where=where, image=image, captions=captions, **given)


def caption_fault(where: str, captions: tuple[str, ...], what: str) -> RowError | None:
    """Return the fault of captions that say nothing: none at all, an empty one, a missing value of some program."""
    if not captions or not all(caption.strip() for caption in captions):
        return RowError(f"{where}: {what} is empty", EMPTY)
    for caption in captions:
        if caption.strip().lower() in _NO_VALUE:
            return RowError(f"{where}: {what} is {caption.strip()}, a missing value; expected words", NAN)
    return None


def problem_with(text: str) -> str | None:
    """Name the first character of a text that UTF-8 cannot hold; None without one. Bytes of other encodings are surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            like = f" (it looks like {name})" if (name := _encoding_of(text)) else ""
            return f"the byte 0x{code - 0xDC00:02x} is not UTF-8; save the file as UTF-8{like}"
        return f"half a character (\\u{code:04x}), where a whole one was expected"
    return None


def _encoding_of(text: str) -> str:
    """Name the encoding that a text with bytes of another is probably in: accents among letters, or runs of such bytes."""
    found = _HIGH_BYTES.findall(text.encode("utf-8", "surrogateescape"))
    longest = max((len(run) for _, run, _ in found), default=0)
    if longest > 2:
        return "an encoding of several bytes a character, such as Shift-JIS or GB18030"
    return "Windows-1252 or Latin-1" if any(before or behind for before, _, behind in found) else ""


def captions_of(record: object, where: str) -> tuple[str, ...]:
    """Return the captions of a JSON object: a text, or a list of texts. Raises DataError."""
    value = _first(record, CAPTION_COLUMNS)
    said = [value] if isinstance(value, str) else value
    if isinstance(value, float) and math.isnan(value):
        raise RowError(f"{where}: the caption is NaN, a missing value; expected words", NAN)
    if not isinstance(said, list) or not said or not all(isinstance(caption, str) for caption in said):
        names = ", ".join(CAPTION_COLUMNS)
        raise RowError(f"{where}: no caption; expected a text or a list of texts in one of {names}", EMPTY)
    return tuple(said)


def optional_of(record: object, where: str) -> dict[str, tuple[str, ...]]:
    """Return the optional texts of a JSON object, of each kind none, one, or a list. Raises DataError."""
    columns = {
        "negatives": NEGATIVE_COLUMNS, "negative_images": NEGATIVE_IMAGE_COLUMNS, "groups": GROUP_COLUMNS,
        "seconds": SECOND_COLUMNS,
    }  # fmt: skip
    found = {}
    for name, names in columns.items():
        value = _first(record, names)
        texts = [] if value is None else value if isinstance(value, list) else [value]
        if name == "groups":  # often numbers
            texts = [str(text) if isinstance(text, int) else text for text in texts]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{where}: {visible(names[0])} is {visible(str(value))}, expected a text or a list of texts"
            )
        found[name] = tuple(texts)
    return found


def image_of(record: object, where: str) -> str:
    """Return the image that a JSON object names. Raises DataError."""
    image = _first(record, IMAGE_COLUMNS)
    if not isinstance(image, str):
        raise DataError(f"{where}: no image; expected one of {', '.join(IMAGE_COLUMNS)}")
    return image


def _first(record: object, names: tuple[str, ...]) -> object:
    """Return the value of the first of some names, in any case, that the record has; None without one."""
    if not isinstance(record, dict):
        return None
    values = {str(name).lower(): value for name, value in record.items()}
    return next((values[name] for name in names if name in values), None)
