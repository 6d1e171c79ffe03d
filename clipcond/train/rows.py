"""Rows of training data as files hold them: an image's name and its captions; and rows that will not do."""

from __future__ import annotations

from dataclasses import dataclass

from clipcond.errors import DataError
from clipcond.wording import visible

IMAGE_COLUMNS = ("image", "path", "filepath", "file_name", "url")
CAPTION_COLUMNS = ("caption", "captions", "title", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRow:
    """An image and its captions as one row names them. where: the row's place, for messages."""

    where: str
    image: str
    captions: tuple[str, ...]


class BadRows:
    """Rows that are left out, up to a limit; the next one is the error that ends the reading."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.reasons: list[str] = []

    def leave_out(self, error: DataError) -> None:
        """Leave out the row that an error names. Raises the error beyond the limit."""
        if len(self.reasons) < self.limit:
            self.reasons.append(str(error))
        elif self.limit:
            raise DataError(f"{error} (max_bad_rows is {self.limit}, and so many are left out already)")
        else:
            raise error


def pair_row(where: str, image: str, captions: tuple[str, ...]) -> PairRow | DataError:
    """Return the row, or an error that names its fault: no image, a web address, an empty caption, characters that are none."""
    if not image:
        return DataError(f"{where}: the image path is empty")
    if image.lower().startswith(("http://", "https://")):
        return DataError(
            f"{where}: {visible(image)} is a web address; download the pictures first and name their files"
        )
    if not captions or not all(caption.strip() for caption in captions):
        return DataError(f"{where}: the caption of {visible(image)} is empty")
    for text in (image, *captions):
        if problem := problem_with(text):
            return DataError(f"{where}: {problem}")
    return PairRow(where=where, image=image, captions=captions)


def problem_with(text: str) -> str | None:
    """Name the first character of a text that UTF-8 cannot hold; None without one. Bytes of other encodings are surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"the byte 0x{code - 0xDC00:02x} is not UTF-8; save the file as UTF-8"
        return f"half a character (\\u{code:04x}), where a whole one was expected"
    return None


def captions_of(record: object, where: str) -> tuple[str, ...]:
    """Return the captions of a JSON object: a text, or a list of texts. Raises DataError."""
    value = _first(record, CAPTION_COLUMNS)
    said = [value] if isinstance(value, str) else value
    if not isinstance(said, list) or not said or not all(isinstance(caption, str) for caption in said):
        names = ", ".join(CAPTION_COLUMNS)
        raise DataError(f"{where}: no caption; expected a text or a list of texts in one of {names}")
    return tuple(said)


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
