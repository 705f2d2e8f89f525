"""All that makes an unchanged mmengine train on a device that it has never heard of.

mmengine (0.10.7 and onedl-mmengine 0.10.12, whose lines are given) knows cuda, npu, mlu, musa and mps by name. Nothing
of the user's installation is touched and nothing is copied from it; each place that stands in the way has an answer:

    ============================================  ======================================================================
    upstream                                      answer
    ============================================  ======================================================================
    device/utils.py:123, ``DEVICE``               ``point_mmengine_at``: read at call time, it is the only switch behind
                                                  ``get_device()``, and so behind runner/runner.py:875 (``wrap_model``)
                                                  and 2022 (``resume``)
    dist/utils.py:130, ``torch.cuda.set_device``  ``emacheck.train.accelerator.initialise_processes`` selects the device
                                                  and joins the process group before the Runner is built
    dist/utils.py, ``get_comm_device``;           the group's backend is ``cpu:gloo,sdaa:tccl``: mmengine, which does
    dist/dist.py:429, 633, 790                    not know this name, takes the CPU for objects, and that works
    ============================================  ======================================================================
"""

from emacheck.train.devices import Device


def point_mmengine_at(device: Device) -> None:
    """Make mmengine put models and checkpoints on a device.

    Args:
        device: An opened device; its number was selected when it was opened.
    """
    import mmengine.device.utils

    mmengine.device.utils.DEVICE = device.type
