#!/usr/bin/env python3
"""Runs bench and PyTorch on the same work, in turn, and prints the ratios of the medians.

usage: compare_with_pytorch.py [--bench PROGRAM] [--model resnet20|squeezenext23] [--batch 128] [--threads 2]
                               [--rounds 5] [--stages forward_eval,train_step,...] [--memory-batch 512] [--json]

PyTorch (Debian: python3-torch) gets its best settings: huge pages, no trimming of freed memory, bound threads, and
for each stage the better of its two memory layouts. Every measurement is a process of its own, so neither program
sees the other's memory or threads. Do not run anything else meanwhile.
"""
import argparse
import ctypes
import functools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

STAGES = ["forward_eval", "train_step", "gradient_eval", "hvp_eval", "hvp_train"]
LAYOUTS = ["nchw", "nhwc"]
TUNED = {
    "OMP_PROC_BIND": "true",
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=2000000000:glibc.malloc.trim_threshold=8000000000:"
                      "glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1",
}


def resnet20():
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, width_in, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.stride, self.grown = stride, width - width_in

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            if self.grown:
                x = functional.pad(x[:, :, ::self.stride, ::self.stride],
                                   (0, 0, 0, 0, self.grown // 2, self.grown // 2))
            return functional.relu(y + x)

    blocks, width_in = [], 16
    for width in (16, 32, 64):
        for i in range(3):
            blocks.append(Block(width_in, width, 2 if i == 0 and width > 16 else 1))
            width_in = width
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), 32, 10


def squeezenext23():
    from torch import nn
    from torch.nn import functional

    class Conv(nn.Module):
        def __init__(self, width_in, width, kernel=1, stride=1, padding=0):
            super().__init__()
            self.conv = nn.Conv2d(width_in, width, kernel, stride, padding)
            self.bn = nn.BatchNorm2d(width)

        def forward(self, x):
            return functional.relu(self.bn(self.conv(x)))

    class Unit(nn.Module):
        def __init__(self, width_in, width, stride):
            super().__init__()
            squeezed = width_in if stride > 1 else width_in // 4 if width_in > width else width_in // 2
            self.body = nn.Sequential(Conv(width_in, squeezed, 1, stride), Conv(squeezed, squeezed // 2),
                                      Conv(squeezed // 2, squeezed, (1, 3), 1, (0, 1)),
                                      Conv(squeezed, squeezed, (3, 1), 1, (1, 0)), Conv(squeezed, width))
            same = stride == 1 and width_in == width
            self.identity = nn.Identity() if same else Conv(width_in, width, 1, stride)

        def forward(self, x):
            return functional.relu(self.body(x) + self.identity(x))

    units, width_in = [], 64
    for stage, (width, count) in enumerate(((32, 6), (64, 6), (128, 8), (256, 1))):
        for i in range(count):
            units.append(Unit(width_in, width, 2 if i == 0 and stage > 0 else 1))
            width_in = width
    return nn.Sequential(Conv(3, 64, 7, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), *units, Conv(256, 128),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1000)), 227, 1000


MODELS = {"resnet20": resnet20, "squeezenext23": squeezenext23}


def torch_stage(stage, model_name, batch, threads, layout, seconds):
    """Times one stage in this process: [seconds of each run], peak resident memory in MB."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, side, classes = MODELS[model_name]()
    images, labels = torch.randn(batch, 3, side, side), torch.randint(classes, (batch,))
    if layout == "nhwc":
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    model.train(stage in ("train_step", "hvp_train"))
    parameters = list(model.parameters())

    def loss():
        return functional.cross_entropy(model(images), labels)

    if stage == "forward_eval":
        def run():
            with torch.no_grad():
                model(images)
    elif stage == "train_step":
        sgd = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4)

        def run():
            sgd.zero_grad(set_to_none=True)
            loss().backward()
            sgd.step()
    elif stage == "gradient_eval":
        def run():
            torch.autograd.grad(loss(), parameters)
    else:
        gradient = torch.autograd.grad(loss(), parameters, create_graph=True)
        vector = [torch.randint(0, 2, p.shape).float() * 2 - 1 for p in parameters]

        def run():
            torch.autograd.grad(gradient, parameters, grad_outputs=vector, retain_graph=True)
    run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_torch(stage, options, batch, layout, seconds):
    output = subprocess.run(
        [sys.executable, __file__, "--worker", stage, "--model", options.model, "--batch", str(batch), "--threads",
         str(options.threads), "--layout", layout, "--seconds", str(seconds)],
        env=environment() | TUNED, check=True, capture_output=True, text=True).stdout
    result = json.loads(output)
    return batch / statistics.median(result["times"]), result["peak_rss_mb"]


def run_bench(stage, options, batch, repetitions):
    output = subprocess.run(
        [options.bench, "--model", options.model, "--batch", str(batch), "--threads", str(options.threads), "--only",
         stage, "--rounds", "1", "--repetitions", str(repetitions), "--json"],
        env=environment(), check=True, capture_output=True, text=True).stdout
    result = json.loads(output)[stage]
    return result["images_per_second"], result["peak_rss_mb"]


def environment():
    """Ours, but with the OpenBLAS kernels that fit the processor.

    A preset type of core may be a wrong one; OpenBLAS finds the right one by itself, except that it takes a processor
    that is newer than itself for a Prescott without AVX: a fifth of its rate.
    """
    os.environ.pop("OPENBLAS_CORETYPE", None)
    chosen = dict(os.environ)
    if openblas_core() == "Prescott":
        flags = pathlib.Path("/proc/cpuinfo").read_text().split()
        core = "SkylakeX" if "avx512dq" in flags else "Haswell" if "avx2" in flags else None
        if core:
            chosen["OPENBLAS_CORETYPE"] = core
    return chosen


@functools.cache
def openblas_core():
    """What OpenBLAS takes the processor for; None where PyTorch has no OpenBLAS."""
    try:
        name = ctypes.CDLL("libopenblas.so.0").openblas_get_corename
    except (OSError, AttributeError):
        return None
    name.restype = ctypes.c_char_p
    return name().decode()


def compare(options):
    results = []
    for stage in options.stages.split(","):
        ours, theirs = [], {layout: [] for layout in LAYOUTS}
        for _ in range(options.rounds):
            ours.append(run_bench(stage, options, options.batch, 15))
            for layout in LAYOUTS:
                theirs[layout].append(run_torch(stage, options, options.batch, layout, 2))
        best = max(LAYOUTS, key=lambda layout: statistics.median(r for r, _ in theirs[layout]))
        goshawk = statistics.median(r for r, _ in ours)
        pytorch = statistics.median(r for r, _ in theirs[best])
        results.append({"stage": stage, "goshawk_images_per_second": goshawk, "pytorch_images_per_second": pytorch,
                        "pytorch_layout": best, "ratio": goshawk / pytorch,
                        "goshawk_peak_rss_mb": max(m for _, m in ours),
                        "pytorch_peak_rss_mb": max(m for _, m in theirs[best])})
        if not options.json:
            r = results[-1]
            print(f"{stage:<14}{goshawk:10.0f} images/s{pytorch:10.0f} PyTorch ({best}){r['ratio']:8.2f}x", flush=True)
    memory = None
    if options.memory_batch:
        ours = run_bench("hvp_eval", options, options.memory_batch, 2)[1]
        theirs = min(run_torch("hvp_eval", options, options.memory_batch, layout, 0)[1] for layout in LAYOUTS)
        memory = {"batch": options.memory_batch, "goshawk_peak_rss_mb": ours, "pytorch_peak_rss_mb": theirs}
        if not options.json:
            print(f"peak memory of an HVP, batch {options.memory_batch}: {ours:.0f} MB, PyTorch {theirs:.0f} MB "
                  f"({theirs / ours:.1f}x)")
    if options.json:
        print(json.dumps({"model": options.model, "batch": options.batch, "threads": options.threads,
                          "rounds": options.rounds, "stages": results, "hvp_memory": memory}, indent=2))


def main():
    default_bench = pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "apps" / "bench"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default=str(default_bench))
    parser.add_argument("--model", default="resnet20", choices=list(MODELS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--memory-batch", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--layout", default="nchw", choices=LAYOUTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        times, peak = torch_stage(options.worker, options.model, options.batch, options.threads, options.layout,
                                  options.seconds)
        print(json.dumps({"times": times, "peak_rss_mb": peak}))
        return
    if not pathlib.Path(options.bench).exists():
        sys.exit(f"compare_with_pytorch: there is no program {options.bench}; build it first or name it by --bench")
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("compare_with_pytorch: this Python has no PyTorch; on Debian: apt-get install python3-torch, then run "
                 "with /usr/bin/python3")
    compare(options)


if __name__ == "__main__":
    main()
