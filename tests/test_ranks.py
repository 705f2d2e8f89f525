"""What the processes of a training do together, in two real processes that talk through gloo."""

import os
import socket

import pytest
from conftest import free_port
from simulated_device import PACKAGE

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.training
NODE_1 = f"node 1 ({socket.gethostname()})"
SIZES = (3, 1)  # the ranks need not have batches of one size
TYPES = (torch.float32, torch.bfloat16)


def as_rank(rank, work, folder):
    """Run ``work`` as one of two ranks."""
    from emacheck.train.ranks import leave

    os.environ.update({"RANK": str(rank), "WORLD_SIZE": "2"})
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(work(rank), f"{folder}/{rank}.pt")
    leave()
    os._exit(0)  # as the worker does: gloo's threads survive no orderly end of the interpreter


def on_two_ranks(work, folder):
    torch.multiprocessing.spawn(as_rank, (work, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def make_layer(kind):
    layer = kind(4, momentum=0.3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.0, -2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0, -1.0]))
    return layer


def batches():
    generator = torch.Generator().manual_seed(0)
    # A mean far from zero: a difference of large squares would lose the variance.
    whole = 1000 + torch.randn(sum(SIZES), 4, 5, 6, generator=generator)
    return whole, torch.randn(whole.shape, generator=generator), whole.split(SIZES)


def normalise(layer, batch, direction):
    batch = batch.clone().requires_grad_()
    output = layer(batch)
    (output * direction).sum().backward()
    tensors = (output, batch.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var)
    return [tensor.detach() for tensor in tensors]


def normalise_rank(rank):
    from emacheck.train.device.sync_bn import HostSyncBatchNorm, synchronise_on_host

    _, direction, parts = batches()
    made = []
    for dtype in TYPES:
        layer = make_layer(torch.nn.SyncBatchNorm)
        assert synchronise_on_host(torch.nn.Sequential(layer)) == 1
        assert type(layer) is HostSyncBatchNorm
        made.append(normalise(layer, parts[rank].to(dtype), direction.split(SIZES)[rank].to(dtype)))
    return made


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """What both ranks made of their batches, in float32 and in bfloat16."""
    return dict(
        zip(TYPES, zip(*on_two_ranks(normalise_rank, tmp_path_factory.mktemp("ranks")), strict=True), strict=True)
    )


def test_batch_norm_over_two_ranks_is_batch_norm_over_the_joined_batch(normalised):
    first, second = normalised[torch.float32]
    whole, direction, _ = batches()
    exact = normalise(make_layer(torch.nn.BatchNorm2d).double(), whole.double(), direction.double())
    usual = normalise(make_layer(torch.nn.BatchNorm2d), whole, direction)
    ours = [torch.cat([first[at], second[at]]) for at in (0, 1)]  # output and gradient of the input
    ours += [first[at] + second[at] for at in (2, 3)]  # gradients of weight and bias
    ours += [first[at] for at in (4, 5)]  # running mean and variance
    for found, theirs, wanted in zip(ours, usual, exact, strict=True):
        assert torch.linalg.norm(found - wanted) <= 1.5 * torch.linalg.norm(theirs - wanted)
    for at in (4, 5):
        assert torch.equal(first[at], second[at])


def test_a_batch_of_fewer_bits_is_normalised_like_the_same_batch_in_float32(normalised):
    first, second = normalised[torch.bfloat16]
    whole, direction, _ = (each.bfloat16().float() if torch.is_tensor(each) else each for each in batches())
    wanted = normalise(make_layer(torch.nn.BatchNorm2d), whole, direction)
    for at in (0, 1):
        joined = torch.cat([first[at], second[at]])
        assert joined.dtype == torch.bfloat16
        # Half a unit in the last of bfloat16's 8 digits.
        torch.testing.assert_close(joined.float(), wanted[at], rtol=2.0**-8, atol=1e-4)
    assert torch.equal(first[4], second[4])
    torch.testing.assert_close(first[4], wanted[4], rtol=1e-6, atol=0)


def test_in_evaluation_it_is_the_usual_batch_norm():
    from emacheck.train.device.sync_bn import synchronise_on_host

    layer, usual = make_layer(torch.nn.SyncBatchNorm).eval(), make_layer(torch.nn.BatchNorm2d).eval()
    synchronise_on_host(layer)
    batch = torch.randn(2, 4, 3, 3)
    assert torch.equal(layer(batch), usual(batch))


def compare_rank(rank):
    from emacheck.errors import TrainingError
    from emacheck.train.ranks import require_equal_ranks

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    torch.nn.init.ones_(model[0].weight)
    torch.nn.init.zeros_(model[0].bias)
    model[1].running_mean += rank  # of a rank's own samples, so it may differ
    require_equal_ranks(model, "before training")
    with torch.no_grad():
        model[0].bias[1] = rank * 2.0**-126
    try:
        require_equal_ranks(model, "after training")
    except TrainingError as error:
        return str(error)
    return None


def test_ranks_that_differ_in_one_bit_are_an_error_on_every_rank(tmp_path):
    said = on_two_ranks(compare_rank, tmp_path)
    assert said[0] == said[1]
    assert "not equal after training: rank 1 differs from rank 0 in 1 of 4 tensors: 0.bias" in said[0]


def test_the_odd_rank_is_named_where_most_agree():
    from emacheck.train.ranks import describe_differences

    said = describe_differences({0: {"w": "b"}, 1: {"w": "a"}, 2: {"w": "a"}})
    assert said == "rank 0 differs from rank 1 in 1 of 1 tensors: w"
    assert describe_differences({0: {"w": "a"}, 1: {"w": "a"}}) is None


def task(rank, **config):
    return {"precision": "bf16" if rank else "fp32", "iterations": 3, "config": {"lr": 0.01, **config}}


def agree_on_rank(rank, mine, refusal):
    from emacheck.errors import UsageError
    from emacheck.train.ranks import agree

    os.environ.update({"GROUP_RANK": str(rank), "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "localhost"})
    try:
        agree(mine, refusal)
    except UsageError as error:
        return str(error)
    return None


def agree_on_the_same(rank):
    return agree_on_rank(rank, task(0), None)


def disagree(rank):
    return agree_on_rank(rank, task(rank, seed=rank), "never said")


def refuse_on_rank_1(rank):
    return agree_on_rank(rank, task(0), "not this one" if rank else None)


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", str(free_port()))


def test_ranks_that_are_asked_for_the_same_go_on(tmp_path, port):
    assert on_two_ranks(agree_on_the_same, tmp_path) == [None, None]


def test_ranks_that_are_asked_for_different_things_refuse_on_every_rank(tmp_path, port):
    first, second = on_two_ranks(disagree, tmp_path)
    assert first == second
    assert f"  {NODE_1}: precision: rank 0 'fp32', rank 1 'bf16'\n  {NODE_1}: seed: rank 0 0, rank 1 1\n" in first
    assert "only --node-rank, --work-dir and the place of the data may differ" in first


def test_what_one_rank_refuses_all_refuse(tmp_path, port):
    assert on_two_ranks(refuse_on_rank_1, tmp_path) == [f"on {NODE_1}: not this one", "not this one"]


def open_own_device(rank):
    from emacheck.errors import UsageError
    from emacheck.train.device.devices import parse_device
    from emacheck.train.ranks import open_device_of_rank

    os.environ.update({"GROUP_RANK": str(rank), "LOCAL_RANK": str(rank)})
    os.environ.update({"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "localhost"})
    with pytest.raises(UsageError) as refused:
        open_device_of_rank(parse_device("sdaa"), None)
    return str(refused.value)


def test_a_device_that_one_rank_lacks_is_refused_by_every_rank_at_once(tmp_path, port, monkeypatch, simulated_device):
    for name, value in simulated_device(devices=1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(PACKAGE)  # the ranks are given this path, not PYTHONPATH
    first, second = on_two_ranks(open_own_device, tmp_path)
    assert first == f"on {NODE_1}: {second}"
    assert "sees 1 sdaa device, expected at least 2" in second


@pytest.mark.parametrize(("started", "refused"), [(1, True), (2, False), (3, True)])
def test_another_number_of_processes_than_was_asked_for_is_refused(monkeypatch, started, refused):
    """As where a rendezvous takes a node with another clock for dead, or nodes name other numbers."""
    from emacheck.train import ranks

    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": started, "EMACHECK_PROCESSES": "2 x 1"}.items():
        monkeypatch.setenv(name, str(value))
    said = ranks._other_number_than_asked_for()
    assert (said is not None) == refused
    assert not refused or said.startswith(
        f"found {started} rank{'s' * (started > 1)} on all nodes together, expected 2 x 1"
    )


def test_one_process_refuses_by_itself():
    from emacheck.errors import UsageError
    from emacheck.train.ranks import agree

    agree(task(0))
    with pytest.raises(UsageError, match=r"^not this one$"):
        agree(task(0), "not this one")


def test_nodes_with_other_software_are_asked_for_different_things(monkeypatch):
    from emacheck.train import provenance
    from emacheck.train.device.devices import parse_device
    from emacheck.train.ranks import describe_other_tasks
    from emacheck.train.request import TrainingRequest
    from emacheck.train.worker import describe_task

    def task_of(**versions):
        monkeypatch.setattr(provenance, "versions", lambda: {"emacheck": "1", "python": "3.11.1", **versions})
        return describe_task(TrainingRequest(preset="smoke", config=None), {}, parse_device("cpu"))

    said = describe_other_tasks(
        [("node 0", task_of(torch="2.12")), ("node 1", task_of(torch="2.13", mmengine="0.10.7"))]
    )
    assert "  node 1: version of torch: rank 0 '2.12', rank 1 '2.13'" in said
    assert "  node 1: version of mmengine: rank 0 nothing, rank 1 '0.10.7'" in said
    assert "the same software on every node" in said
    assert describe_other_tasks([("node 0", task_of()), ("node 1", task_of(python="3.11.2"))]) is None


def test_the_record_names_the_devices_of_other_ranks_where_they_are_others():
    from emacheck.train.ranks import describe_other_devices

    card = {"type": "sdaa", "name": "new card", "count": "4", "driver": "2.0"}
    assert describe_other_devices([card, {**card, "count": "2"}]) == {}
    other = {"type": "sdaa", "name": "old card", "capability": "3"}
    assert describe_other_devices([card, card, other]) == {"rank 2": "name: old card, driver: nothing, capability: 3"}


def test_each_node_with_other_options_is_named_once():
    from emacheck.train.ranks import describe_other_tasks

    nodes = ("node 0", "node 0", "node 1", "node 1", "node 2")
    said = describe_other_tasks([(node, task(int(node != "node 0"))) for node in nodes])
    assert [line for line in said.splitlines() if line.startswith("  ")] == [
        "  node 1: precision: rank 0 'fp32', rank 2 'bf16'",
        "  node 2: precision: rank 0 'fp32', rank 4 'bf16'",
    ]
    many = {f"key{number}": number for number in range(40)}
    assert "  ... and 20 more" in describe_other_tasks([("node 0", task(0)), ("node 1", task(0, **many))])
    assert describe_other_tasks([("node 0", task(0)), ("node 1", task(0))]) is None
