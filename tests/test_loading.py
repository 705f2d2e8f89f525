"""A batch that finds no room in shared memory ends the training with a message, in place of a wait for ever."""

import subprocess
import sys

import pytest

from emacheck.train.doctor import host
from emacheck.train.doctor.line import Status
from emacheck.train.launching.hints import hint_of
from emacheck.train.launching.last_words import last_words_in
from emacheck.train.request import WORKER_LOG

torch = pytest.importorskip("torch")

from emacheck.train.loading import EndingWithItsBatch  # noqa: E402

SMALL_SHARED_MEMORY = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh"]


class TooLarge:
    """What cannot be handed over, as a tensor where shared memory is full."""

    def __reduce__(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return TooLarge()


def as_they_are(batch):
    return batch


def test_a_process_that_cannot_hand_over_a_batch_ends_and_its_training_learns_of_it(capfd):
    called = []
    prepare = EndingWithItsBatch(called.append)
    loader = torch.utils.data.DataLoader(Samples(), num_workers=1, collate_fn=as_they_are, worker_init_fn=prepare)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(iter(loader))
    assert "unable to allocate shared memory" in capfd.readouterr().err


def test_what_such_a_process_was_to_do_first_is_done():
    called = []
    from multiprocessing.queues import Queue

    before = Queue._on_queue_feeder_error
    try:
        EndingWithItsBatch(called.append)(3)
        EndingWithItsBatch(None)(4)
    finally:
        Queue._on_queue_feeder_error = before
    assert called == [3]


def test_the_loaders_of_a_training_are_prepared_so_and_seeded_as_mmengine_does():
    runner = pytest.importorskip("emacheck.train.runner")
    sampler = {"type": "DefaultSampler", "shuffle": False}
    made = runner.SeededRunner.build_dataloader({"batch_size": 1, "dataset": Samples(), "sampler": sampler}, seed=5)
    assert isinstance(made.worker_init_fn, EndingWithItsBatch)
    assert made.worker_init_fn.initialise.keywords["seed"] == 5


@pytest.mark.parametrize(
    "printed",
    [
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)",
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        "    sl = self._semlock = _multiprocessing.SemLock(\nFileNotFoundError: [Errno 2] No such file or directory",
    ],
)
def test_a_training_without_shared_memory_says_what_to_do(tmp_path, printed):
    log = tmp_path / WORKER_LOG
    log.write_text(f"{printed}\n" + "Traceback\n" * 40)
    said = hint_of(last_words_in(log), log)
    assert "docker run --shm-size 8g, or load without them: --cfg-options" in said
    for said in ("CUDA out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"):
        log.write_text(f"RuntimeError: {said}\n")
        assert hint_of(last_words_in(log), log) == "\nIt ran out of memory."


@pytest.mark.parametrize(("size", "status"), [(64 << 20, Status.WARNING), (8 << 30, Status.OK)])
def test_the_doctor_warns_of_little_shared_memory(monkeypatch, size, status):
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: host.shutil._ntuple_diskusage(size, 0, size))
    (line,) = host.shared_memory_lines()
    assert (line.name, line.status) == ("shm", status)


def test_the_doctor_says_nothing_of_shared_memory_that_it_cannot_see(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "SHARED_MEMORY", tmp_path / "nowhere")
    assert list(host.shared_memory_lines()) == []


@pytest.mark.slow
@pytest.mark.training
def test_a_training_whose_batches_find_no_room_ends_at_once(tmp_path):
    if subprocess.run([*SMALL_SHARED_MEMORY, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small /dev/shm")
    command = ["-m", "emacheck", "run", "--device", "cpu", "--iters", "2", "--no-audit", "--work-dir", "out"]
    workers = ["train_dataloader.num_workers=1", "train_dataloader.persistent_workers=True"]
    done = subprocess.run(
        [*SMALL_SHARED_MEMORY, sys.executable, *command, "--cfg-options", *workers],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "The processes that load data found no room in shared memory (/dev/shm has 0 MiB)" in done.stderr
    assert "hung" not in done.stderr
