from pathlib import Path

import numpy as np
import pytest

from reidkit.errors import ConfigError
from reidkit.masks.labels import default_grouping, list_label_sets, load_grouping, load_label_set
from reidkit.types import PARTS

# REFERENCE: SPReID's grouping of LIP's 20 labels, as in the project's reference facts
LIP_PARTS = {
    "head": {1, 2, 4, 13},
    "upper body": {3, 5, 6, 7, 10, 11, 14, 15},
    "lower body": {9, 12, 16, 17},
    "shoes": {8, 18, 19},
}


def test_every_lip_label_but_the_background_belongs_to_one_of_the_four_parts():
    grouping = default_grouping(load_label_set("lip"))
    assert grouping.parts == PARTS
    found = {p: set(m) for p, m in zip(grouping.parts, grouping.members, strict=True)}
    assert found == LIP_PARTS
    assert set.union(*LIP_PARTS.values()) == set(range(1, 20))


def test_a_label_map_becomes_part_indices_in_the_order_of_the_parts():
    grouping = default_grouping(load_label_set("lip"))
    assert grouping.part_map(np.array([[0, 13, 5], [9, 18, 8]], np.uint8)).tolist() == [
        [0, 1, 2],
        [3, 4, 4],
    ]


def test_mirroring_swaps_arms_legs_and_shoes_only():
    mirrored = load_label_set("lip").mirrored
    assert mirrored == [*range(14), 15, 14, 17, 16, 19, 18]


@pytest.mark.parametrize("name", list_label_sets())
def test_label_sets_are_consistent(name: str):
    labels = load_label_set(name)
    assert labels.names[0] == "background"
    assert sorted(labels.mirrored) == list(range(len(labels.names)))
    for left, right in labels.mirror:
        assert labels.names[left].replace("left", "right") == labels.names[right]
    table = default_grouping(labels).table
    assert table[0] == 0 and (table[len(labels.names) :] == 0).all()


@pytest.mark.parametrize(
    ("name", "count"), [("lip", 20), ("cihp", 20), ("atr", 18), ("pascal-person-part", 7)]
)
def test_every_label_set_gives_the_four_parts_of_iaunet(name: str, count: int):
    labels = load_label_set(name)
    assert len(labels.names) == count
    assert default_grouping(labels).parts == PARTS


def test_pascals_lower_legs_stand_for_the_shoes_that_it_lacks():
    pascal = load_label_set("pascal-person-part")
    assert default_grouping(pascal).describe() == {
        "head": ("head",),
        "upper body": ("torso", "upper-arms", "lower-arms"),
        "lower body": ("upper-legs",),
        "shoes": ("lower-legs",),
    }
    assert "no label for shoes" in pascal.note


def test_atr_says_which_of_lips_labels_it_lacks():
    lip, atr = load_label_set("lip"), load_label_set("atr")
    missing = set(lip.names) - set(atr.names)
    assert missing == {"glove", "coat", "jumpsuits", "socks"}
    assert all(name.rstrip("s") in atr.note for name in missing)
    assert set(default_grouping(atr).table[: len(atr.names)]) == {0, 1, 2, 3, 4}
    assert default_grouping(atr).table[atr.names.index("bag")] == 0


def test_a_grouping_of_other_labels_is_refused(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('labels = "lip"\n[parts]\nhead = [1, 2]\n')
    message = r"mine\.toml groups the labels of lip, but the label maps have those of atr"
    with pytest.raises(ConfigError, match=message):
        load_grouping(file, load_label_set("atr"))
    assert load_grouping(file, load_label_set("lip")).members == ((1, 2),)


def test_a_grouping_file_without_labels_groups_those_of_the_label_maps(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('[parts]\nhead = ["face"]\n')
    assert load_grouping(file).members == ((13,),)
    assert load_grouping(file, load_label_set("atr")).members == ((11,),)
    file.write_text('[parts]\nhead = ["jumpsuits"]\n')
    with pytest.raises(ConfigError, match="unknown label 'jumpsuits'"):
        load_grouping(file, load_label_set("atr"))


def test_a_grouping_file_takes_names_or_numbers(tmp_path: Path):
    file = tmp_path / "halves.toml"
    file.write_text('labels = "lip"\n[parts]\ntop = ["hat", 2]\nbottom = ["left-shoe", 19]\n')
    grouping = load_grouping(file)
    assert grouping.parts == ("top", "bottom")
    assert grouping.members == ((1, 2), (18, 19))
    assert grouping.describe()["bottom"] == ("left-shoe", "right-shoe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[parts]\na = [1]\nb = [1]", "label 1 (hat) is in 'a' and in 'b'"),
        ("[parts]\na = ['hats']", "Did you mean hat?"),
        ("[parts]\na = [20]", "not one of 1..19"),
        ("[parts]\na = [0]", "not one of 1..19"),
        ("[parts]\na = []", "expected a list of labels"),
        ("[parts]", "1 to 15 parts"),
        ("labels = 'lips'\n[parts]\na = [1]", "Did you mean lip?"),
        ("part = 1\n[parts]\na = [1]", "unknown key part"),
        ("parts = ", "is not TOML"),
    ],
)
def test_a_malformed_grouping_is_refused_with_its_file(tmp_path: Path, text: str, message: str):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_grouping(file)
    assert message in str(caught.value)
    assert "wrong.toml" in str(caught.value) or "unknown label set" in str(caught.value)


def test_a_missing_grouping_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_grouping(tmp_path / "none.toml")
