"""Rendered images: labels match the person, and every property is visible."""

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
    Lip,
    Moment,
    Occluder,
    Passerby,
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
    """A camera without blur, noise and colour cast."""
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


def rendered(
    person: Identity, camera: Camera, moment: Moment, noise: int = 0
) -> tuple[Image, Image]:
    return render(person, camera, moment, np.random.default_rng(noise))


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask dilated by `by` pixels."""
    for _ in range(by):
        wide = np.pad(mask, 1)
        mask = mask | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask


def rows_of(labels: Image, label: int) -> float:
    return float(np.nonzero(labels == label)[0].mean())


def columns_of(labels: Image, label: int) -> float:
    return float(np.nonzero(labels == label)[1].mean())


def test_images_and_label_maps_are_128x64(camera: Camera) -> None:
    rgb, labels = rendered(WALKER, camera, FRONT)
    assert rgb.shape == (128, 64, 3) and labels.shape == (128, 64)
    assert rgb.dtype == labels.dtype == np.uint8


def test_only_the_person_and_the_shadow_differ_from_the_empty_scene(camera: Camera) -> None:
    rgb, labels = rendered(WALKER, camera, FRONT)
    empty, none = rendered(WALKER, camera, replace(FRONT, empty=True))
    assert not none.any()
    changed = np.abs(rgb.astype(int) - empty).max(axis=2) > 2
    figure = labels > 0
    assert changed[figure].mean() > 0.97
    above_the_shadow = np.arange(128)[:, None] < 95
    assert not (changed & ~grown(figure, 1) & above_the_shadow).any()


def test_labels_are_in_the_vertical_order_of_a_body(camera: Camera) -> None:
    _, labels = rendered(WALKER, camera, FRONT)
    order = [Lip.HAIR, Lip.FACE, Lip.UPPER, Lip.PANTS, Lip.LEFT_SHOE]
    rows = [rows_of(labels, label) for label in order]
    assert rows == sorted(rows)
    assert set(np.unique(labels)) == {0, *order, Lip.RIGHT_SHOE, Lip.LEFT_ARM, Lip.RIGHT_ARM} | (
        set(np.unique(labels)) & {Lip.SOCKS}
    )


@pytest.mark.parametrize(("yaw", "left_is_right"), [(0.0, True), (math.pi, False)])
def test_left_and_right_are_the_persons_own(
    camera: Camera, yaw: float, left_is_right: bool
) -> None:
    _, labels = rendered(WALKER, camera, Moment(Pose(yaw=yaw, phase=0.4, stride=0.1)))
    for left, right in ((Lip.LEFT_ARM, Lip.RIGHT_ARM), (Lip.LEFT_SHOE, Lip.RIGHT_SHOE)):
        assert (columns_of(labels, left) > columns_of(labels, right)) == left_is_right


def test_a_yaw_of_90_degrees_faces_the_right_of_the_image(camera: Camera) -> None:
    """The face is right of the hair."""
    _, labels = rendered(WALKER, camera, Moment(Pose(yaw=math.pi / 2, phase=0.0)))
    assert columns_of(labels, Lip.FACE) > columns_of(labels, Lip.HAIR) + 1


def test_the_person_fills_the_box_without_leaving_it(camera: Camera) -> None:
    for tilt in (0.06, 0.4):
        _, labels = rendered(WALKER, replace(camera, tilt=tilt), replace(FRONT, box=Box(scale=1.1)))
        rows = np.flatnonzero(labels.any(axis=1))
        assert 0.8 < (rows[-1] - rows[0] + 1) / 128 < 0.97


def test_a_small_box_cuts_the_feet_off_and_a_shifted_one_moves_the_person(camera: Camera) -> None:
    _, labels = rendered(WALKER, camera, replace(FRONT, box=Box(shift_y=0.3, scale=0.8)))
    assert not np.isin(labels, [Lip.LEFT_SHOE, Lip.RIGHT_SHOE]).any()
    _, middle = rendered(WALKER, camera, FRONT)
    _, moved = rendered(WALKER, camera, replace(FRONT, box=Box(shift_x=0.1)))
    assert columns_of(moved, Lip.UPPER) - columns_of(middle, Lip.UPPER) == pytest.approx(
        12.8, abs=1
    )


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        ({"shoes": Shoes((0.1, 0.2, 0.8), (0.9, 0.9, 0.9))}, [Lip.LEFT_SHOE, Lip.RIGHT_SHOE]),
        ({"upper": Fabric((0.7, 0.2, 0.6))}, [Lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "stripes")}, [Lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "checks")}, [Lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "print", art=3)}, [Lip.UPPER]),
        ({"upper": Fabric((0.2, 0.5, 0.3), (0.9, 0.9, 0.9), "columns")}, [Lip.UPPER]),
        ({"lower": Fabric((0.8, 0.8, 0.7))}, [Lip.PANTS]),
        ({"hair_colour": (0.8, 0.7, 0.4)}, [Lip.HAIR]),
    ],
)
def test_changing_a_garment_changes_only_its_pixels(
    camera: Camera, change: dict[str, object], labels: list[int]
) -> None:
    before, mask = rendered(WALKER, camera, FRONT)
    after, same = rendered(replace(WALKER, **change), camera, FRONT)  # type: ignore[arg-type]  # any field
    assert np.array_equal(mask, same)
    changed = (before != after).any(axis=2)
    own = np.isin(mask, labels)
    assert changed[own].mean() > 0.1
    assert not (changed & ~grown(own, 2)).any()


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"hat": "cap"}, Lip.HAT),
        ({"hat": "beanie"}, Lip.HAT),
        ({"hat": "brim"}, Lip.HAT),
        ({"glasses": (0.1, 0.1, 0.1)}, Lip.SUNGLASSES),
        ({"gloves": (0.6, 0.2, 0.2)}, Lip.GLOVE),
        ({"scarf": (0.6, 0.2, 0.2)}, Lip.SCARF),
        ({"coat": Fabric((0.3, 0.3, 0.3))}, Lip.COAT),
        ({"outfit": "dress", "hem": 0.5}, Lip.DRESS),
        ({"outfit": "skirt", "hem": 0.5}, Lip.SKIRT),
        ({"outfit": "jumpsuit"}, Lip.JUMPSUIT),
        ({"outfit": "shorts", "hem": 0.4}, Lip.LEFT_LEG),
        ({"outfit": "shorts", "hem": 0.4}, Lip.RIGHT_LEG),
        ({"outfit": "shorts", "hem": 0.4, "sock": 0.7}, Lip.SOCKS),
    ],
)
def test_garments_and_accessories_are_labelled(
    camera: Camera, change: dict[str, object], label: int
) -> None:
    _, without = rendered(WALKER, camera, FRONT)
    _, labels = rendered(replace(WALKER, **change), camera, FRONT)  # type: ignore[arg-type]  # any field
    assert np.count_nonzero(labels == label) >= 4
    if label != Lip.SOCKS:
        assert not (without == label).any()


@pytest.mark.parametrize("kind", ["backpack", "shoulder", "hand"])
def test_a_bag_is_visible_but_has_no_label(camera: Camera, kind: str) -> None:
    moment = replace(FRONT, pose=Pose(yaw=1.9, phase=0.4, stride=0.3))
    bare, without = rendered(WALKER, camera, moment)
    bag = Bag(kind, (0.9, 0.8, 0.1), side=-1)  # type: ignore[arg-type]  # a BagKind
    rgb, labels = rendered(replace(WALKER, bag=bag), camera, moment)
    assert (np.abs(rgb.astype(int) - bare).max(axis=2) > 20).sum() > 25
    changed = labels != without
    assert changed.any() and not labels[changed].any()


def test_an_open_coat_shows_the_shirt(camera: Camera) -> None:
    person = replace(WALKER, coat=Fabric((0.3, 0.3, 0.3)))
    _, closed = rendered(person, camera, FRONT)
    _, opened = rendered(person, camera, replace(FRONT, pose=replace(FRONT.pose, coat_open=0.45)))
    assert (opened == Lip.UPPER).sum() > (closed == Lip.UPPER).sum() + 50


def test_an_occluder_is_background(camera: Camera) -> None:
    _, free = rendered(WALKER, camera, FRONT)
    pole = Occluder(index=0, x=0.5, below=0.05, size=1.2)
    _, behind = rendered(WALKER, camera, replace(FRONT, occluder=pole))
    hidden = behind != free
    assert hidden.sum() > 100 and not behind[hidden].any()


@pytest.mark.parametrize(("size", "hides"), [(0.9, False), (1.15, True)])
def test_other_people_are_background(camera: Camera, size: float, hides: bool) -> None:
    _, free = rendered(WALKER, camera, FRONT)
    other = Passerby(sample_identity(np.random.default_rng(1)), FRONT.pose, aside=0.2, size=size)
    _, labels = rendered(WALKER, camera, replace(FRONT, passerby=other))
    assert (labels != free).any() == hides
    assert not labels[labels != free].any()


def test_the_generator_of_render_is_used_for_noise_only() -> None:
    camera = make_cameras(0)[1]
    one, labels = rendered(WALKER, camera, FRONT, noise=0)
    two, same = rendered(WALKER, camera, FRONT, noise=1)
    again, _ = rendered(WALKER, camera, FRONT, noise=0)
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


def test_identities_are_distinct_and_share_garments() -> None:
    people = [sample_identity(np.random.default_rng([0, 3, pid])) for pid in range(200)]
    assert len(set(people)) == 200
    kinds = {person.outfit for person in people}
    assert kinds == {"trousers", "shorts", "skirt", "dress", "jumpsuit"}
    bags = {person.bag.kind for person in people if person.bag is not None}
    assert bags == {"backpack", "shoulder", "hand"}
    dark_tops = sum(sum(person.upper.colour) < 0.6 for person in people)
    assert dark_tops > 20
