"""`python -m mmeff.cli.speed [--mixer scan] [--pixels 224] [--batch 256]`: images a second beside timm's DeiT-T.

The model is 24 blocks of one mixer, 192 wide, on patches of 16 pixels: the bidirectional selective scan (Vim-T), or
linear attention without or with its local convolution. DeiT-T is timm's, with torch's own attention. Random images,
bf16 under autocast on CUDA and fp32 on the CPU, AdamW; inference and training steps in turn, medians with quartiles,
and the peak memory of a training step. `--profile` lists the operators of one training step of the model by their share
of its time; `--graph` leaves out the host's time.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmeff.backbones import Isotropic
from mmeff.heads import Head, MeanPool
from mmeff.init import init_weights
from mmeff.mixers import BiMamba, LinearAttention, Mixer
from mmeff.tokenizers import ImagePatches
from mmeff_kernels.timing import captured, name_of, once, peak_mib

CLASSES = 1000
#: What the model mixes tokens with, and its name.
MIXERS: dict[str, tuple[str, Callable[[int], Mixer]]] = {
    "scan": ("Vim-T", BiMamba),
    "linear": ("Linear-T", partial(LinearAttention, local=False)),
    "linear-local": ("Local-T", LinearAttention),
}


class Tiny(nn.Module):
    """Images (B, 3, H, W) -> logits: Vim's tiny model (arXiv 2401.09417, table 1) of this package's parts."""

    def __init__(self, mixer: Callable[[int], Mixer], depth: int = 24, dim: int = 192, recompute: bool = False):
        super().__init__()
        self.tokenizer = ImagePatches(dim, 16)
        self.backbone = Isotropic(dim, depth, mixer, None, recompute=recompute)
        self.head = Head(dim, CLASSES, MeanPool, 0.0)
        init_weights(self, depth)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(self.tokenizer(images)))


def deit_tiny(pixels: int) -> nn.Module:
    from timm.models import create_model

    return create_model("deit_tiny_patch16_224", img_size=pixels, num_classes=CLASSES)


class Steps:
    """One model's inference and training steps on a batch of random images."""

    def __init__(self, model: nn.Module, batch: int, pixels: int, device: torch.device):
        self.model, self.device = model.to(device), device
        self.images = torch.randn(batch, 3, pixels, pixels, device=device)
        self.labels = torch.randint(CLASSES, (batch,), device=device)
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True, capturable=device.type == "cuda")

    def loss(self) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return F.cross_entropy(self.model(self.images), self.labels)

    @torch.no_grad()
    def infer(self) -> None:
        if self.model.training:  # to walk all modules takes the host as long as a layer
            self.model.eval()
        self.loss()

    def train(self) -> None:
        if not self.model.training:
            self.model.train()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def capture(self) -> None:
        """Replaces both steps by CUDA graphs of themselves, in which the host has no part."""
        self.infer, self.train = captured(self.infer).replay, captured(self.train).replay


def measure(contenders: dict[str, Steps], kind: str, runs: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `runs` steps of each contender, taken in turn, after two that warm up."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(runs + 2):
        for name, steps in contenders.items():
            took = once(getattr(steps, kind), device) / 1e3
            if i >= 2:
                taken[name].append(took)
    return taken


def profile(steps: Steps) -> None:
    """Print where a training step's time goes: operators with their shapes, by the time of the kernels they launch."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = steps.device.type == "cuda"
    steps.train()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with record(activities=activities, record_shapes=True) as found:
        steps.train()
        if cuda:
            torch.cuda.synchronize()
    taken = [
        (row.self_device_time_total if cuda else row.self_cpu_time_total, row)
        for row in found.key_averages(group_by_input_shape=True)
        if str(row.device_type).endswith("CPU")
    ]
    total = sum(time for time, _ in taken)
    print(f"{total / 1e3:.1f} ms in all")
    for time, row in sorted(taken, key=lambda pair: -pair[0])[:30]:
        shapes = " ".join(str(tuple(shape)).replace(" ", "") for shape in row.input_shapes if shape)
        print(f"{time / 1e3:8.2f} ms {time / total:6.1%} {row.count:5} x {row.key:40} {shapes[:90]}")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--depth", type=int, default=24, help="of the model")
    parser.add_argument("--mixer", choices=MIXERS, default="scan")
    parser.add_argument("--recompute", action="store_true", help="activations of the model in the backward pass")
    parser.add_argument("--graph", action="store_true", help="replay each step as a CUDA graph: the GPU's own time")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args(words)
    device = torch.device(args.device)
    name, threads = name_of(device), torch.get_num_threads()
    print(f"{name}, {threads} threads, torch {torch.__version__}, {args.pixels} px, batch {args.batch}")
    own, mixer = MIXERS[args.mixer]
    contenders = {
        own: Steps(Tiny(mixer, args.depth, recompute=args.recompute), args.batch, args.pixels, device),
        "DeiT-T": Steps(deit_tiny(args.pixels), args.batch, args.pixels, device),
    }
    if args.profile:
        profile(contenders[own])
    for steps in contenders.values() if args.graph else ():
        steps.capture()
    for kind in ("infer", "train"):
        for model, taken in measure(contenders, kind, args.runs, device).items():
            rate = [args.batch / t for t in taken]
            low, _, high = quantiles(rate, n=4)
            line = f"{model:8} {kind:6} {median(rate):9.1f} [{low:.1f}, {high:.1f}] images/s"
            if device.type == "cuda" and kind == "train" and not args.graph:
                line += f"  {peak_mib(contenders[model].train) / 2**10:.1f} GiB"
            print(line, flush=True)


if __name__ == "__main__":
    main()
