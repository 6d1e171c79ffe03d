"""UserComments in every spelling."""

from __future__ import annotations

import random

import pytest

from clipcond.images.metadata.user_comment import decode_user_comment

UNICODE_CAT = bytes.fromhex("554e49434f444500 00610020006300610074")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UNICODE_CAT, "a cat"),
        (b"UNICODE\0" + "a cat".encode("utf-16-le"), "a cat"),
        (b"UNICODE\0" + "a cat".encode("utf-16"), "a cat"),
        (b"UNICODE\0" + "猫 a".encode("utf-16-be") + b"\0", "猫 a"),
        (b"UNICODE\0", ""),
        (b"ASCII\0\0\0a cat\0\0", "a cat"),
        (bytes(8) + "a cät".encode(), "a cät"),
        (b"JIS\0\0\0\0\0" + "猫".encode("shift_jis"), "猫"),
        (b"STRANGE!a cat", "STRANGE!a cat"),
        (b"a red fox in the snow", "a red fox in the snow"),
        (b"a fox", "a fox"),
        ("狐狸在雪地里".encode(), "狐狸在雪地里"),
        (b"UNICODE\0a red fox in the snow", "a red fox in the snow"),
        (b"UNICODE\0" + "ein Füchslein".encode(), "ein Füchslein"),
        (b"UNICODE\0" + "狐狸在雪地里".encode("utf-16-be"), "狐狸在雪地里"),
        (b"Unicode\0" + "キツネ".encode("utf-16-be"), "キツネ"),
        (b"UTF-8\0\0\0" + "狐狸".encode(), "狐狸"),
        (b"ASCII\0\0\0" + "狐狸".encode(), "狐狸"),
        (bytes(range(128, 160)), ""),
        (bytes(40), ""),
        (b"", ""),
    ],
)
def test_character_codes_as_tools_really_write_them(value: bytes, text: str) -> None:
    assert decode_user_comment(value) == text


def test_chinese_utf_16_of_the_blocks_own_order() -> None:
    text = "狐狸在雪地里"
    assert decode_user_comment(b"UNICODE\0" + text.encode("utf-16-le"), big_endian=False) == text
    assert decode_user_comment(b"UNICODE\0" + text.encode("utf-16-be"), big_endian=True) == text


@pytest.mark.parametrize(
    "text", ["лиса в снегу", "лиса", "αλεπού", "ثعلب أحمر", "สุนัขจิ้งจอก", "लोमड़ी", "빨간 여우", "a 🦊, “red”"]
)
@pytest.mark.parametrize("big_endian", [True, False])
def test_every_script_in_every_spelling(text: str, big_endian: bool) -> None:
    codec = "utf-16-be" if big_endian else "utf-16-le"
    for value in (text.encode(), b"UNICODE\0" + text.encode(), b"UNICODE\0" + text.encode(codec)):
        assert decode_user_comment(value, big_endian) == text


def test_bytes_of_a_camera_are_no_text() -> None:
    for seed in range(200):
        blob = random.Random(seed).randbytes(64)
        assert decode_user_comment(b"\x01\x02" + blob) == ""
        assert decode_user_comment(bytes(1) + blob, big_endian=False) == ""
