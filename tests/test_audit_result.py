"""What an audit hands over: its result as JSON, text and picture, and the state that it began from."""

import json

import pytest

torch = pytest.importorskip("torch")

from small_network import audited, set_on  # noqa: E402

from emacheck.audit.findings.picture import draw  # noqa: E402
from emacheck.audit.findings.result import AuditResult  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.iteration.state import load_state, save_state, state_digest  # noqa: E402
from emacheck.errors import DataError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


def test_the_result_is_strict_json_and_readable(subject):
    result = audited(subject, set_on("blocks.0.bn", eps=1e-3))
    fields = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (fields["outcome"], fields["module"], fields["phase"]) == ("FAIL", "blocks.0.bn", "forward")
    assert len(fields["state_hash"]) == 64
    assert fields["peak_memory_bytes"] > 0
    lines = text(result, command="emacheck audit").splitlines()
    assert lines[-1].startswith("FAIL audit blocks.0.bn ")
    assert lines[-1].endswith(", first in phase forward | emacheck audit")
    shown = str(result).splitlines()
    assert shown[0] == f"FAIL audit on cpu in fp32: {len(result.errors)} tensors compared"
    assert shown[1].startswith("FAIL blocks.0.bn (BatchNorm2d) is wrong on the reference's own inputs: ")
    assert len(shown) == 1 + len(result.findings) + len(result.notes)
    assert draw(result).startswith(b"\x89PNG")
    assert draw(result) == draw(result)


def test_nothing_compared_is_inconclusive():
    assert AuditResult(device="cpu", precision="fp32", errors=(), findings=()).outcome is Outcome.INCONCLUSIVE


def test_a_state_that_does_not_match_its_hash_is_refused(tmp_path, subject):
    state = {"model": dict(subject[0].state_dict()), "optimizer": subject[1].state_dict()}
    digest = save_state(tmp_path / "state", state)
    loaded, found = load_state(tmp_path / "state")
    assert found == digest == state_digest(loaded)
    loaded["model"]["stem.bias"][0] += 1e-3
    torch.save(loaded, tmp_path / "state" / "state.pt")
    with pytest.raises(DataError, match="does not match its hash"):
        load_state(tmp_path / "state")
    (tmp_path / "state" / "state.json").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path / "state")
