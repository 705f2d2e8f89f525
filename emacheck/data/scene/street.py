"""What stands still in a street scene, and the scene as a whole."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emacheck.data.scene import traffic
from emacheck.data.scene.canvas import Canvas, Colour, IntArray, Material
from emacheck.data.scene.splitmix import SplitMix64
from emacheck.data.scene.view import CAMERA_CM, FOCAL_PX, IGNORE, TrainId, View

WIDTH, HEIGHT = 512, 256

_FACADES: tuple[Colour, ...] = ((176, 160, 136), (150, 92, 74), (140, 140, 142), (196, 184, 150), (120, 108, 104))
_SKIES: tuple[Colour, ...] = ((150, 185, 225), (190, 198, 206), (215, 200, 180))

Actor = tuple[int, Callable[[], None]]
"""A depth and what to draw there: far actors are drawn first, so that near ones hide them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Street:
    """The measures of one street in centimetres from the camera's axis."""

    road: int
    kerb: int
    front: int


def draw_scene(seed: int, split: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one street scene.

    Rare classes follow a timetable (``index`` modulo a small number) rather than chance alone, so that every class
    occurs in many scenes under every seed.

    Args:
        seed: The seed of the data set.
        split: A number that separates train from val.
        index: The number of the scene within its split.

    Returns:
        The image, uint8 (256, 512, 3), and its labels, uint8 (256, 512): trainIds 0 to 18, and 255 for ignore.

    Example:
        >>> image, labels = draw_scene(0, 0, 0)
        >>> image.shape, labels.shape, int(labels[labels < 255].max()) <= 18
        ((256, 512, 3), (256, 512), True)
    """
    random = SplitMix64.derive(seed, split, index)
    canvas = Canvas(WIDTH, HEIGHT, random)
    view = View(horizon=random.between(96, 118), vanish=random.between(206, 306))
    road = random.between(360, 460)
    kerb = road + random.between(200, 320)
    street = _Street(road=road, kerb=kerb, front=kerb + random.pick((0, 100, 250, 450)))
    _sky(canvas, view, random)
    _ground(canvas, view, street, random)
    for side in (-1, 1):
        _row_of_houses(canvas, view, street, side, random)
    _barriers(canvas, view, street, index, random)
    actors = _furniture(canvas, view, street, index, random) + _traffic(canvas, view, street, index, random)
    for _, draw in sorted(actors, key=lambda actor: actor[0]):
        draw()
    _own_car(canvas, random)
    return _exposed(canvas, random), canvas.labels


def _sky(canvas: Canvas, view: View, random: SplitMix64) -> None:
    def paler_below(ys: IntArray, xs: IntArray) -> IntArray:
        return ys * 30 // view.horizon - 15 + 0 * xs

    colour = random.pick(_SKIES)
    canvas.rectangle(
        0,
        0,
        WIDTH - 1,
        view.horizon + 2,
        Material(label=TrainId.SKY, colour=colour, grain=4, blotch=16, shade=paler_below),
    )
    cloud = Material(label=TrainId.SKY, colour=(235, 236, 240), grain=6, blotch=16)
    for _ in range(random.between(0, 4)):
        x, y = random.between(0, WIDTH), random.between(0, view.horizon - 20)
        for puff in range(3):
            canvas.ellipse((x + 22 * puff, y + random.between(-4, 4)), 26, 9, cloud)
    hill = Material(label=TrainId.VEGETATION, colour=(88, 108, 84), grain=22)
    for x in range(0, WIDTH, 26):
        canvas.ellipse((x, view.horizon), 30, random.between(8, 22), hill)


def _ground(canvas: Canvas, view: View, street: _Street, random: SplitMix64) -> None:
    """Draw grass everywhere, then the pavements, then the road with its marks."""
    near = HEIGHT - view.horizon + 8
    grass = random.pick(((112, 126, 62), (134, 122, 80), (96, 118, 58)))
    canvas.rectangle(
        0,
        view.horizon,
        WIDTH - 1,
        HEIGHT - 1,
        Material(label=TrainId.TERRAIN, colour=grass, grain=30, blotch=2),
    )

    def slabs(ys: IntArray, xs: IntArray) -> IntArray:
        depth = np.maximum(ys - view.horizon, 1)
        across, ahead = (xs - view.vanish) * CAMERA_CM // depth, FOCAL_PX * CAMERA_CM // depth
        return -22 * ((across % 75 < 8) | (ahead % 75 < 8))

    tone = random.between(-12, 12)
    slab = Material(
        label=TrainId.SIDEWALK, colour=(168 + tone, 154 + tone, 146 + tone), grain=10, blotch=2, shade=slabs
    )
    tarmac = Material(label=TrainId.ROAD, colour=(96 + tone, 96 + tone, 102 + tone), grain=5, blotch=16)
    paint = Material(label=TrainId.ROAD, colour=(214, 214, 208), grain=14, blotch=2)
    for edge, material in ((street.kerb, slab), (street.road, tarmac)):
        _strip(canvas, view, (3, near), (-edge, edge), material)
    for lateral in (30 - street.road, street.road - 42):
        _strip(canvas, view, (6, near), (lateral, lateral + 12), paint)
    phase = random.between(0, 500)
    for start in range(500 + phase, 6000, 700):
        _strip(canvas, view, (view.depth(start + 320), view.depth(start)), (-8, 8), paint)
    if random.chance(25):
        for lateral in range(60 - street.road, street.road - 90, 110):
            _strip(canvas, view, (view.depth(1500), view.depth(1150)), (lateral, lateral + 55), paint)


def _strip(canvas: Canvas, view: View, depths: tuple[int, int], laterals: tuple[int, int], material: Material) -> None:
    """Draw a stripe on the ground, from far to near and from left to right."""
    (far, near), (left, right) = depths, laterals
    corners = [(far, left), (far, right), (near, right), (near, left)]
    canvas.polygon([(view.x(depth, lateral), view.y(depth)) for depth, lateral in corners], material)


def _row_of_houses(canvas: Canvas, view: View, street: _Street, side: int, random: SplitMix64) -> None:
    """Draw one side of the street from far to near: mostly facades, now and then a hedge or an open gap."""
    far = 5
    while far < WIDTH * CAMERA_CM // street.front:
        near = far + max(far * random.between(25, 70) // 100, 3)
        kind = random.between(0, 99)
        if kind < 74:
            facade = _facade(view, street.front, random)
            _upright(canvas, view, side * street.front, (far, near), height=random.between(600, 1900), material=facade)
        elif kind < 88:
            hedge = Material(label=TrainId.VEGETATION, colour=(52, 82, 44), grain=40)
            _upright(canvas, view, side * street.front, (far, near), height=random.between(160, 420), material=hedge)
        far = near


def _facade(view: View, front: int, random: SplitMix64) -> Material:
    storey, bay = random.between(280, 360), random.between(260, 420)
    dark = random.between(40, 75)

    def windows(ys: IntArray, xs: IntArray) -> IntArray:
        reach = np.maximum(np.abs(xs - view.vanish), 1)
        up = CAMERA_CM - (ys - view.horizon) * front // reach
        along = FOCAL_PX * front // reach
        window = (up % storey > 90) & (up % storey < 240) & (along % bay > 80) & (along % bay < bay - 60)
        ledge = up % storey < 18
        return -dark * window + 22 * ledge

    colour = random.pick(_FACADES)
    return Material(label=TrainId.BUILDING, colour=colour, grain=9, blotch=2, shade=windows)


def _upright(
    canvas: Canvas, view: View, lateral: int, depths: tuple[int, int], *, height: int, material: Material
) -> None:
    """Draw an upright plane that runs along the street, such as a facade or a fence."""
    far, near = depths
    corners = [(far, 0), (near, 0), (near, height), (far, height)]
    canvas.polygon([(view.x(depth, lateral), view.y(depth, up)) for depth, up in corners], material)


def _barriers(canvas: Canvas, view: View, street: _Street, index: int, random: SplitMix64) -> None:
    """Draw a wall or a fence along the outer edge of the pavement."""
    lateral = street.kerb - 15

    def rails(ys: IntArray, xs: IntArray) -> IntArray:
        reach = np.maximum(np.abs(xs - view.vanish), 1)
        along = FOCAL_PX * lateral // reach
        up = CAMERA_CM - (ys - view.horizon) * lateral // reach
        return 70 * ((along % 60 < 22) | (up % 70 < 14))

    def courses(ys: IntArray, xs: IntArray) -> IntArray:
        reach = np.maximum(np.abs(xs - view.vanish), 1)
        up = CAMERA_CM - (ys - view.horizon) * lateral // reach
        along = FOCAL_PX * lateral // reach + 60 * (up // 40 % 2)
        return -26 * ((up % 40 < 7) | (along % 120 < 12))

    fence = Material(label=TrainId.FENCE, colour=(64, 74, 70), grain=10, blotch=2, shade=rails)
    tone = random.between(-15, 15)
    wall = Material(label=TrainId.WALL, colour=(146 + tone, 134 + tone, 112 + tone), grain=12, blotch=2, shade=courses)
    side = random.pick((-1, 1))
    if index % 3 == 0 or random.chance(12):
        depths = (random.between(10, 16), random.between(34, 60))
        _upright(canvas, view, side * lateral, depths, height=random.between(150, 240), material=wall)
    if index % 3 == 1 or random.chance(12):
        depths = (random.between(10, 16), random.between(34, 60))
        _upright(canvas, view, -side * lateral, depths, height=random.between(110, 170), material=fence)


def _furniture(canvas: Canvas, view: View, street: _Street, index: int, random: SplitMix64) -> list[Actor]:
    """Return the trees, lamp posts, traffic lights, signs and bins along the pavements."""
    actors: list[Actor] = []

    def add(draw: Callable[..., None], low: int, high: int, lateral: int) -> None:
        depth, own = random.between(low, high), SplitMix64(random.word())
        actors.append((depth, lambda: draw(canvas, view, depth, lateral, own)))

    for side in (-1, 1):
        for _ in range(random.between(0, 3)):
            add(_tree, 9, 36, side * (street.kerb + random.between(-40, 120)))
        for _ in range(random.between(1, 2)):
            add(_lamp_post, 14, 55, side * (street.road + 25))
        if random.chance(65):
            add(_sign, 20, 48, side * (street.road + 45))
        if (index + side) % 4 == 0 or random.chance(35):
            add(_traffic_light, 22, 46, side * (street.road + 35))
        if random.chance(20):
            add(_bin, 25, 45, side * (street.road + 90))
    return actors


def _tree(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    trunk = Material(label=TrainId.VEGETATION, colour=(74, 58, 44), grain=14, blotch=2)
    tone = random.between(-14, 14)
    leaves = Material(label=TrainId.VEGETATION, colour=(58 + tone, 92 + tone, 44 + tone // 2), grain=46)
    crown, half = random.between(330, 480), view.length(depth, 18)
    x = view.x(depth, lateral)
    canvas.rectangle(x - half, view.y(depth, crown), x + half, view.y(depth), trunk)
    for _ in range(6):
        at = (
            view.x(depth, lateral + random.between(-110, 110)),
            view.y(depth, crown + random.between(-60, 150)),
        )
        canvas.ellipse(at, view.length(depth, random.between(90, 150)), view.length(depth, 100), leaves)


def _lamp_post(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    post = Material(label=TrainId.POLE, colour=random.pick(((92, 96, 98), (150, 154, 156), (70, 84, 74))), grain=8)
    foot, top = (view.x(depth, lateral), view.y(depth)), (view.x(depth, lateral), view.y(depth, 620))
    canvas.line(foot, top, max(view.length(depth, 16), 2), post)
    arm = view.x(depth, lateral - (120 if lateral > 0 else -120))
    canvas.line(top, (arm, top[1]), max(view.length(depth, 12), 2), post)


def _traffic_light(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    _post(canvas, view, depth, lateral, 350)
    x, top = view.x(depth, lateral), view.y(depth, 360)
    half, step = view.length(depth, 24), view.length(depth, 38)
    case = Material(label=TrainId.TRAFFIC_LIGHT, colour=(28, 30, 28))
    canvas.rectangle(x - half, top, x + half, top + 3 * step, case)
    lit = random.between(0, 2)
    for lamp, (on, off) in enumerate(
        (((255, 50, 40), (80, 24, 22)), ((255, 190, 40), (84, 64, 20)), ((60, 240, 120), (20, 74, 40)))
    ):
        glow = Material(label=TrainId.TRAFFIC_LIGHT, colour=on if lamp == lit else off)
        canvas.ellipse((x, top + step // 2 + lamp * step), half * 2 // 3, half * 2 // 3, glow)


def _sign(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    _post(canvas, view, depth, lateral, 240)
    x, y, radius = view.x(depth, lateral), view.y(depth, 250), view.length(depth, 42)
    red, white, blue, yellow = (
        Material(label=TrainId.TRAFFIC_SIGN, colour=colour)
        for colour in ((205, 25, 35), (240, 240, 236), (25, 70, 180), (245, 205, 30))
    )
    inner = radius * 2 // 3
    shape = random.between(0, 3)
    if shape == 0:
        canvas.ellipse((x, y), radius, radius, red)
        canvas.ellipse((x, y), inner, inner, white)
    elif shape == 1:
        canvas.rectangle(x - radius, y - radius, x + radius, y + radius, blue)
        canvas.rectangle(x - radius // 4, y - inner, x + radius // 4, y + inner, white)
    elif shape == 2:
        canvas.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], red)
        canvas.polygon([(x, y - radius // 3), (x + inner // 2 + 1, y + inner), (x - inner // 2 - 1, y + inner)], white)
    else:
        canvas.polygon([(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)], white)
        canvas.polygon([(x, y - inner), (x + inner, y), (x, y + inner), (x - inner, y)], yellow)


def _post(canvas: Canvas, view: View, depth: int, lateral: int, height: int) -> None:
    x = view.x(depth, lateral)
    post = Material(label=TrainId.POLE, colour=(128, 132, 134), grain=8)
    canvas.line((x, view.y(depth)), (x, view.y(depth, height)), max(view.length(depth, 10), 2), post)


def _bin(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a dustbin: something that Cityscapes calls static and does not train on."""
    bin_ = Material(label=IGNORE, colour=random.pick(((50, 60, 52), (40, 44, 90))), grain=12, blotch=2)
    x, half = view.x(depth, lateral), view.length(depth, 28)
    canvas.rectangle(x - half, view.y(depth, 105), x + half, view.y(depth), bin_)


def _traffic(canvas: Canvas, view: View, street: _Street, index: int, random: SplitMix64) -> list[Actor]:
    """Return who is on the road and on the pavements."""
    actors: list[Actor] = []

    def add(draw: Callable[..., None], depth: int, lateral: int) -> None:
        own = SplitMix64(random.word())
        actors.append((depth, lambda: draw(canvas, view, depth, lateral, own)))

    lane = street.road // 2
    left = traffic.tram if index % 4 == 1 or random.chance(8) else traffic.car
    if index % 4 in (2, 3):
        right = (traffic.truck, traffic.bus)[index % 4 - 2]
    else:
        right = random.pick((traffic.car, traffic.car, traffic.truck, traffic.bus))
    add(left, random.between(20, 46), -lane)
    add(right, random.between(24, 42), lane + 20)
    for side in (-1, 1):
        if random.chance(55):
            add(traffic.car, random.between(9, 19), side * lane)
        if random.chance(55):
            add(traffic.car, random.between(14, 42), side * (street.road - 70))
    for due, wheels in ((index % 3 == 0, traffic.motorcycle), (index % 3 == 2, traffic.bicycle)):
        if due or random.chance(25):
            depth, lateral = random.between(44, 84), random.between(-330, 330)
            add(wheels, depth, lateral)
            if random.chance(75):
                add(traffic.rider, depth, lateral)
    if random.chance(35):
        add(traffic.bicycle, random.between(26, 46), random.pick((-1, 1)) * (street.road + 130))
    for _ in range(random.between(2, 5)):
        lateral = random.pick((-1, 1)) * random.between(street.road + 50, street.kerb - 40)
        add(traffic.person, random.between(16, 52), lateral)
    if random.chance(30):
        add(traffic.person, random.between(40, 74), random.between(-street.road, street.road))
    return actors


def _own_car(canvas: Canvas, random: SplitMix64) -> None:
    """Draw the bonnet of the camera's own car and leave the image's edges without a class, as Cityscapes does."""
    bonnet = Material(label=IGNORE, colour=random.pick(((40, 42, 46), (86, 90, 96))), grain=8, blotch=16)
    canvas.ellipse((WIDTH // 2, HEIGHT + 12), WIDTH * 9 // 16, random.between(26, 34), bonnet)
    canvas.labels[:, :2] = IGNORE
    canvas.labels[:, -2:] = IGNORE
    canvas.labels[:2] = IGNORE


def _exposed(canvas: Canvas, random: SplitMix64) -> NDArray[np.uint8]:
    """Return the image as a camera would: one exposure and tint per scene, and noise on every pixel."""
    gains = np.array([random.between(238, 274) for _ in range(3)], dtype=np.int64)
    exposure = random.between(190, 280)
    noise = random.octets(canvas.image.size).reshape(canvas.image.shape).astype(np.int64) - 128
    pixels = canvas.image * gains * exposure // 65536 + noise * 14 // 128
    image: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return image
