"""Gait and tracklets: changes from one frame to the next."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from reidkit.synthetic import (
    Camera,
    Lip,
    Moment,
    image_moments,
    make_cameras,
    render,
    sample_identity,
    video_moments,
    walk,
)
from reidkit.synthetic.pose import ANKLE, Pose, skeleton
from reidkit.synthetic.visits import Shot, Visit, render_visit
from reidkit.synthetic.walk import FRAME


@pytest.fixture(scope="module")
def camera() -> Camera:
    return make_cameras(3)[2]


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 9))
def test_one_foot_is_always_on_the_ground(phase: float) -> None:
    legs = skeleton(Pose(0.0, phase), shoulders=1.0, hips=1.0, girth=1.0).legs
    lowest = min(min(leg.tip[1], leg.end[1] - ANKLE) for leg in legs)
    assert lowest == pytest.approx(0.0, abs=1e-9)


def test_arms_swing_against_the_legs() -> None:
    """At full step the right foot and the left hand are in front."""
    now = skeleton(Pose(0.0, math.pi / 2), shoulders=1.0, hips=1.0, girth=1.0)
    (right_arm, left_arm), (right_leg, left_leg) = now.arms, now.legs
    assert right_leg.end[2] > 0.1 > -0.1 > left_leg.end[2]
    assert left_arm.end[2] > right_arm.end[2] + 0.1


def test_the_swinging_leg_bends_its_knee() -> None:
    now = skeleton(Pose(0.0, 0.0), shoulders=1.0, hips=1.0, girth=1.0)
    swinging, standing = now.legs
    assert swinging.end[1] > standing.end[1] + 0.05


def test_half_a_gait_cycle_exchanges_the_legs() -> None:
    now = skeleton(Pose(0.0, 0.7), shoulders=1.0, hips=1.0, girth=1.0)
    then = skeleton(Pose(0.0, 0.7 + math.pi), shoulders=1.0, hips=1.0, girth=1.0)
    assert now.legs[0].end[1:] == pytest.approx(then.legs[1].end[1:])
    assert now.legs[0].end[0] == pytest.approx(-then.legs[1].end[0])


def test_bones_keep_their_length() -> None:
    for phase in np.linspace(0, 6, 7):
        now = skeleton(Pose(0.0, phase), shoulders=1.0, hips=1.0, girth=1.0)
        for limb, lengths in [(now.legs[0], (0.24, 0.238)), (now.arms[1], (0.172, 0.145))]:
            upper = math.dist(limb.root, limb.middle)
            lower = math.dist(limb.middle, limb.end)
            assert (upper, lower) == pytest.approx(lengths, rel=0.02)


def test_a_walk_is_continuous(camera: Camera) -> None:
    frames = list(itertools.islice(walk(camera, np.random.default_rng(0)), 60))
    for now, then in itertools.pairwise(frames):
        assert FRAME * 0.85 < then.pose.phase - now.pose.phase < FRAME * 1.15
        assert abs(then.pose.yaw - now.pose.yaw) < 0.2
        assert abs(then.box.scale - now.box.scale) < 0.2
        assert then.light == now.light and then.resolution == now.resolution
        assert then.pose.coat_open == now.pose.coat_open


def test_boxes_drift(camera: Camera) -> None:
    frames = list(itertools.islice(walk(camera, np.random.default_rng(1)), 150))
    assert np.std([frame.box.shift_x for frame in frames]) > 0.008
    assert np.std([frame.box.scale for frame in frames]) > 0.02


def test_walks_are_reproducible_and_depend_on_the_seed(camera: Camera) -> None:
    def first(seed: int) -> list[object]:
        return list(itertools.islice(video_moments(camera, np.random.default_rng(seed)), 40))

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_passers_by_move_through_a_video(camera: Camera) -> None:
    frames = list(itertools.islice(video_moments(camera, np.random.default_rng(2)), 1500))
    asides = [frame.passerby.aside if frame.passerby else None for frame in frames]
    met = [(a, b) for a, b in itertools.pairwise(asides) if a is not None and b is not None]
    assert met and all(0 < abs(a - b) < 0.06 for a, b in met)
    people = {frame.passerby.identity for frame in frames if frame.passerby}
    assert len(people) > 1 and None in asides
    assert any(frame.occluder for frame in frames)


def test_each_image_has_its_own_occluder_and_passer_by(camera: Camera) -> None:
    shots = list(itertools.islice(image_moments(camera, np.random.default_rng(3)), 300))
    assert 0.04 < np.mean([shot.occluder is not None for shot in shots]) < 0.2
    assert 0.06 < np.mean([shot.passerby is not None for shot in shots]) < 0.3
    assert shots[1].pose.phase - shots[0].pose.phase > 5


def test_shots_of_background_have_no_labels() -> None:
    kinds = ["person", "other", "other", "background", "person"]
    shots = tuple(Shot(f"{i}.jpg", None, kind) for i, kind in enumerate(kinds))  # type: ignore[arg-type]  # ShotKinds
    visit = Visit(person=1, camera=1, key=(7,), shots=shots, video=True)
    rendered = list(render_visit(visit, seed=0, cameras=2))
    assert [shot.kind for shot, _, _ in rendered] == kinds
    assert not rendered[3][2].any()
    assert rendered[0][2].any() and rendered[1][2].any()


def test_frames_do_not_depend_on_the_length_of_the_tracklet() -> None:
    shots = tuple(Shot(f"{i}.jpg", None) for i in range(4))
    long = Visit(person=1, camera=1, key=(7,), shots=shots, video=True)
    short = Visit(person=1, camera=1, key=(7,), shots=shots[:1], video=True)
    (_, image, labels), *_ = render_visit(long, seed=0, cameras=2)
    ((_, same_image, same_labels),) = render_visit(short, seed=0, cameras=2)
    assert np.array_equal(image, same_image) and np.array_equal(labels, same_labels)


def test_the_distance_of_the_shoes_follows_the_gait() -> None:
    """In a side view, the signed distance of left and right shoe changes its sign."""
    camera = replace(make_cameras(0)[0], tilt=0.1)
    person = replace(
        sample_identity(np.random.default_rng(0)), outfit="trousers", hem=0.95, bag=None
    )

    def apart(phase: float) -> float:
        moment = Moment(Pose(yaw=math.pi / 2, phase=phase))
        _, labels = render(person, camera, moment, np.random.default_rng(0))
        left, right = (
            np.nonzero(labels == shoe)[1].mean() for shoe in (Lip.LEFT_SHOE, Lip.RIGHT_SHOE)
        )
        return float(right - left)

    assert apart(math.pi / 2) > 20
    assert apart(3 * math.pi / 2) < -20
