"""Figures of matplotlib that look as out of the box, whatever the user's configuration says, so that bytes repeat."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE = "#333333", "#888888"


@contextmanager
def new_figure(width: float, height: float, *, font: float = 10.0) -> Iterator["Figure"]:
    """Make a figure through the object interface: no window system, no global figure.

    Args:
        width: In hundreds of pixels.
        height: Likewise.
        font: Size of the letters in points; those of a legend are smaller by one.

    Yields:
        The figure, to be drawn and written while this style holds.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "agg.path.chunksize": 10000,
                "axes.edgecolor": PALE,
                "axes.grid": True,
                "axes.spines.right": False,
                "axes.spines.top": False,
                "font.size": font,
                "grid.color": "#e6e6e6",
                "legend.fontsize": font - 1,
                "legend.frameon": False,
            }
        )
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def png(figure: "Figure") -> bytes:
    """Return a figure as the content of a PNG file."""
    content = BytesIO()
    figure.canvas.print_figure(content, format="png", metadata={"Software": None})
    return content.getvalue()
