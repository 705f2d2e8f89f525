"""What makes two trainings the same experiment."""

import pytest
from conftest import SHIPPED, SMOKE

from emacheck.experiment import differences, digest, flatten
from emacheck.reference.bundle import read_bundle


def test_differing_fields_are_named_with_both_values():
    ours = {"seed": 0, "precision": "fp32", "config": flatten({"optim_wrapper": {"optimizer": {"momentum": 0.9}}})}
    theirs = {"seed": 0, "config": flatten({"optim_wrapper": {"optimizer": {"momentum": 0.8, "nesterov": True}}})}
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == [
        "precision: reference 'fp32', candidate nothing",
        "optim_wrapper.optimizer.momentum: reference 0.9, candidate 0.8",
        "optim_wrapper.optimizer.nesterov: reference nothing, candidate True",
    ]


def test_what_does_not_decide_the_numbers_does_not_decide_the_experiment():
    one = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 100}, "work_dir": "a", "log_level": "INFO"}
    two = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 50}, "work_dir": "b", "default_hooks": {}}
    assert flatten(one) == flatten(two) == {"train_cfg.type": "IterBasedTrainLoop"}
    place = {"train_dataloader": {"dataset": {"data_root": "/here", "type": "CityscapesDataset"}}}
    assert flatten(place) == {"train_dataloader.dataset.type": "CityscapesDataset"}
    assert flatten({"compile": False}) == {}
    assert digest(flatten(one)) == digest(flatten(two))


@pytest.mark.parametrize("entry", [{"compile": True}, {"compile": {"backend": "eager"}}, {"sync_bn": "torch"}])
def test_what_else_a_training_computes_with_is_part_of_the_experiment(entry):
    assert flatten(entry) != flatten({})


def test_whatever_decides_the_schedule_is_part_of_the_experiment():
    def trained_for(epochs, **scheduler):
        loop = {"type": "EpochBasedTrainLoop", "max_epochs": epochs}
        return flatten({"train_cfg": loop, "param_scheduler": [{"type": "PolyLR", **scheduler}]})

    assert trained_for(10) != trained_for(20)
    assert trained_for(10, end=5) == trained_for(20, end=5)
    for schedulers in ({"type": "PolyLR"}, [{"type": "LinearLR", "end": 5}, {"type": "PolyLR"}]):
        ten, twenty = (
            flatten({"train_cfg": {"max_epochs": epochs}, "param_scheduler": schedulers}) for epochs in (10, 20)
        )
        assert differences({"config": ten}, {"config": twenty}) == ["train_cfg.max_epochs: reference 10, candidate 20"]
    usual = {"param_scheduler": {"type": "ParamSchedulerHook"}, "logger": {"type": "LoggerHook", "interval": 5}}
    assert flatten({"default_hooks": usual}) == flatten({})
    assert flatten({"default_hooks": {"param_scheduler": None}}) == {"default_hooks.param_scheduler": None}
    assert flatten({"default_hooks": {"param_scheduler": {"type": "Own"}}}) == {
        "default_hooks.param_scheduler.type": "Own"
    }
    assert flatten({"optim_wrapper": {"paramwise_cfg": {}, "clip_grad": []}}) == {
        "optim_wrapper.clip_grad": "[]",
        "optim_wrapper.paramwise_cfg": "{}",
    }


LOADED_OTHERWISE = {
    "num_workers": 4,
    "persistent_workers": True,
    "pin_memory": True,
    "prefetch_factor": 8,
    "timeout": 9,
}


@pytest.mark.parametrize(
    ("draws", "expected"), [(2, []), (1, ["train_dataloader.num_workers: reference 0, candidate 4"])]
)
def test_another_number_of_workers_is_another_experiment_only_if_samples_are_not_drawn_one_by_one(draws, expected):
    stored = {**read_bundle(SHIPPED / SMOKE).experiment, "draws": draws}
    config = {**stored["config"], **{f"train_dataloader.{key}": value for key, value in LOADED_OTHERWISE.items()}}
    found = differences(stored, {**stored, "config": config})
    assert [line for line in found if "num_workers" in line] == expected
    assert bool(found) == bool(expected)
    config["train_dataloader.sampler.shuffle"] = False
    shuffled = "train_dataloader.sampler.shuffle: reference True, candidate False"
    assert differences(stored, {**stored, "config": config}) == sorted([*found, shuffled])


def test_the_digest_of_a_stored_configuration_is_that_of_what_it_stores():
    provenance = read_bundle(SHIPPED / SMOKE).record.provenance
    assert provenance["config_hash"] == digest(provenance["experiment"]["config"])


@pytest.mark.parametrize("processes", [0, -1])
def test_an_impossible_number_of_processes_is_another_experiment_and_no_error(processes):
    two = {"processes": 2, "config": {"train_dataloader.batch_size": 1}}
    other = {"processes": processes, "config": {"train_dataloader.batch_size": 2}}
    for pair in ((two, other), (other, two)):
        assert any(line.startswith("processes: ") for line in differences(*pair))
