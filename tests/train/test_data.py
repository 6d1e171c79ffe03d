import pytest

from clipcond.errors import DataError
from clipcond.train.data import read_pairs, split

from .pictures import picture, png, write_tar


def test_absent_files_and_globs_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist; expected a CSV"):
        read_pairs(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"no file matches .*\*\.tar"):
        read_pairs(tmp_path)


def test_split_holds_out_without_overlap(pairs_csv):
    pairs = read_pairs(pairs_csv)
    rest, held = split(pairs, 6, seed=1)
    assert len(held) == 6
    assert {str(place) for place in (*rest.images, *held.images)} == {str(place) for place in pairs.images}
    assert split(pairs, 6, seed=1)[1].images == held.images != split(pairs, 6, seed=2)[1].images
    with pytest.raises(DataError, match=r"val_count is 24, but .*pairs\.csv holds 24 images"):
        split(pairs, 24, seed=1)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_is_read_by_its_metadata(tmp_path, name):
    picture(0).save(tmp_path / "a.png")
    text = "file_name,text\na.png,x\n" if name.endswith("csv") else '{"file_name": "a.png", "text": "x"}\n'
    (tmp_path / name).write_text(text)
    assert read_pairs(tmp_path).captions == [("x",)]
    write_tar(tmp_path / "a.tar", {"a.png": png(0), "a.txt": b"x"})
    with pytest.raises(DataError, match=rf"holds {name} and a\.tar; name one of them"):
        read_pairs(tmp_path)


def test_equal_captions_of_several_images_are_counted(tmp_path):
    lines = ["image,caption"]
    for number, captions in enumerate([["red", "big"], ["Red "], ["blue"], ["BIG", "small"]]):
        picture(number).save(tmp_path / f"{number}.png")
        lines += [f"{number}.png,{caption}" for caption in captions]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    assert read_pairs(tmp_path / "p.csv").sharing_captions() == 3


def test_pictures_of_other_content_have_another_fingerprint(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "p.csv").write_text("image,caption\na.png,x\n")
    pairs = read_pairs(tmp_path / "p.csv")
    before = pairs.fingerprint(), pairs.pictures_fingerprint()
    picture(1).save(tmp_path / "a.png")
    assert pairs.fingerprint() == before[0]
    assert pairs.pictures_fingerprint() != before[1]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    folder = tmp_path / "set[1]{a,b}"
    folder.mkdir()
    write_tar(folder / "a.tar", {"a.png": png(0), "a.txt": b"x"})
    assert read_pairs(folder).captions == [("x",)]
    assert read_pairs(folder / "a.tar").captions == [("x",)]
