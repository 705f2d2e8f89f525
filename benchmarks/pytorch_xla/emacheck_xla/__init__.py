"""The device ``xla``; it is looked up without importing torch."""

from emacheck.train.device.devices import DeviceKind

KIND = DeviceKind(
    type="xla",
    title="PyTorch/XLA",
    module="emacheck_xla.device",
    backend="xla",
    precisions=("fp32", "bf16"),
    amp="bf16",
    versions=("torch_xla.__version__",),
    variables=("PJRT_", "XLA_", "EMACHECK_XLA_"),
    lowering_variables=("XLA_USE_BF16", "XLA_DOWNCAST_BF16"),
    mark_step="torch_xla.sync",
)
