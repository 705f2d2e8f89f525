"""What becomes ``torch.sdaa``: the interface that PyTorch and its users expect of a device's module."""

import contextlib
from types import SimpleNamespace

import torch

from torch_sdaa import _C

__version__ = driver_version = "simulated (host memory, no driver)"


def _index(device=None):
    if device is None:
        return _C.current_device()
    if isinstance(device, int):
        index = device
    else:
        device = torch.device(device)
        if device.type not in ("sdaa", "privateuseone"):
            raise ValueError(f"expected a device of type sdaa, got {device}")
        index = _C.current_device() if device.index is None else device.index
    if not 0 <= index < device_count():
        raise RuntimeError(f"sdaa: invalid device ordinal {index}; this simulated machine has {device_count()} devices")
    return index


# ---- devices
device_count = _C.device_count
current_device = _C.current_device


def is_available():
    """Tell whether there is a device."""
    return device_count() > 0


def is_initialized():
    """Tell that nothing remains to be initialised."""
    return True


def init():
    """Initialise nothing."""


_lazy_init = init


def _is_in_bad_fork():
    return False


def set_device(device):
    """Make a device the current one."""
    _C.set_device(_index(device))


def synchronize(device=None):
    """Return at once: the simulated device is synchronous."""
    _index(device)


class device(contextlib.AbstractContextManager):  # noqa: N801 - the name that torch gives it
    """Make a device the current one within a ``with`` block."""

    def __init__(self, device):
        self._index = _index(device)

    def __enter__(self):
        self._before = _C.current_device()
        _C.set_device(self._index)

    def __exit__(self, *_):
        _C.set_device(self._before)


def get_device_name(device=None):
    """Return a name that nobody takes for hardware."""
    _index(device)
    return "simulated sdaa (host memory)"


def get_device_capability(device=None):
    """Return (0, 0): there is no hardware."""
    _index(device)
    return (0, 0)


def get_device_properties(device=None):
    """Return name, total memory in bytes and driver of a device."""
    return SimpleNamespace(
        name=get_device_name(device), total_memory=_C.total_memory(), major=0, minor=0, driver_version=driver_version
    )


# ---- memory, in bytes
def memory_allocated(device=None):
    """Return what tensors hold now."""
    return _C.memory(_index(device))[0]


def max_memory_allocated(device=None):
    """Return the most that tensors held."""
    return _C.memory(_index(device))[1]


memory_reserved, max_memory_reserved = memory_allocated, max_memory_allocated


def reset_peak_memory_stats(device=None):
    """Let the peak start anew from what is held now."""
    _C.reset_peak_memory(_index(device))


reset_max_memory_allocated = reset_peak_memory_stats


def mem_get_info(device=None):
    """Return the free and the total memory."""
    return _C.total_memory() - memory_allocated(device), _C.total_memory()


def empty_cache():
    """Do nothing: there is no cache."""


# ---- random numbers
def manual_seed(seed):
    """Seed the current device."""
    _C.default_generator(_C.current_device()).manual_seed(int(seed))


def manual_seed_all(seed):
    """Seed every device."""
    for index in range(device_count()):
        _C.default_generator(index).manual_seed(int(seed))


def seed():
    """Seed the current device from the system's entropy."""
    return _C.default_generator(_C.current_device()).seed()


def initial_seed():
    """Return the seed of the current device."""
    return _C.default_generator(_C.current_device()).initial_seed()


def get_rng_state(device="sdaa"):
    """Return the state of a device's generator."""
    return _C.default_generator(_index(device)).get_state()


def set_rng_state(new_state, device="sdaa"):
    """Set the state of a device's generator."""
    _C.default_generator(_index(device)).set_state(new_state)


# ---- precisions
def get_amp_supported_dtype():
    """Return what autocast may lower to."""
    return [torch.float16, torch.bfloat16]


def is_bf16_supported():
    """Tell that bfloat16 works."""
    return True


# ---- streams and events; all work is done when a call returns
Stream, Event = torch.Stream, torch.Event


def current_stream(device=None):
    """Return the only stream there is."""
    return torch.Stream(device=torch.device("sdaa", _index(device)))


default_stream = current_stream


def stream(_):
    """Change nothing within a ``with`` block."""
    return contextlib.nullcontext()
