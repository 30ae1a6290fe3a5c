"""One image at a time: the labels lie on the person, and what differs can be seen."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.synthetic import (
    Box,
    Camera,
    Identity,
    Moment,
    Occluder,
    Passer,
    lip,
    make_cameras,
    render,
    sample_identity,
)
from reidkit.synthetic.pose import Pose
from reidkit.synthetic.wardrobe import Bag, Fabric, Shoes

Image = NDArray[np.uint8]

WALKER = replace(
    sample_identity(np.random.default_rng(5)),
    outfit="trousers",
    upper=Fabric((0.2, 0.5, 0.3)),
    lower=Fabric((0.3, 0.3, 0.5)),
    hem=0.95,
    sleeve=0.3,
    hair="short",
    shoes=Shoes((0.7, 0.1, 0.1), (0.9, 0.9, 0.9)),
    coat=None,
    hat=None,
    glasses=None,
    scarf=None,
    gloves=None,
    bag=None,
)
FRONT = Moment(Pose(yaw=0.0, phase=0.4, stride=0.3))


@pytest.fixture(scope="module")
def camera() -> Camera:
    """Sharp, noiseless and true to colour."""
    return replace(
        make_cameras(0)[0],
        blur=0.0,
        noise=0.0,
        gain=(1.0, 1.0, 1.0),
        contrast=1.0,
        saturation=1.0,
        haze=0.0,
        sharpen=False,
        tilt=0.15,
    )


def draw(who: Identity, camera: Camera, moment: Moment, noise: int = 0) -> tuple[Image, Image]:
    return render(who, camera, moment, np.random.default_rng(noise))


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask and its neighbours up to `by` pixels away."""
    for _ in range(by):
        wide = np.pad(mask, 1)
        mask = mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def rows_of(labels: Image, label: int) -> float:
    return float(np.nonzero(labels == label)[0].mean())


def columns_of(labels: Image, label: int) -> float:
    return float(np.nonzero(labels == label)[1].mean())


def test_an_image_is_64_by_128_and_so_are_its_labels(camera: Camera) -> None:
    rgb, labels = draw(WALKER, camera, FRONT)
    assert rgb.shape == (128, 64, 3) and labels.shape == (128, 64)
    assert rgb.dtype == labels.dtype == np.uint8


def test_only_the_figure_and_its_shadow_differ_from_the_empty_scene(camera: Camera) -> None:
    rgb, labels = draw(WALKER, camera, FRONT)
    empty, none = draw(WALKER, camera, replace(FRONT, empty=True))
    assert not none.any()
    changed = np.abs(rgb.astype(int) - empty).max(axis=2) > 2
    figure = labels > 0
    assert changed[figure].mean() > 0.97
    above_the_shadow = np.arange(128)[:, None] < 95
    assert not (changed & ~grown(figure, 1) & above_the_shadow).any()


def test_labels_stand_in_the_order_of_a_body(camera: Camera) -> None:
    _, labels = draw(WALKER, camera, FRONT)
    order = [lip.HAIR, lip.FACE, lip.UPPER, lip.PANTS, lip.LEFT_SHOE]
    rows = [rows_of(labels, label) for label in order]
    assert rows == sorted(rows)
    assert set(np.unique(labels)) == {0, *order, lip.RIGHT_SHOE, lip.LEFT_ARM, lip.RIGHT_ARM} | (
        set(np.unique(labels)) & {lip.SOCKS}
    )


@pytest.mark.parametrize(("yaw", "left_is_right"), [(0.0, True), (math.pi, False)])
def test_left_is_the_persons_own(camera: Camera, yaw: float, left_is_right: bool) -> None:
    _, labels = draw(WALKER, camera, Moment(Pose(yaw=yaw, phase=0.4, stride=0.1)))
    for left, right in ((lip.LEFT_ARM, lip.RIGHT_ARM), (lip.LEFT_SHOE, lip.RIGHT_SHOE)):
        assert (columns_of(labels, left) > columns_of(labels, right)) == left_is_right


def test_yaw_turns_to_the_images_right(camera: Camera) -> None:
    """Of somebody walking right, the face is right of the hair."""
    _, labels = draw(WALKER, camera, Moment(Pose(yaw=math.pi / 2, phase=0.0)))
    assert columns_of(labels, lip.FACE) > columns_of(labels, lip.HAIR) + 1


def test_the_person_fills_the_box_and_stays_inside(camera: Camera) -> None:
    for tilt in (0.06, 0.4):
        _, labels = draw(WALKER, replace(camera, tilt=tilt), replace(FRONT, box=Box(scale=1.1)))
        rows = np.flatnonzero(labels.any(axis=1))
        assert 0.8 < (rows[-1] - rows[0] + 1) / 128 < 0.97


def test_a_small_box_cuts_off_and_a_shifted_one_moves(camera: Camera) -> None:
    _, labels = draw(WALKER, camera, replace(FRONT, box=Box(shift_y=0.3, scale=0.8)))
    assert not np.isin(labels, [lip.LEFT_SHOE, lip.RIGHT_SHOE]).any()
    _, middle = draw(WALKER, camera, FRONT)
    _, moved = draw(WALKER, camera, replace(FRONT, box=Box(shift_x=0.1)))
    assert columns_of(moved, lip.UPPER) - columns_of(middle, lip.UPPER) == pytest.approx(
        12.8, abs=1
    )


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"shoes": Shoes((0.1, 0.2, 0.8), (0.9, 0.9, 0.9))}, [lip.LEFT_SHOE, lip.RIGHT_SHOE]),
        ({"upper": Fabric((0.7, 0.2, 0.6))}, [lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "stripes")}, [lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "checks")}, [lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "print", art=3)}, [lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "columns")}, [lip.UPPER]),
        ({"lower": Fabric((0.8, 0.8, 0.7))}, [lip.PANTS]),
        ({"hair_colour": (0.8, 0.7, 0.4)}, [lip.HAIR]),
    ],
)
def test_a_changed_garment_changes_its_own_pixels_only(
    camera: Camera, change: dict[str, object], labels: list[int]
) -> None:
    before, mask = draw(WALKER, camera, FRONT)
    after, same = draw(replace(WALKER, **change), camera, FRONT)  # type: ignore[arg-type]  # any field
    assert np.array_equal(mask, same)
    changed = (before != after).any(axis=2)
    own = np.isin(mask, labels)
    assert changed[own].mean() > 0.1
    assert not (changed & ~grown(own, 2)).any()


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"hat": "cap"}, lip.HAT),
        ({"hat": "beanie"}, lip.HAT),
        ({"hat": "brim"}, lip.HAT),
        ({"glasses": (0.1, 0.1, 0.1)}, lip.SUNGLASSES),
        ({"gloves": (0.6, 0.2, 0.2)}, lip.GLOVE),
        ({"scarf": (0.6, 0.2, 0.2)}, lip.SCARF),
        ({"coat": Fabric((0.3, 0.3, 0.3))}, lip.COAT),
        ({"outfit": "dress", "hem": 0.5}, lip.DRESS),
        ({"outfit": "skirt", "hem": 0.5}, lip.SKIRT),
        ({"outfit": "jumpsuit"}, lip.JUMPSUIT),
        ({"outfit": "shorts", "hem": 0.4}, lip.LEFT_LEG),
        ({"outfit": "shorts", "hem": 0.4}, lip.RIGHT_LEG),
        ({"outfit": "shorts", "hem": 0.4, "sock": 0.7}, lip.SOCKS),
    ],
)
def test_what_is_worn_is_labelled(camera: Camera, change: dict[str, object], label: int) -> None:
    _, without = draw(WALKER, camera, FRONT)
    _, labels = draw(replace(WALKER, **change), camera, FRONT)  # type: ignore[arg-type]  # any field
    assert np.count_nonzero(labels == label) >= 4
    if label != lip.SOCKS:
        assert not (without == label).any()


@pytest.mark.parametrize("kind", ["backpack", "shoulder", "hand"])
def test_a_bag_is_seen_but_has_no_label(camera: Camera, kind: str) -> None:
    moment = replace(FRONT, pose=Pose(yaw=1.9, phase=0.4, stride=0.3))
    bare, without = draw(WALKER, camera, moment)
    bag = Bag(kind, (0.9, 0.8, 0.1), side=-1)  # type: ignore[arg-type]  # a BagKind
    rgb, labels = draw(replace(WALKER, bag=bag), camera, moment)
    assert (np.abs(rgb.astype(int) - bare).max(axis=2) > 20).sum() > 25
    changed = labels != without
    assert changed.any() and not labels[changed].any()


def test_an_open_coat_shows_the_shirt(camera: Camera) -> None:
    who = replace(WALKER, coat=Fabric((0.3, 0.3, 0.3)))
    _, closed = draw(who, camera, FRONT)
    _, opened = draw(who, camera, replace(FRONT, pose=replace(FRONT.pose, coat_open=0.45)))
    assert (opened == lip.UPPER).sum() > (closed == lip.UPPER).sum() + 50


def test_whatever_stands_before_the_person_is_background(camera: Camera) -> None:
    _, free = draw(WALKER, camera, FRONT)
    pole = Occluder(index=0, x=0.5, below=0.05, size=1.2)
    _, behind = draw(WALKER, camera, replace(FRONT, occluder=pole))
    hidden = behind != free
    assert hidden.sum() > 100 and not behind[hidden].any()


@pytest.mark.parametrize(("size", "hides"), [(0.9, False), (1.15, True)])
def test_other_people_are_background(camera: Camera, size: float, hides: bool) -> None:
    _, free = draw(WALKER, camera, FRONT)
    other = Passer(sample_identity(np.random.default_rng(1)), FRONT.pose, aside=0.2, size=size)
    _, labels = draw(WALKER, camera, replace(FRONT, passer=other))
    assert (labels != free).any() == hides
    assert not labels[labels != free].any()


def test_the_generator_only_makes_noise() -> None:
    camera = make_cameras(0)[1]
    one, labels = draw(WALKER, camera, FRONT, noise=0)
    two, same = draw(WALKER, camera, FRONT, noise=1)
    again, _ = draw(WALKER, camera, FRONT, noise=0)
    assert np.array_equal(one, again) and not np.array_equal(one, two)
    assert np.array_equal(labels, same)
    assert np.abs(one.astype(int) - two).mean() < 12


def test_cameras_differ_and_depend_on_the_seed() -> None:
    one, other = make_cameras(0), make_cameras(1)
    assert [camera.index for camera in one] == [1, 2, 3, 4, 5, 6]
    assert len({camera.place for camera in one}) == 6
    assert len({camera.gain for camera in (*one, *other)}) == 12
    assert len(make_cameras(0, 8)) == 8
    assert make_cameras(0, 8)[:6] == one


def test_identities_share_garments_and_are_all_different() -> None:
    people = [sample_identity(np.random.default_rng([0, 3, pid])) for pid in range(200)]
    assert len(set(people)) == 200
    kinds = {person.outfit for person in people}
    assert kinds == {"trousers", "shorts", "skirt", "dress", "jumpsuit"}
    bags = {person.bag.kind for person in people if person.bag is not None}
    assert bags == {"backpack", "shoulder", "hand"}
    dark_tops = sum(sum(person.upper.colour) < 0.6 for person in people)
    assert dark_tops > 20
