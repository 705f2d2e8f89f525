"""The camera: how centimetres on the street become pixels.

Every object stands on the ground at a depth ``d``: the number of pixels between the horizon and its foot. A length of
c centimetres at that depth spans d * c // CAMERA_CM pixels, since the camera itself hangs CAMERA_CM above the ground.
"""

from dataclasses import dataclass
from enum import IntEnum

CAMERA_CM = 130
FOCAL_PX = 565  # a quarter of the focal length of the real Cityscapes camera, as the images are a quarter as wide
IGNORE = 255


class TrainId(IntEnum):
    """The 19 training classes of Cityscapes (source: cityscapesScripts, helpers/labels.py)."""

    ROAD = 0
    SIDEWALK = 1
    BUILDING = 2
    WALL = 3
    FENCE = 4
    POLE = 5
    TRAFFIC_LIGHT = 6
    TRAFFIC_SIGN = 7
    VEGETATION = 8
    TERRAIN = 9
    SKY = 10
    PERSON = 11
    RIDER = 12
    CAR = 13
    TRUCK = 14
    BUS = 15
    TRAIN = 16
    MOTORCYCLE = 17
    BICYCLE = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where the camera looks.

    Args:
        horizon: The row of the horizon.
        vanish: The column of the vanishing point.
    """

    horizon: int
    vanish: int

    def length(self, depth: int, cm: int) -> int:
        """Return how many pixels a length spans at a depth, at least one."""
        return max(depth * cm // CAMERA_CM, 1)

    def x(self, depth: int, lateral: int) -> int:
        """Return the column of a point ``lateral`` centimetres right of the camera."""
        return self.vanish + depth * lateral // CAMERA_CM

    def y(self, depth: int, height: int = 0) -> int:
        """Return the row of a point ``height`` centimetres above the ground."""
        return self.horizon + depth - depth * height // CAMERA_CM

    def depth(self, distance: int) -> int:
        """Return the depth (pixels below the horizon) of the ground ``distance`` centimetres ahead."""
        return FOCAL_PX * CAMERA_CM // distance
