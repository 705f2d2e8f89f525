"""What a stored reference started with and saw is drawn here as well, whatever torch, OpenCV and processor there are.

A host that fails here can be held against references that were trained on it alone (``--reference-device``).
"""

from itertools import islice

from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from mmseg.utils import register_all_modules

from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
from emacheck.record import hash_of_samples
from emacheck.reference.stored import find_bundle
from emacheck.train.paired import batches, draws
from emacheck.train.paired.fingerprint import sample_hashes, state_hash
from emacheck.train.presets import resolve
from emacheck.train.request import TrainingRequest


def test_weights_and_batches_are_those_of_the_stored_reference(tmp_path):
    reference = find_bundle("emanet_r50-d8_smoke/cpu-fp32").record
    data = ensure_dataset(cache_root() / DEFAULT_NAME).root
    config, _ = resolve(TrainingRequest(preset="smoke", config=None, data_root=str(data)), tmp_path)
    register_all_modules()
    with draws.OwnDraws(0) as own:
        model = MODELS.build(config.model)
        model.init_weights()
    own.redraw(model)
    assert state_hash(model) == reference.initial_state

    loader = batches.independent_of_workers(config.train_dataloader, 0)
    samples = batches.SeededSamples(loader["dataset"]["dataset"], 0)
    order = batches.PlacingSampler(loader["sampler"]["sampler"], samples, 0)
    hashes = [sample_hashes(pseudo_collate([samples[index]]))[0] for index in islice(order, 10)]
    assert tuple(map(hash_of_samples, zip(hashes[::2], hashes[1::2], strict=True))) == reference.batches[:5]
