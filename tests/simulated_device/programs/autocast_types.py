"""Compare autocast on the CPU, with an accelerator's lists and with its own, to autocast on the simulated device."""

import json
import sys
import warnings

import torch
import torch_sdaa  # noqa: F401 - registers the device

from emacheck.dispatch.autocast import accelerator_lists

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
F = torch.nn.functional
DTYPE = getattr(torch, sys.argv[1])
SQUARE, VECTOR, IMAGE = torch.rand(6, 6) + 0.5, torch.rand(6) + 0.5, torch.rand(2, 6, 6, 6) + 0.5
LABELS = torch.randint(0, 6, (2, 6, 6))
GRID = torch.rand(2, 3, 3, 2) * 2 - 1

CALLS = {
    "matmul": lambda x: x @ x,
    "linear": lambda x: F.linear(x, SQUARE.to(x)),
    "addmm": lambda x: torch.addmm(x, x, x),
    "mv": lambda x: torch.mv(x, VECTOR.to(x)),
    "addmv": lambda x: torch.addmv(VECTOR.to(x), x, VECTOR.to(x)),
    "addr": lambda x: torch.addr(x, VECTOR.to(x), VECTOR.to(x)),
    "chain": lambda x: torch.linalg.multi_dot([x, x, x]),
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "baddbmm": lambda x: torch.baddbmm(x[None], x[None], x[None]),
    "conv1d": lambda x: F.conv1d(x[None], x[:, :, None]),
    "softmax": lambda x: x.softmax(1),
    "softmax, of a type": lambda x: x.softmax(1, dtype=torch.bfloat16),
    "log_softmax": lambda x: x.log_softmax(1),
    "softmin": lambda x: F.softmin(x, 1),
    "sum": lambda x: x.sum(),
    "sum, of a dimension": lambda x: x.sum(dim=1, keepdim=True),
    "prod": lambda x: x.prod(),
    "prod, of a dimension": lambda x: x.prod(1),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(1),
    "mean": lambda x: x.mean(),
    "norm": lambda x: x.norm(),
    "norm, of a dimension": lambda x: x.norm(dim=1, keepdim=True),
    "vector norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "matrix norm": torch.linalg.matrix_norm,
    "normalize": lambda x: F.normalize(x, dim=1),
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log(),
    "log1p": lambda x: x.log1p(),
    "log2": lambda x: x.log2(),
    "log10": lambda x: x.log10(),
    "reciprocal": lambda x: x.reciprocal(),
    "rsqrt": lambda x: x.rsqrt(),
    "sqrt": lambda x: x.sqrt(),
    "tan": lambda x: x.tan(),
    "sinh": lambda x: x.sinh(),
    "cosh": lambda x: x.cosh(),
    "asin": lambda x: (x / 4).asin(),
    "acos": lambda x: (x / 4).acos(),
    "erfinv": lambda x: (x / 4).erfinv(),
    "power": lambda x: x**3,
    "power of a number": lambda x: 2.0**x,
    "power of a tensor": lambda x: x**x,
    "softplus": F.softplus,
    "layer norm": lambda x: F.layer_norm(x, (6,)),
    "group norm": lambda x: F.group_norm(x[None], 2),
    "batch norm": lambda x: F.batch_norm(x, None, None, training=True),
    "cosine similarity": lambda x: F.cosine_similarity(x, x.flip(0)),
    "logsumexp": lambda x: x.logsumexp(1),
    "renorm": lambda x: x.renorm(2, 0, 1.0),
    "dist": lambda x: torch.dist(x, x.flip(0)),
    "cdist": lambda x: torch.cdist(x, x.flip(0)),
    "pdist": F.pdist,
    "mse_loss": lambda x: F.mse_loss(x, x.flip(0)),
    "l1_loss": lambda x: F.l1_loss(x, x.flip(0)),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x, x.flip(0)),
    "huber_loss": lambda x: F.huber_loss(x, x.flip(0)),
    "kl_div": lambda x: F.kl_div(x, x.flip(0), reduction="batchmean"),
    "binary cross entropy with logits": lambda x: F.binary_cross_entropy_with_logits(x, x.flip(0)),
    "cross_entropy": lambda x: F.cross_entropy(x, LABELS[0, 0].to(x.device)),
    "cross_entropy, of images": lambda x: F.cross_entropy(image(x), LABELS.to(x.device), reduction="none"),
    "nll_loss": lambda x: F.nll_loss(x, LABELS[0, 0].to(x.device)),
    "interpolate, bilinear": lambda x: F.interpolate(image(x), scale_factor=2.0, mode="bilinear"),
    "interpolate, bicubic": lambda x: F.interpolate(image(x), scale_factor=2.0, mode="bicubic"),
    "interpolate, nearest": lambda x: F.interpolate(image(x), scale_factor=2.0),
    "interpolate, antialiased": lambda x: F.interpolate(image(x), scale_factor=0.5, mode="bilinear", antialias=True),
    "conv2d": lambda x: F.conv2d(image(x), image(x)[:, :, :3, :3]),
    "conv2d, same": lambda x: F.conv2d(image(x), image(x)[:, :, :3, :3], padding="same"),
    "conv_transpose2d": lambda x: F.conv_transpose2d(image(x), image(x)[0, :, None, :3, :3].repeat(1, 2, 1, 1)),
    "prelu": lambda x: F.prelu(image(x), VECTOR.to(x)),
    "avg_pool2d": lambda x: F.avg_pool2d(image(x), 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(image(x), 2),
    "max_pool2d": lambda x: F.max_pool2d(image(x), 2),
    "reflection pad": lambda x: F.pad(image(x), (1, 1, 1, 1), mode="reflect"),
    "replication pad": lambda x: F.pad(image(x), (1, 1, 1, 1), mode="replicate"),
    "grid_sample": lambda x: F.grid_sample(image(x), GRID.to(x.device), align_corners=False),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    "cat, of both types": lambda x: torch.cat([x, x.float()]),
    "stack, of both types": lambda x: torch.stack([x, x.float()]),
    "addcmul, of both types": lambda x: torch.addcmul(x, x.float(), x),
    "addcdiv": lambda x: torch.addcdiv(x, x, x),
    "atan2": lambda x: torch.atan2(x, x),
    "dot": lambda x: torch.dot(x[0], x[1]),
    "tensordot": lambda x: torch.tensordot(x, x, 1),
    "bilinear, of both types": lambda x: F.bilinear(x, x.float(), x.repeat(2, 1, 1)),
    "index_put": lambda x: torch.index_put(x, [torch.tensor([0], device=x.device)], x[1]),
    "scatter_add": lambda x: torch.scatter_add(x, 0, torch.zeros(1, 6, dtype=torch.long, device=x.device), x[:1]),
    "trace": lambda x: x.trace(),
    "quotient by a sum": lambda x: x / (1e-6 + x.sum(dim=1, keepdim=True)),
}


def image(x):
    """Return a batch of images of the same type at the same place."""
    return IMAGE.to(x)


def outcome(call, value, *, enabled=True):
    """Return the type of a result and its bits; None where it is refused."""
    try:
        with torch.autocast(value.device.type, dtype=DTYPE, enabled=enabled):
            result = call(value)
    except (RuntimeError, NotImplementedError):
        return None
    return str(result.dtype), result.cpu().float().numpy().tobytes()


def unlike():
    """Name the calls whose result has another type on the device, or other bits, for float32 and for 16-bit inputs."""
    names = []
    for name in COMPARED:
        for dtype in (torch.float32, DTYPE):
            ours = outcome(CALLS[name], SQUARE.to(dtype))
            theirs = outcome(CALLS[name], SQUARE.to(dtype).to("sdaa"))
            if ours[0] != theirs[0] or (name in SAME_KERNEL and ours != theirs):
                names.append(name)
    return sorted(set(names))


# torch before 2.5 does not write a mean of 16 bits into `out` on a CPU, and a device of others' operators needs that.
WRITTEN = torch.zeros((), dtype=DTYPE)
torch.mean(SQUARE.to(DTYPE), (0, 1), out=WRITTEN)
if WRITTEN == 0:
    del CALLS["mean"]

COMPARED = [
    name
    for name, call in CALLS.items()
    if None
    not in [outcome(call, SQUARE.to(place, dtype)) for place in ("cpu", "sdaa") for dtype in (torch.float32, DTYPE)]
]
# The device composes a few operators of others, and so they round otherwise without autocast as well.
SAME_KERNEL = {
    name
    for name in COMPARED
    if outcome(CALLS[name], SQUARE, enabled=False) == outcome(CALLS[name], SQUARE.to("sdaa"), enabled=False)
}
with accelerator_lists():
    like_accelerators = unlike()
print(
    json.dumps(
        {
            "compared": COMPARED,
            "compared bit by bit": sorted(SAME_KERNEL),
            "unlike": like_accelerators,
            "unlike with the CPU's lists": unlike(),
        }
    )
)
