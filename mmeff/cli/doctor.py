"""`mmeff doctor`: versions, the device, and whether every kernel is right on it."""

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version

from mmeff.cli.words import Words
from mmeff.errors import InputError, TrainingError

PACKAGES = ("mmeff", "torch", "triton", "lightning", "timm", "torchaudio", "numpy")


def main(words: list[str]) -> int:
    p = Words(prog="mmeff doctor", description="Check every kernel on this machine against its definition in float64.")
    p.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    options = p.parse_args(words[1:])
    import torch

    from mmeff_kernels.dispatch import packages

    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here: leave --device cuda out, or see that torch finds its driver")
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {installed(name)}" for name in PACKAGES))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{device}: {name}")
    wrong = 0
    for operation in packages():
        for found in importlib.import_module(f"mmeff_kernels.{operation}.check").check(device):
            said = "right" if found.right else "WRONG"
            print(f"  {said}  {found.name}: {found.error:.1e} of {found.bound:.0e} allowed ({found.worst})", flush=True)
            wrong += not found.right
    if wrong:
        raise TrainingError(f"{wrong} checks failed on {device}: do not trust results there, and report these lines")
    return 0


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
