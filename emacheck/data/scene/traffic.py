"""What moves in a street scene: vehicles, two-wheelers and persons, each drawn at a depth and a lateral position."""

import numpy as np

from emacheck.data.scene.canvas import Canvas, Colour, IntArray, Material
from emacheck.data.scene.splitmix import SplitMix64
from emacheck.data.scene.view import TrainId, View

PAINTS: tuple[Colour, ...] = (
    (200, 200, 205),
    (40, 42, 48),
    (150, 30, 35),
    (35, 60, 130),
    (120, 125, 130),
    (215, 190, 60),
)
CLOTHES: tuple[Colour, ...] = (
    (60, 70, 110),
    (150, 45, 60),
    (40, 40, 45),
    (190, 180, 165),
    (80, 110, 60),
    (205, 120, 40),
)
SKINS: tuple[Colour, ...] = ((225, 180, 150), (180, 130, 100), (110, 75, 55))
GLASS: Colour = (55, 70, 85)
RUBBER: Colour = (25, 25, 28)


def car(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a car from behind or from the front."""
    paint = Material(label=TrainId.CAR, colour=random.pick(PAINTS), grain=10, blotch=2)
    oncoming = random.chance(50)
    half = 88
    _box(canvas, view, (depth, depth * 3 // 4), (lateral - half, lateral + half, 25, 95), paint)
    left, right = view.x(depth, lateral - half), view.x(depth, lateral + half)
    inset = view.length(depth, 22)
    waist, roof, sill = view.y(depth, 90), view.y(depth, 148), view.y(depth, 25)
    canvas.polygon([(left + inset, roof), (right - inset, roof), (right, waist), (left, waist)], paint)
    glass = Material(label=TrainId.CAR, colour=GLASS, grain=8)
    rim = view.length(depth, 9)
    canvas.polygon(
        [
            (left + inset + rim, roof + rim),
            (right - inset - rim, roof + rim),
            (right - rim, waist),
            (left + rim, waist),
        ],
        glass,
    )
    for x in (left, right - view.length(depth, 24)):
        tyre = Material(label=TrainId.CAR, colour=RUBBER)
        canvas.rectangle(x, sill, x + view.length(depth, 24), view.y(depth), tyre)
    lamp = Material(label=TrainId.CAR, colour=(250, 245, 215) if oncoming else (205, 25, 25))
    for x in (left + rim, right - rim - view.length(depth, 28)):
        canvas.rectangle(x, view.y(depth, 80), x + view.length(depth, 28), view.y(depth, 64), lamp)
    plate = Material(label=TrainId.CAR, colour=(225, 225, 225))
    middle, reach = view.x(depth, lateral), view.length(depth, 26)
    canvas.rectangle(middle - reach, view.y(depth, 52), middle + reach, view.y(depth, 40), plate)


def truck(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a lorry from behind: a tall ribbed cargo box over a dark chassis."""
    colour = random.pick(((210, 210, 200), (175, 110, 60), (70, 105, 140), (95, 120, 85)))
    rib = view.length(depth, 22)

    def ribs(ys: IntArray, xs: IntArray) -> IntArray:
        return -38 * (xs % rib < 1).astype(np.int64) + 0 * ys

    cargo = Material(label=TrainId.TRUCK, colour=colour, grain=10, blotch=2, shade=ribs)
    chassis = Material(label=TrainId.TRUCK, colour=(45, 45, 48), grain=10)
    _box(canvas, view, (depth, depth // 2), (lateral - 125, lateral + 125, 20, 100), chassis)
    _box(canvas, view, (depth, depth // 2), (lateral - 125, lateral + 125, 95, 360), cargo)
    for side in (-112, 72):
        x = view.x(depth, lateral + side)
        tyre = Material(label=TrainId.TRUCK, colour=RUBBER)
        canvas.rectangle(x, view.y(depth, 80), x + view.length(depth, 40), view.y(depth), tyre)
    door, post = view.x(depth, lateral), view.length(depth, 8)
    dark = Material(label=TrainId.TRUCK, colour=(60, 60, 60))
    canvas.rectangle(door - post // 2, view.y(depth, 350), door + post // 2, view.y(depth, 105), dark)
    for side in (-118, 88):
        x = view.x(depth, lateral + side)
        lamp = Material(label=TrainId.TRUCK, colour=(220, 90, 20))
        canvas.rectangle(x, view.y(depth, 98), x + view.length(depth, 30), view.y(depth, 82), lamp)


def bus(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a city bus from the front: a wide windscreen, a lit destination board and a row of side windows."""
    colour = random.pick(((225, 185, 40), (190, 40, 45), (60, 130, 90)))
    body = Material(label=TrainId.BUS, colour=colour, grain=8, blotch=2)
    glass = Material(label=TrainId.BUS, colour=GLASS, grain=12, blotch=2)
    board = Material(label=TrainId.BUS, colour=(250, 150, 30), grain=60, blotch=2)
    span = (lateral - 128, lateral + 128)
    _box(canvas, view, (depth, depth // 3), (*span, 20, 310), body)
    _box(canvas, view, (depth - 1, depth // 3), (*span, 140, 245), glass)
    _panel(canvas, view, depth, (lateral - 128, lateral + 128, 20, 310), body)
    _panel(canvas, view, depth, (lateral - 112, lateral + 112, 120, 250), glass)
    _panel(canvas, view, depth, (lateral - 80, lateral + 80, 262, 298), board)
    for side in (-110, 80):
        lamp = Material(label=TrainId.BUS, colour=(250, 245, 215))
        _panel(canvas, view, depth, (lateral + side, lateral + side + 30, 55, 80), lamp)
        tyre = Material(label=TrainId.BUS, colour=RUBBER)
        _panel(canvas, view, depth, (lateral + side, lateral + side + 30, 0, 22), tyre)


def tram(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a tram (class train): long, white above and coloured below, a single lamp, a pantograph."""
    stripe = random.pick(((30, 120, 150), (150, 35, 95), (45, 135, 60)))
    white = Material(label=TrainId.TRAIN, colour=(225, 225, 220), grain=8, blotch=2)
    skirt = Material(label=TrainId.TRAIN, colour=stripe, grain=8, blotch=2)
    glass = Material(label=TrainId.TRAIN, colour=(35, 45, 60), grain=8)
    lamp = Material(label=TrainId.TRAIN, colour=(255, 250, 225))
    far = depth // 4
    span = (lateral - 122, lateral + 122)
    _box(canvas, view, (depth, far), (*span, 15, 345), white)
    _box(canvas, view, (depth, far), (*span, 15, 110), skirt)
    _box(canvas, view, (depth - 1, far), (*span, 160, 270), glass)
    _panel(canvas, view, depth, (*span, 110, 345), white)
    _panel(canvas, view, depth, (lateral - 95, lateral + 95, 140, 275), glass)
    _panel(canvas, view, depth, (*span, 15, 110), skirt)
    centre = (view.x(depth, lateral), view.y(depth, 310))
    canvas.ellipse(centre, view.length(depth, 18), view.length(depth, 18), lamp)
    top = view.y(depth, 345)
    canvas.line((centre[0], top), (centre[0] + view.length(depth, 50), view.y(depth, 420)), 2, glass)


def bicycle(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a bicycle from the side: two thin rings and a frame."""
    x, y = view.x(depth, lateral), view.y(depth)
    radius, reach = view.length(depth, 36), view.length(depth, 54)
    thin = max(radius // 5, 1)
    tyre = Material(label=TrainId.BICYCLE, colour=RUBBER)
    hub = y - radius
    for wheel in (x - reach, x + reach):
        canvas.ellipse((wheel, hub), radius, radius, tyre, hole=radius - thin - 1)
    frame = Material(label=TrainId.BICYCLE, colour=random.pick(PAINTS[2:]))
    saddle, bar = (x - reach // 3, y - radius * 5 // 2), (x + reach * 2 // 3, y - radius * 5 // 2)
    crank = (x, hub)
    width = max(thin, 2)
    for start, end in (
        ((x - reach, hub), crank),
        ((x - reach, hub), saddle),
        (crank, saddle),
        (crank, bar),
        (saddle, bar),
        (bar, (x + reach, hub)),
    ):
        canvas.line(start, end, width, frame)


def motorcycle(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw a motorcycle from the side: two thick wheels, a tank and an engine."""
    x, y = view.x(depth, lateral), view.y(depth)
    radius, reach = view.length(depth, 32), view.length(depth, 70)
    tyre = Material(label=TrainId.MOTORCYCLE, colour=RUBBER)
    chrome = Material(label=TrainId.MOTORCYCLE, colour=(150, 150, 158), grain=40, blotch=2)
    paint = Material(label=TrainId.MOTORCYCLE, colour=random.pick(PAINTS[1:]), grain=10, blotch=2)
    hub = y - radius
    for wheel in (x - reach, x + reach):
        canvas.ellipse((wheel, hub), radius, radius, tyre)
        canvas.ellipse((wheel, hub), radius // 2, radius // 2, chrome)
    canvas.rectangle(x - reach // 2, hub - radius // 2, x + reach // 2, y - radius // 3, chrome)
    seat, bar = y - radius * 5 // 2, y - radius * 7 // 2
    canvas.polygon(
        [(x - reach, seat), (x + reach * 2 // 3, seat - radius // 2), (x + reach // 2, hub), (x - reach // 2, hub)],
        paint,
    )
    canvas.line((x + reach, hub), (x + reach * 2 // 3, bar), max(radius // 4, 2), chrome)


def rider(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw somebody who rides: leaning forward, one leg on the pedal, a helmet."""
    coat = Material(label=TrainId.RIDER, colour=random.pick(CLOTHES), grain=16, blotch=2)
    legs = Material(label=TrainId.RIDER, colour=random.pick(CLOTHES), grain=16, blotch=2)
    helmet = Material(label=TrainId.RIDER, colour=random.pick(PAINTS))
    skin = Material(label=TrainId.RIDER, colour=random.pick(SKINS))
    width = view.length(depth, 34)

    def at(right: int, height: int) -> tuple[int, int]:
        return view.x(depth, lateral + right), view.y(depth, height)

    canvas.line(at(-18, 88), at(12, 60), view.length(depth, 20), legs)
    canvas.line(at(12, 62), at(0, 22), view.length(depth, 16), legs)
    canvas.line(at(-18, 86), at(10, 140), width, coat)
    canvas.line(at(10, 132), at(38, 98), view.length(depth, 12), coat)
    canvas.ellipse(at(16, 156), view.length(depth, 13), view.length(depth, 16), skin)
    canvas.ellipse(at(14, 164), view.length(depth, 15), view.length(depth, 11), helmet)


def person(canvas: Canvas, view: View, depth: int, lateral: int, random: SplitMix64) -> None:
    """Draw somebody on foot: head, coat, arms and two legs in mid-stride."""
    tall = random.between(150, 192)
    coat = Material(label=TrainId.PERSON, colour=random.pick(CLOTHES), grain=16, blotch=2)
    legs = Material(label=TrainId.PERSON, colour=random.pick(CLOTHES), grain=16, blotch=2)
    skin = Material(label=TrainId.PERSON, colour=random.pick(SKINS))
    hair = Material(label=TrainId.PERSON, colour=random.pick(((35, 25, 20), (95, 65, 35), (160, 150, 140))))
    stride = random.between(4, 20)

    def at(right: int, per_mille: int) -> tuple[int, int]:
        return view.x(depth, lateral + right), view.y(depth, tall * per_mille // 1000)

    for foot in (-stride, stride):
        canvas.line(at(foot // 2, 480), at(foot, 0), view.length(depth, 17), legs)
    for hand in (-24 - stride // 2, 24 + stride // 2):
        canvas.line(at(hand * 2 // 3, 800), at(hand, 460), view.length(depth, 11), coat)
    canvas.polygon([at(-21, 820), at(21, 820), at(17, 450), at(-17, 450)], coat)
    canvas.ellipse(at(0, 920), view.length(depth, 11), view.length(depth, 14), skin)
    canvas.ellipse(at(0, 955), view.length(depth, 11), view.length(depth, 9), hair)


def _panel(canvas: Canvas, view: View, depth: int, edges: tuple[int, int, int, int], material: Material) -> None:
    """Draw an upright plate facing the camera; edges are left, right, bottom, top in centimetres."""
    left, right, bottom, top = edges
    canvas.rectangle(view.x(depth, left), view.y(depth, top), view.x(depth, right), view.y(depth, bottom), material)


def _box(
    canvas: Canvas, view: View, depths: tuple[int, int], edges: tuple[int, int, int, int], material: Material
) -> None:
    """Draw a cuboid from depth near to far: the side that the camera sees, then the face."""
    near, far = depths
    left, right, bottom, top = edges
    flank = left if left > 0 else right
    darker = tuple(max(channel * 3 // 4, 0) for channel in material.colour)
    shadow = Material(
        label=material.label,
        colour=(darker[0], darker[1], darker[2]),
        grain=material.grain,
        blotch=material.blotch,
        shade=material.shade,
    )
    corners = [(near, top), (far, top), (far, bottom), (near, bottom)]
    canvas.polygon([(view.x(d, flank), view.y(d, height)) for d, height in corners], shadow)
    _panel(canvas, view, near, edges, material)
