"""
Speed and memory of the nested Res2Net back-end against a literal formulation of variant X, in one run.

    python tests/benchmarks/backend.py [--rounds 15] [--encoder]

The literal one grows the stack of columns as a 4-D tensor (B, w, T, c) and convolves it with a 2-D kernel, as the
architecture is usually drawn. Both hold the same weights and give the same numbers (checked first). Timings alternate
between the two, so that noise of the machine meets both alike; a ratio above 1 means that ours is faster. Memory is
the growth of the process's peak over one pass, each formulation in a process of its own (Linux only).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from nes2net_hf import Nes2NetConfig
from nes2net_hf.modeling_nes2net import InnerBlock, Nes2NetBackend


class LiteralBlock(nn.Module):
    """One inner block of variant X over (B, C, T), its columns in the last axis of a growing 4-D tensor."""

    def __init__(self, block: InnerBlock, dilation: int) -> None:
        super().__init__()
        self.scale = block.scale
        self.conv_in, self.norm_in = plain(block.conv_in), plain(block.norm_in)
        self.conv_out, self.norm_out = plain(block.conv_out), plain(block.norm_out)
        self.squeeze, self.excite = plain(block.squeeze_excitation.squeeze), plain(block.squeeze_excitation.excite)
        self.convs, self.norms, self.column_weights = nn.ModuleList(), nn.ModuleList(), nn.ParameterList()
        for step in block.steps:
            width = step.conv.out_channels
            conv = nn.Conv2d(width, width, (3, 1), dilation=(dilation, 1), padding=(dilation, 0))
            conv.load_state_dict({"weight": step.conv.weight.unsqueeze(-1), "bias": step.conv.bias})
            norm = nn.BatchNorm2d(width)
            norm.load_state_dict(step.norm.state_dict())
            self.convs.append(conv)
            self.norms.append(norm)
            self.column_weights.append(step.column_weights.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        groups = self.norm_in(torch.relu(self.conv_in(x))).chunk(self.scale, dim=1)
        columns, outputs = groups[-1].unsqueeze(-1), []
        for group, conv, norm, weights in zip(groups, self.convs, self.norms, self.column_weights):
            columns = torch.cat([columns, group.unsqueeze(-1)], dim=-1)
            columns = norm(torch.relu(conv(columns)))
            outputs.append((columns * weights).sum(-1))
        h = self.norm_out(torch.relu(self.conv_out(torch.cat([*outputs, groups[-1]], dim=1))))
        return h * self.excite(self.squeeze(h.mean(-1, keepdim=True)).relu()).sigmoid() + x


class LiteralBackend(nn.Module):
    """The nested Res2Net over (B, C, T), as it is usually written."""

    def __init__(self, backend: Nes2NetBackend, dilation: int) -> None:
        super().__init__()
        self.scale = backend.scale
        self.blocks = nn.ModuleList(LiteralBlock(block, dilation) for block in backend.blocks)
        self.norms = nn.ModuleList(plain(norm) for norm in backend.norms)
        self.norm_out = plain(backend.norm_out)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.chunk(self.scale, dim=1)
        outputs: list[Tensor] = []
        for group, block, norm in zip(groups, self.blocks, self.norms):
            outputs.append(norm(torch.relu(block(outputs[-1] + group if outputs else group))))
        return torch.relu(self.norm_out(torch.cat([*outputs, groups[-1]], dim=1)))


def plain(layer: nn.Module) -> nn.Module:
    """torch's own layer over (B, C, T) with the weights of one of ours."""
    if isinstance(layer, nn.BatchNorm2d):
        twin: nn.Module = nn.BatchNorm1d(layer.num_features)
    else:
        twin = nn.Conv1d(layer.in_channels, layer.out_channels, 1)
    twin.load_state_dict(layer.state_dict())
    return twin


def build(literal: bool) -> nn.Module:
    torch.manual_seed(0)
    config = Nes2NetConfig(dilation=2)
    backend = Nes2NetBackend(config)
    return LiteralBackend(backend, config.dilation) if literal else backend


def features(batch: int, frames: int) -> Tensor:
    """(B, D, T) as an encoder hands it over: (B, T, D) in memory."""
    return torch.randn(batch, frames, 1024).transpose(1, 2)


def forward(backend: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        backend(x)


def step(backend: nn.Module, x: Tensor) -> None:
    backend(x).backward(x)


def seconds(
    run: Callable[[nn.Module, Tensor], None], backends: list[nn.Module], x: Tensor, rounds: int
) -> list[float]:
    """Median seconds of each backend, turn by turn."""
    times: list[list[float]] = [[] for _ in backends]
    for turn in range(rounds + 2):
        for backend, taken in zip(backends, times):
            start = time.perf_counter()
            run(backend, x)
            if turn >= 2:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def peak_resident() -> float:
    """MiB; of /proc, for the peak that getrusage gives is the parent's at first."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_growth(literal: bool, batch: int, frames: int, training: bool, answer: multiprocessing.SimpleQueue) -> None:
    backend, x = build(literal).train(training), features(batch, frames)
    (step if training else forward)(backend, x[:1, :, :8])
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew from what is resident now
    before = peak_resident()
    (step if training else forward)(backend, x)
    answer.put(peak_resident() - before)


def memory(literal: bool, batch: int, frames: int, training: bool) -> float:
    """MiB by which the peak grows, measured in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=peak_growth, args=(literal, batch, frames, training, answer))
    process.start()
    process.join()
    return answer.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--encoder", action="store_true", help="also time a random XLS-R 300M (1.3 GB of memory)")
    options = parser.parse_args()

    ours, literal = build(False), build(True)
    x = features(2, 201)
    with torch.inference_mode():
        difference = (ours.eval()(x) - literal.eval()(x)).abs().max().item()
    print(f"torch {torch.__version__}; largest difference between the two: {difference:.1e}")

    print(f"{'':28} {'threads':>7} {'literal ms':>10} {'ours ms':>8} {'ratio':>6}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, run, training in (("forward", forward, False), ("forward + backward", step, True)):
            for batch, frames in ((1, 201), (1, 1000), (16, 201), (16, 1000)):
                x = features(batch, frames)
                slow, fast = seconds(run, [literal.train(training), ours.train(training)], x, options.rounds)
                print(
                    f"{name:19} {batch:>2} x {frames:<4} {threads:>7} {slow * 1000:>10.1f} {fast * 1000:>8.1f} "
                    f"{slow / fast:>6.2f}",
                    flush=True,
                )
    print("\npeak memory, MiB of growth")
    for name, training in (("forward", False), ("forward + backward", True)):
        for batch, frames in ((16, 201), (16, 1000)):
            before, after = (memory(kind, batch, frames, training) for kind in (True, False))
            print(f"{name:19} {batch:>2} x {frames:<4} literal {before:>7.0f}  ours {after:>7.0f}")

    if options.encoder:
        torch.set_num_threads(2)
        encoder = AutoModel.from_config(Nes2NetConfig().encoder_config).eval()
        wave, x = torch.randn(1, 64_600), features(1, 201)
        whole = seconds(forward, [encoder], wave, 5)[0]
        part = seconds(forward, [ours.eval()], x, 15)[0]
        print(f"\nXLS-R 300M, one window of 64,600 samples: {whole * 1000:.0f} ms; back-end: {part * 1000:.1f} ms,")
        print(f"{100 * part / whole:.2f} % of it.")


if __name__ == "__main__":
    main()
