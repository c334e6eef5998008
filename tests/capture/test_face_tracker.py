"""Who is followed, with a stand-in for MediaPipe whose people are coloured squares."""

import weakref

import numpy as np
import pytest

from mobile_bilayer.capture import tracking
from mobile_bilayer.capture.landmarker import Window
from mobile_bilayer.capture.tracking import FaceTracker
from mobile_bilayer.pose.head import face_template

HEIGHT, WIDTH = 300, 600
ANNA, BERT = 1, 2  # the level of red of who is who
STEP_S = 1 / 25


def scene(**people: tuple[int, int, int]) -> np.ndarray:
    """A picture with anna=(x, y, side) and bert=(x, y, side): their middles, in pixels."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for name, (x, y, side) in people.items():
        rgb[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2] = {"anna": ANNA, "bert": BERT}[name]
    return rgb


def who(rgb: np.ndarray, points: np.ndarray | None) -> int | None:
    """Whose face these landmarks lie on."""
    if points is None:
        return None
    x, y = ((points[:, :2].min(0) + points[:, :2].max(0)) / 2).astype(int)
    return int(rgb[y, x, 0])


class StandIn:
    """Finds squares that are whole; in video mode one, at first Bert, as long as he can be seen."""

    made = 0

    def __init__(self, video=True, sure=False, settle=True):
        StandIn.made += 1
        self.follows = BERT

    def __exit__(self, *_exc):
        pass

    def faces(self, rgb):
        found = {name: self.look(rgb, name) for name in (ANNA, BERT)}
        return sorted([f for f in found.values() if f is not None], key=lambda p: -np.ptp(p[:, 0]))

    def detect(self, rgb, time_s):
        for name in (self.follows, ANNA, BERT):
            points = self.look(rgb, name)
            if points is not None:
                self.follows = name
                return points
        return None

    def look(self, rgb, name):
        rows, columns = np.nonzero(rgb[..., 0] == name)
        if not rows.size or np.ptp(rows) != np.ptp(columns):
            return None
        face = face_template().points
        low, high = face.min(0), face.max(0)
        box = np.array([np.ptp(columns), np.ptp(rows), 1])
        return ((face - low) / (high - low) * box + [columns.min(), rows.min(), 0]).astype(np.float32)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    StandIn.made = 0
    monkeypatch.setattr(tracking, "Landmarker", StandIn)


def follow(scenes: list[np.ndarray]) -> list[int | None]:
    with FaceTracker() as tracker:
        return [who(rgb, tracker.see(rgb, i * STEP_S)) for i, rgb in enumerate(scenes)]


def test_PO4_the_largest_face_is_followed_whoever_the_landmarker_prefers():
    assert follow([scene(anna=(150, 150, 80), bert=(400, 150, 60))] * 5) == [ANNA] * 5


def test_PO4_another_who_comes_closer_and_grows_is_not_followed():
    growing = [scene(anna=(150, 150, 80), bert=(400, 150, side)) for side in range(40, 200, 4)]
    assert follow(growing) == [ANNA] * 40


def test_PO4_who_stays_behind_is_not_taken_for_who_left_however_long():
    both, alone = scene(anna=(150, 150, 80), bert=(400, 150, 60)), scene(bert=(400, 150, 60))
    assert follow([both] * 5 + [alone] * 250) == [ANNA] * 5 + [None] * 250


def test_PO4_who_stays_behind_is_known_while_walking_over_to_the_empty_place():
    walk = [scene(bert=(400 - x, 150, 60)) for x in range(0, 252, 4)]
    both, there = scene(anna=(150, 150, 80), bert=(400, 150, 60)), scene(bert=(148, 150, 60))
    assert set(follow([both] * 5 + walk + [there] * 60)[5:]) == {None}
    back = scene(bert=(148, 150, 60), anna=(250, 150, 80))
    assert follow([both] * 5 + walk + [there] * 60 + [back])[-1] == ANNA


def test_PO4_who_comes_back_to_the_same_place_is_followed_at_once():
    both, alone = scene(anna=(150, 150, 80), bert=(400, 150, 60)), scene(bert=(400, 150, 60))
    assert follow([both] * 5 + [alone] * 30 + [both] * 5) == [ANNA] * 5 + [None] * 30 + [ANNA] * 5


def test_PO4_who_comes_back_elsewhere_is_followed_at_once_too():
    both, alone = scene(anna=(150, 150, 80), bert=(400, 150, 60)), scene(bert=(400, 150, 60))
    back = scene(anna=(540, 150, 80), bert=(400, 150, 60))
    found = follow([both] * 5 + [alone] * 30 + [back] * 10)
    assert found[5:] == [None] * 30 + [ANNA] * 10


def test_PO4_others_out_of_sight_for_long_are_forgotten_so_that_the_clip_goes_on():
    both, alone, nobody = scene(anna=(150, 150, 80), bert=(400, 150, 60)), scene(bert=(400, 150, 60)), scene()
    assert follow([both] * 5 + [nobody] * 25 + [alone] * 5)[-5:] == [None] * 5
    assert follow([both] * 5 + [nobody] * 90 + [scene(anna=(500, 100, 80))] * 7)[-1] == ANNA


def test_PO3_after_a_cut_the_same_person_is_followed_elsewhere_without_losing_a_frame():
    first, second = scene(anna=(150, 150, 80)), scene(anna=(400, 120, 180))
    assert follow([first] * 3 + [second] * 3 + [first] * 3) == [ANNA] * 9
    assert StandIn.made == 3  # and nothing was begun anew: all faces, the one, and beyond doubt


def test_PO3_a_shot_without_a_face_is_lost_and_the_next_is_found():
    face, table = scene(anna=(150, 150, 80)), scene()
    found = follow([table] * 3 + [face] * 3 + [table] * 40 + [face] * 3)
    assert found == [None] * 3 + [ANNA] * 3 + [None] * 40 + [ANNA] * 3


def test_PO4_our_person_may_move_about_beside_another():
    path = [scene(anna=(150 + x, 150, 80), bert=(500, 60, 60)) for x in range(0, 250, 10)]
    assert follow(path) == [ANNA] * 25


def test_a_window_gives_what_is_inside_and_black_beyond_the_picture():
    rgb = np.full((4, 6, 3), 9, np.uint8)
    assert Window(1, 1, 2).cut(rgb).tolist() == [[[9] * 3] * 2] * 2
    edge = Window(-1, 2, 4).cut(rgb)
    assert edge[..., 0].tolist() == [[0, 9, 9, 9], [0, 9, 9, 9], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not Window(-9, -9, 4).cut(rgb).any() and Window(-9, -9, 4).cut(rgb).shape == (4, 4, 3)
    np.testing.assert_array_equal(Window(-1, 2, 4).back(np.ones((478, 3), np.float32))[0], [0, 3, 1])
    assert Window(0, 0, 4).back(None) is None


def test_CA7_only_the_last_picture_is_kept():
    alive = []
    with FaceTracker() as tracker:
        for i in range(50):
            rgb = scene(anna=(150, 150, 80)) if i % 10 else scene()
            alive.append(weakref.ref(rgb))
            tracker.see(rgb, i * STEP_S)
            assert sum(ref() is not None for ref in alive) <= 2


def test_CA5_the_landmarker_gets_the_times_of_the_frames(monkeypatch):
    times_s = []
    monkeypatch.setattr(StandIn, "detect", lambda self, rgb, time_s: times_s.append(time_s) or self.look(rgb, ANNA))
    with FaceTracker() as tracker:
        for time_s in (0, 1 / 15, 2 / 15, 2 / 15 + 1 / 60):
            tracker.see(scene(anna=(150, 150, 80)), time_s)
    assert times_s == [0, 1 / 15, 2 / 15, 2 / 15 + 1 / 60]
