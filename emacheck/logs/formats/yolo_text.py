"""What YOLO prints: a header such as ``Epoch  GPU_mem  box_loss  cls_loss  Size`` over a progress bar of numbers.

The bar is redrawn while the epoch lasts, with means of the epoch so far; the last one of an epoch is its record.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import numbered
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.oddity import OddityKind
from emacheck.record import Record

NAME = "YOLO text"
_TITLES = re.compile(r"^\W*(?:\S+: )?\s*Epoch\s+(?:GPU_mem|gpu_mem)\s+(?=.*(?:loss|box|obj|cls))(.+)$")
_ROW = re.compile(
    r"(?:^|\s)(\d{1,9})/(\d{1,9})\s+([\d.]+[KMGT]?)\s+((?:[-+]?[\d.]+(?:e[-+]?\d+)?|nan|inf)[^:%]{0,400})"
)
_CLASSES = re.compile(r"^\s*Class\s+Images\s+(?:Instances|Labels|Targets)\s+(\S.*)$")
_GROUP = re.compile(r"(\w+)\(([^()]*)\)")
_ALL = re.compile(r"^\s*all\s+\d+\s+\d+\s+(.+)$")
LONGEST_LINE = 1 << 12


@dataclass(slots=True)
class _State:
    names: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    pending: tuple[int, dict[str, float], int] | None = None


def recognises(head: str) -> bool:
    """Tell whether a line has the titles of the table."""
    titles = (line[:LONGEST_LINE] for line in io.StringIO(head) if "gpu_mem" in line.lower())
    return any(_TITLES.match(line) for line in titles)


def read(lines: Iterable[str], name: str, rank: int | None = None) -> Record:
    """Read one record per epoch; the losses are means of the epoch, and there is no total."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    state = _State()
    for number, whole in numbered(lines):
        gathering.lines = number
        _take(whole[:LONGEST_LINE].rstrip(), state, gathering)
    _close(state, gathering)
    gathering.remark(OddityKind.BY_EPOCH, "there is no iteration: the epoch is taken for it")
    gathering.remark(OddityKind.AVERAGED, "the losses are means of each epoch")
    return gathering.record(averaged(gathering.curves(), 0))


def _take(line: str, state: _State, gathering: Gathering) -> None:
    if titles := _TITLES.match(line):
        state.names = titles[1].split()
    elif classes := _CLASSES.match(line):
        _close(state, gathering)
        state.scores = _scores(classes[1])
    elif scores := _ALL.match(line):
        values = dict(zip(state.scores, map(parse_number, scores[1].split()), strict=False))
        metrics = {key: value for key, value in values.items() if value is not None}
        if metrics:
            gathering.add_validation(metrics, gathering.lines)
    elif state.names and (row := _ROW.search(line)):
        _hold(row, state, gathering)
    elif not state.names:
        gathering.header.read(line)


def _scores(titles: str) -> list[str]:
    """Return the names of the scores; newer versions group them.

    Example:
        >>> _scores("Box(P  R  mAP50  mAP50-95): 100%"), _scores("P  R  mAP50: 50%"), _scores("Box(P  R)  Mask(P  R):")
        (['P', 'R', 'mAP50', 'mAP50-95'], ['P', 'R', 'mAP50'], ['Box.P', 'Box.R', 'Mask.P', 'Mask.R'])
    """
    groups = _GROUP.findall(titles)
    if not groups:
        return re.sub(r"[(:].*|@\.", "", titles).split()
    return [f"{group}.{name}" if len(groups) > 1 else name for group, names in groups for name in names.split()]


def _hold(row: re.Match[str], state: _State, gathering: Gathering) -> None:
    """Keep the newest state of the bar, and hand on that of the epoch before."""
    epoch = parse_iteration(row[1])
    words = zip(state.names, row[4].split(), strict=False)
    values = {key: text for key, text in words if parse_number(text) is not None}
    metrics = {key: float(text) for key, text in values.items() if key.lower() not in ("instances", "size", "labels")}
    if epoch is None or not metrics:
        gathering.skip("rows of the table that hold no numbers", gathering.lines)
        return
    if state.pending is not None and state.pending[0] != epoch:
        _close(state, gathering)
    for key in metrics:
        gathering.rounded_to(key, printed_unit(values[key]))
    state.pending = (epoch, metrics, gathering.lines)


def _close(state: _State, gathering: Gathering) -> None:
    if state.pending is not None:
        gathering.add(state.pending[0], state.pending[1], state.pending[2])
    state.pending = None
