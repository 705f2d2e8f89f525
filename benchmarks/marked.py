"""The part of a page that a script writes: what stands between its two marks."""

from collections.abc import Iterable


def between_marks(page: str, marks: tuple[str, str], lines: Iterable[str]) -> str:
    r"""Return a page with other lines between the first of two marks and the next second one.

    Raises:
        ValueError: If the page lacks one of them.

    Example:
        >>> between_marks("a<b>old<e>z", ("<b>", "<e>"), ["new"])
        'a<b>\n\nnew\n\n<e>z'
    """
    begin, end = marks
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page lacks the mark {end if found else begin}")
    return "\n".join([before + begin, "", *lines, "", end]) + after
