import gzip
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import read_pairs
from clipcond.train.pixels import prepare

from .pictures import picture, png, said, write_tar

HALF = (0.5, 0.5, 0.5)
WHOLE = Preprocess(height=32, width=32, mean=HALF, std=HALF)


@pytest.mark.parametrize("form", ["folder", "glob", "one"])
def test_tars_are_indexed_for_random_access(pairs_tars, form):
    source = {"folder": pairs_tars, "glob": pairs_tars / "a-*.tar", "one": pairs_tars / "a-1.tar"}[form]
    pairs = read_pairs(source)
    shift = 12 if form == "one" else 0
    assert len(pairs) == 24 - shift
    assert pairs.captions[-1] == (said(23)[0],)
    assert np.array_equal(prepare(pairs.images[15 - shift], WHOLE), np.asarray(picture(15)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": png(0)}, r"a\.png has no caption: there is no a\.txt or a\.json"),
        ({"a.png": png(0), "a.txt": b" \n"}, r"a\.txt: the caption is empty"),
        ({"a.png": png(0), "a.json": b"{"}, r"a\.json: not JSON"),
        ({"a.png": png(0), "a.json": b'{"said": "x"}'}, r"a\.json: no caption; expected a text or a list"),
        ({"a.txt": b"x"}, "holds no pairs"),
    ],
)
def test_unusable_tars_are_one_line(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write_tar(tmp_path / "a.tar", members))


def captions(path, **settings):
    pairs = read_pairs(path, **settings)
    return {image.name: said for image, said in zip(pairs.images, pairs.captions, strict=True)}


def test_a_dot_in_the_name_keeps_every_pair_apart(tmp_path):
    members = {}
    for number in range(5):
        members |= {f"sd1.5_{number}.png": png(number), f"sd1.5_{number}.txt": b"number %d" % number}
    members |= {"shot.1.png": png(6), "shot.2.png": png(7), "shot.2.txt": b"second", "shot.1.txt": b"first"}
    found = captions(write_tar(tmp_path / "a.tar", members))
    assert found == {
        **{f"sd1.5_{number}.png": (f"number {number}",) for number in range(5)},
        "shot.1.png": ("first",),
        "shot.2.png": ("second",),
    }


def test_other_files_of_a_sample_are_not_its_picture_or_caption(tmp_path):
    members = {
        "./1.mask.png": png(1), "./1.png": png(0), "1.txt": b"one", "1.json": b'{"width": 3}', "1.cls": b"7",
        "._1.png": b"junk", "__MACOSX/._1.txt": b"junk", "__MACOSX/1.txt": b"junk", "1.meta.json": b"{}",
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    assert captions(path) == {"./1.png": ("one",)}
    assert read_pairs(path).notes == ()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"shot.1.png": png(0), "shot.txt": b"x"},
            r"a\.tar:shot\.1\.png and shot\.txt cannot be paired; .* shot\.1\.txt or",
        ),
        ({"1.mask.png": png(0), "1.txt": b"x"}, r"a\.tar:1\.mask\.png and 1\.txt cannot be paired"),
        ({"1.png": png(0), "1.en.txt": b"x"}, r"1\.png and 1\.en\.txt cannot be paired; .* would be 1\.txt or 1\.json"),
        ({"1.png": png(0), "1.webp": png(0), "1.txt": b"x"}, r"1\.png and 1\.webp are both the picture of one caption"),
        ({"1.png": png(0), "1.txt": "café".encode("latin-1")}, r"1\.txt: the byte 0xe9 is not UTF-8"),
        ({"1.png": png(0), "1.json": b"[" * 100_000}, r"1\.json: JSON that is nested too deeply"),
        ({"1.png": png(0), "1.txt": b"x" * ((1 << 20) + 1)}, r"1\.txt: longer than 1 MiB, which is no caption"),
    ],
)
def test_members_that_cannot_be_paired_are_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write_tar(tmp_path / "a.tar", members))


def test_a_caption_without_a_picture_is_a_note(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(0), "1.txt": b"x", "2.txt": b"y", "3.txt": b"z"})
    assert read_pairs(path).notes == (f"{path}: 2.txt and 1 more have no picture",)


def test_bad_members_are_left_out_up_to_the_limit(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(0), "2.png": png(1), "2.txt": b"two"})
    pairs = read_pairs(path, max_bad_rows=1)
    assert pairs.captions == [("two",)]
    assert pairs.left_out == (f"{path}:1.png has no caption: there is no 1.txt or 1.json beside it",)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_compressed_tars_are_unpacked_and_named_by_their_own_name(tmp_path, name):
    plain = write_tar(tmp_path / "plain.tar", {"1.png": png(3), "1.txt": b"three"})
    packed = tmp_path / name
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    for source in (packed, tmp_path):
        pairs = read_pairs(source)
        assert str(pairs.images[0]) == f"{packed}:1.png"
        assert np.array_equal(prepare(pairs.images[0], WHOLE), np.asarray(picture(3)))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{name} is not a readable tar.gz: "):
        read_pairs(packed)


def test_a_compressed_tar_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    from clipcond.images import tars

    monkeypatch.setattr(tars, "_MOST_UNPACKED", 0)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(66 << 20)))
    with pytest.raises(DataError, match=r"a\.tar\.gz unpacks to more than 64 MiB, which no pictures do"):
        read_pairs(tmp_path / "a.tar.gz")


def test_brace_patterns_name_tars_in_order(tmp_path):
    for number in range(9, 12):
        name = f"{number:03d}"
        write_tar(tmp_path / f"t-{name}.tar", {f"{name}.png": png(number), f"{name}.txt": name.encode()})
    assert list(captions(tmp_path / "t-{009..011}.tar").values()) == [("009",), ("010",), ("011",)]
    assert list(captions(tmp_path / "t-{011,009}.tar").values()) == [("011",), ("009",)]
    assert list(captions(tmp_path / "t-0{09,1?}.tar").values()) == [("009",), ("010",), ("011",)]
    for pattern, message in [
        ("t-{009..012}.tar", r"t-012\.tar does not exist, which .*t-\{009\.\.012\}\.tar names"),
        ("t-{5..3}.tar", "names no file: its numbers run backwards"),
        ("t-{0..999999999999}.tar", "names more than 100,000 tars"),
    ]:
        with pytest.raises(DataError, match=message):
            read_pairs(tmp_path / pattern)


def header(name, size, kind=tarfile.REGTYPE):
    """A tar header that may claim any size."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("1.png", 2**40), r"1\.png claims 1,099,511,627,776 bytes, but the tar ends after 2,048"),
        (header("1.txt", 2**40), r"1\.txt claims 1,099,511,627,776 bytes"),
        (header("1.bin", 2**40), r"1\.bin claims 1,099,511,627,776 bytes"),
        (header("1.txt", -512), r"1\.txt claims -512 bytes"),
        (header("x", 2**40, tarfile.GNUTYPE_LONGNAME), "a header claims to be 1,099,511,627,776 bytes long"),
        (header("x", 2**40, tarfile.XHDTYPE), "a header claims to be 1,099,511,627,776 bytes long"),
        (header("x", -512, tarfile.XHDTYPE), "is not a readable tar: a header claims to be -512 bytes long"),
    ],
)
def test_nothing_is_allocated_by_what_a_tar_header_claims(tmp_path, content, message):
    path = tmp_path / "a.tar"
    path.write_bytes(content + bytes(1536))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            read_pairs(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_tar_damaged_in_its_middle_is_no_shorter_tar(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(0), "1.txt": b"x", "2.png": png(1), "2.txt": b"y"})
    content = bytearray(path.read_bytes())
    at = content.index(b"2.png")
    content[at : at + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.tar is damaged at byte {at:,}, or was joined with another"):
        read_pairs(path)


def test_two_tars_joined_byte_by_byte_do_not_lose_the_second(tmp_path):
    one = write_tar(tmp_path / "one.tar", {"1.png": png(0), "1.txt": b"x"})
    path = tmp_path / "a.tar"
    path.write_bytes(one.read_bytes() * 2)
    with pytest.raises(DataError, match="or was joined with another: what follows there is not read"):
        read_pairs(path)


def test_links_in_a_tar_are_named(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"1\.png is a link or a sparse file, not a file of its own"):
        read_pairs(path)


@given(st.binary(max_size=1024), st.integers(0, 4000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_bytes_in_a_tar_end_in_a_data_error_or_pairs(tmp_path, junk, at):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(0), "1.txt": b"x"})
    content = path.read_bytes()
    path.write_bytes(content[:at] + junk + content[at + len(junk) :])
    try:
        outcome = str(len(read_pairs(path)))
    except DataError as error:
        outcome = str(error)
    assert outcome not in ("", "0")
    assert "\n" not in outcome


def test_tars_behind_an_address_are_copied_once_and_read(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for number in range(3):
        shard = write_tar(tmp_path / "s.tar", {f"{number}.png": png(number), f"{number}.txt": b"number %d" % number})
        system.pipe(f"/bucket/train-{number:03d}.tar", shard.read_bytes())
    system.pipe("/bucket/readme.txt", b"no tar")
    every = [(f"number {number}",) for number in range(3)]
    for address in ("memory://bucket/train-{000..002}.tar", "memory://bucket/*.tar", "memory://bucket"):
        pairs = read_pairs(address)
        assert (list(pairs.captions), pairs.source) == (every, address)
        assert np.array_equal(prepare(pairs.images[2], WHOLE), np.asarray(picture(2)))
        assert read_pairs(address).images == pairs.images
    with pytest.raises(DataError, match=r"memory://bucket/readme\.txt names no tar; expected addresses that end in"):
        read_pairs("memory://bucket/readme.txt")
    with pytest.raises(DataError, match=r"memory://bucket/none\.tar cannot be read: "):
        read_pairs("memory://bucket/none.tar")
    with pytest.raises(DataError, match=r"nowhere://x/a\.tar cannot be read: "):
        read_pairs("nowhere://x/a.tar")
