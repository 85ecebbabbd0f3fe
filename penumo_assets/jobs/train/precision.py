"""The number format that a training computes in."""

import torch

from penumo_assets.configs.train import MixedPrecision


def precision_of(amp: MixedPrecision, device: torch.device) -> torch.dtype:
    """The number format that forward and backward passes compute in on ``device``."""
    if amp is MixedPrecision.auto:
        if device.type != "cuda":
            return torch.bfloat16 if cpu_computes_bf16() else torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[amp.value]


def cpu_computes_bf16() -> bool:
    """Whether the CPU has bfloat16 instructions (AVX512_BF16 or AMX); without them emulation is slower than float32.

    A PyTorch that cannot say (before 2.11) computes in float32.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
