"""Where networks run: what a GPU must not do to float32, and batches that travel while others are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def best() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of_preset(preset: str) -> torch.device:
    """What a training of the preset "gpu" or "cpu" works on; the CPU where there is no GPU."""
    return best() if preset == "gpu" else torch.device("cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def as_written() -> Iterator[None]:
    """Convolutions of a GPU in the precision of their tensors, and with the same bits each time; as decorator too.

    By default float32 is rounded to 10 bits of mantissa first (TF32), half a HU in air, and transposed convolutions may
    add in any order.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic = before


def through(work: Callable[[Tensor], Tensor], batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """What `work` makes of each batch, in order, on the CPU.

    On a GPU the host makes the next batch ready, and copies the last result, while this one is worked on.

    work        from a tensor on the device to one there, without looking at values
    batches     on the CPU
    """
    if device.type != "cuda":
        yield from (work(batch.to(device)).cpu() for batch in batches)
        return
    under_way: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        result = work(batch.pin_memory().to(device, non_blocking=True))
        copy = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        copy.copy_(result, non_blocking=True)
        copied = torch.cuda.current_stream(device).record_event()
        if under_way is not None:
            yield _arrived(*under_way)
        under_way = copy, copied
    if under_way is not None:
        yield _arrived(*under_way)


def _arrived(copy: Tensor, copied: torch.cuda.Event) -> Tensor:
    copied.synchronize()
    return copy
