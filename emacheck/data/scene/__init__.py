"""Draws the street scenes of the synthetic Cityscapes, in integers only.

No float and no libm touches a pixel, and the randomness is a published integer hash: the same seed gives the same
bytes on every machine, with every Python and every numpy.

    splitmix.py   the random integers
    canvas.py     polygons and ellipses that write an image and its labels together
    street.py     what stands still: sky, ground, facades, trees, poles
    traffic.py    what moves: vehicles, riders, persons
"""

from emacheck.data.scene.street import HEIGHT, WIDTH, draw_scene

__all__ = ["HEIGHT", "WIDTH", "draw_scene"]
