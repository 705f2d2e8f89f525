"""What an audit in processes of its own leaves behind, and what it says of nodes that it did not audit."""

import contextlib
import shutil
from dataclasses import replace

import pytest

from emacheck.cli.audit.before import _log, _of_nodes
from emacheck.cli.audit.ranks import scratch_directory
from emacheck.errors import TrainingError, UsageError
from emacheck.train.launching.processes import Processes


def raised(error):
    """Expect an error, if there is one."""
    return contextlib.nullcontext() if error is None else pytest.raises(type(error))


@pytest.mark.parametrize(
    ("error", "printed", "kept"),
    [
        (None, "", True),
        (UsageError("no such device"), "words", False),
        (TrainingError("it crashed"), "last words", True),
        (TrainingError("it crashed"), "", False),
        (TrainingError("it crashed at once"), None, False),
        (KeyboardInterrupt(), "", False),
    ],
)
def test_a_log_of_the_audit_stays_unless_the_audit_was_refused_or_said_nothing(tmp_path, error, printed, kept):
    with raised(error), _log(tmp_path) as log:
        if printed is not None:
            log.write_text(printed)
        if error is not None:
            raise error
    assert (tmp_path / "audit.log").is_file() == kept


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (None, False),
        (TrainingError("what the processes printed is kept in {}"), True),
        (TrainingError("it crashed"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_processes_print_stays_where_a_message_names_it_and_their_tensors_never_do(error, kept):
    with raised(error), scratch_directory() as directory:
        (directory / "batch1.pt").touch()
        (directory / "output.log").touch()
        if error is not None:
            raise type(error)(str(error).format(directory))
    assert [path.name for path in directory.glob("*")] == (["output.log"] if kept else [])
    if kept:
        shutil.rmtree(directory)
    assert not directory.exists()


def test_of_several_nodes_a_note_says_which_was_audited():
    nodes = Processes(launched=True, nproc_per_node=2, nnodes=3)
    assert _of_nodes(nodes).startswith("of 3 nodes, only that of rank 0 was audited, with 2 processes; ")
    assert "with one process; " in _of_nodes(replace(nodes, nproc_per_node=1))
