"""GPUs that `dudi plan` knows: memory, dense peak rates and memory bandwidth, as their makers print them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dudi.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator, by its data sheet.

    Attributes:
        name: What `--gpu` takes.
        memory: Bytes of device memory.
        half: Dense peak of 16-bit matrix products with fp32 accumulation, in FLOP/s (no sparsity).
        single: Peak of fp32 matrix products in FLOP/s, without TF32.
        bandwidth: Bytes per second between memory and chip.
        bfloat16: Whether the chip computes in bfloat16; where not, 16-bit means float16.
    """

    name: str
    memory: int
    half: float
    single: float
    bandwidth: float
    bfloat16: bool = True


_GB = 10**9
_T = 1e12

# Sources, each the maker's public data sheet ("Tensor" rates without sparsity; where a sheet prints only the rate with
# sparsity, half of it):
#   T4         NVIDIA T4 Tensor Core GPU Datasheet (2019)
#   L4         NVIDIA L4 Tensor Core GPU Datasheet (2023): 242 with sparsity
#   A10G       NVIDIA A10G Datasheet as AWS publishes it (2022); the A10's tensor rate is higher
#   RTX-4090   NVIDIA Ada GPU Architecture whitepaper (2022), Appendix A: FP16 with FP32 accumulate
#   A100-*     NVIDIA A100 Tensor Core GPU Datasheet (2020/2021), SXM
#   H100       NVIDIA H100 Tensor Core GPU Datasheet (2023), SXM: 1,979 with sparsity
#   H200       NVIDIA H200 Tensor Core GPU Datasheet (2024), SXM: 1,979 with sparsity
#   B200       NVIDIA DGX B200 Datasheet (2024), an eighth of the system: 4,500 with sparsity; 1,440 GB; 64 TB/s
# Memory is the printed number of gigabytes, 10^9 bytes each: a driver may show a little more or less.
GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("T4", 16 * _GB, 65 * _T, 8.1 * _T, 320e9, bfloat16=False),
        Gpu("L4", 24 * _GB, 121 * _T, 30.3 * _T, 300e9),
        Gpu("A10G", 24 * _GB, 70 * _T, 35 * _T, 600e9),
        Gpu("RTX-4090", 24 * _GB, 165.2 * _T, 82.6 * _T, 1008e9),
        Gpu("A100-40", 40 * _GB, 312 * _T, 19.5 * _T, 1555e9),
        Gpu("A100-80", 80 * _GB, 312 * _T, 19.5 * _T, 2039e9),
        Gpu("H100", 80 * _GB, 989 * _T, 67 * _T, 3350e9),
        Gpu("H200", 141 * _GB, 989 * _T, 67 * _T, 4800e9),
        Gpu("B200", 180 * _GB, 2250 * _T, 75 * _T, 8000e9),
    )
}


def find_gpu(name: str) -> Gpu:
    """The GPU called `name`; case, spaces, `_` and `-` do not matter.

    Raises:
        ConfigError: no such GPU is in the table.
    """
    wanted = _plain(name)
    for gpu in GPUS.values():
        if _plain(gpu.name) == wanted:
            return gpu
    longer = [gpu for gpu in GPUS if wanted and _plain(gpu).startswith(wanted)]
    hint = f" (which one: {' or '.join(longer)}?)" if longer else did_you_mean(name, GPUS)
    raise ConfigError(f"gpu: '{name}' is not one of {', '.join(GPUS)}{hint}")


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
