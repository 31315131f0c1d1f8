#!/usr/bin/env python3
"""Compares what goshawk computes with what PyTorch computes: ResNet-20, the same weights, the same pictures.

usage: check_against_pytorch.py --weights W.safetensors --batch B.safetensors [B2.safetensors ...] [--goshawk PROGRAM]
                                [--probes 64] [--pairs 5] [--json]

Loss, gradient and Hessian-vector product (batch norm in eval and in train mode, f32 and f64), the largest eigenvalues
of the whole network's Hessian, and every layer's trace. PyTorch (Debian: python3-torch, python3-numpy) works by
double backward in f64, its traces are Hutchinson's with their standard errors. How far PyTorch's own f32 is from its f64
stands beside ours: what rounding costs anybody, above all where it puts a unit on the other side of its ReLU. B holds
`images` [N,3,32,32], already normalised, and `labels` [N]. Eigenvalues and traces are the first batch's.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NUMPY_TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            values = np.frombuffer(data[begin:end], NUMPY_TYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def write_safetensors(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, values in tensors.items():
        blob = np.ascontiguousarray(values).tobytes()
        kind = next(k for k, t in NUMPY_TYPES.items() if t == values.dtype)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


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
            x = functional.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.grown // 2, self.grown // 2))
        return functional.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Hessian:
    """Of the mean cross-entropy over the batch; products reuse one gradient graph."""

    def __init__(self, weights, batch, train, dtype=torch.float64):
        self.dtype = dtype
        self.model = ResNet20().to(dtype)
        state = {k: torch.tensor(v).to(dtype) for k, v in weights.items()}
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            sys.exit(f"check_against_pytorch: the weights lack {missing} or have {unexpected} too many")
        self.model.train(train)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.parameters = list(self.model.parameters())
        logits = self.model(torch.tensor(batch["images"]).to(self.dtype))
        self.loss = functional.cross_entropy(logits, torch.tensor(batch["labels"]))
        self.gradient = torch.autograd.grad(self.loss, self.parameters, create_graph=True)

    def apply(self, vector):
        product = torch.autograd.grad(self.gradient, self.parameters, vector, retain_graph=True)
        return [block.detach() for block in product]

    def random(self, seed, signs):
        generator = torch.Generator().manual_seed(seed)
        make = (lambda p: torch.randint(0, 2, p.shape, generator=generator).double() * 2 - 1) if signs else \
               (lambda p: torch.randn(p.shape, generator=generator).double())
        return [make(p) for p in self.parameters]


def inner(a, b):
    return float(sum((x * y).sum() for x, y in zip(a, b)))


def top_eigenvalues(hessian, pairs, iterations=300, tolerance=1e-7):
    """Power iteration with deflation, largest magnitude first."""
    values, vectors = [], []
    for pair in range(pairs):
        v, value = hessian.random(pair, signs=False), 0.0
        for _ in range(iterations):
            for u in vectors:
                share = inner(u, v)
                v = [x - share * y for x, y in zip(v, u)]
            length = inner(v, v) ** 0.5
            v = [x / length for x in v]
            product = hessian.apply(v)
            previous, value = value, inner(v, product)
            if abs(value - previous) <= tolerance * abs(value):
                break
            v = product
        values.append(value)
        vectors.append(v)
    return values


def layer_traces(hessian, probes):
    """Mean and standard error of each weight's trace (convolutions and the linear layer)."""
    wanted = [i for i, p in enumerate(hessian.parameters) if p.dim() > 1]
    samples = {i: [] for i in wanted}
    for probe in range(probes):
        z = hessian.random(1000 + probe, signs=True)
        product = hessian.apply(z)
        for i in wanted:
            samples[i].append(float((z[i] * product[i]).sum()))
    return {hessian.names[i]: (float(np.mean(s)), float(np.std(s, ddof=1) / len(s) ** 0.5)) for i, s in samples.items()}


def difference(ours, theirs):
    """Norm of the difference over the norm, all tensors together."""
    above = sum(((ours[k].astype(np.float64) - v) ** 2).sum() for k, v in theirs.items())
    return float((above / sum((v ** 2).sum() for v in theirs.values())) ** 0.5)


def compare_products(options, network, weights, batch, bn, scratch):
    """Loss, gradient and one product: relative differences from PyTorch's in f64."""
    vector_file, out_file = f"{scratch}/vector.safetensors", f"{scratch}/out.safetensors"
    # Train mode moves the running statistics; what the products need is in the graph already.
    hessian = Hessian(weights, batch, bn == "train")
    vector = hessian.random(7, signs=False)
    write_safetensors(vector_file, {n: v.numpy() for n, v in zip(hessian.names, vector)})

    def numbers(other, values):
        return {n: v.detach().numpy() for n, v in zip(other.names, values)}

    theirs = {"grad": numbers(hessian, hessian.gradient), "hvp": numbers(hessian, hessian.apply(vector))}
    for dtype in ("f64", "f32"):
        subprocess.run([options.goshawk, "hvp", *network, "--vector", vector_file, "--bn", bn, "--dtype", dtype, "--out",
                        out_file], check=True, stdout=subprocess.DEVNULL)
        ours = read_safetensors(out_file)
        yield {"program": "Goshawk", "dtype": dtype, "loss": abs(float(ours["loss"]) / hessian.loss.item() - 1),
               **{kind: difference({n: ours[f"{kind}.{n}"] for n in hessian.names}, theirs[kind]) for kind in theirs}}
    single = Hessian(weights, batch, bn == "train", torch.float32)
    yield {"program": "PyTorch", "dtype": "f32", "loss": abs(single.loss.item() / hessian.loss.item() - 1),
           "grad": difference(numbers(single, single.gradient), theirs["grad"]),
           "hvp": difference(numbers(single, single.apply([v.float() for v in vector])), theirs["hvp"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--weights", required=True)
    parser.add_argument("--batch", required=True, nargs="+")
    parser.add_argument("--goshawk", default=str(root / "build/release/apps/goshawk"))
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    weights = read_safetensors(options.weights)
    batches = [read_safetensors(path) for path in options.batch]
    result = {"torch": torch.__version__, "images": [len(batch["labels"]) for batch in batches], "products": []}

    with tempfile.TemporaryDirectory() as scratch:
        network = ["--model", "resnet20", "--weights", options.weights]
        for path, batch in zip(options.batch, batches):
            for bn in ("eval", "train"):
                for row in compare_products(options, [*network, "--batch", path], weights, batch, bn, scratch):
                    result["products"].append({"batch": pathlib.Path(path).name, "bn": bn, **row})

        def curvature(*arguments):
            out = f"{scratch}/{arguments[1]}"
            subprocess.run([options.goshawk, "curvature", *network, "--batch", options.batch[0], *arguments, "--dtype", "f64",
                            "--out", out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return json.loads(pathlib.Path(out, "curvature.json").read_text())

        ours = curvature("--what", "eigenvalues", "--per", "network", "--parameters", "all", "--top", str(options.pairs))
        values = ours["network"]["top_eigenvalues"]
        layers = curvature("--what", "trace")["layers"]
    hessian = Hessian(weights, batches[0], train=False)
    theirs = top_eigenvalues(hessian, options.pairs)
    result["eigenvalues"] = [{"goshawk": a, "torch": b, "difference": abs(a / b - 1)}
                             for a, b in zip(values, theirs)]
    traces = layer_traces(hessian, options.probes)
    result["traces"] = []
    for layer in layers:
        name = layer["name"] if layer["name"] in traces else layer["name"] + ".weight"
        mean, error = traces[name]
        value, own = layer["trace"]["estimate"], layer["trace"]["standard_error"]
        result["traces"].append({"layer": layer["name"], "goshawk": value, "torch": mean, "standard_error": error,
                                 "sigmas": (value - mean) / (error ** 2 + own ** 2) ** 0.5})

    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"relative differences from PyTorch {result['torch']} in f64")
    print("batch                 batch norm  program  type     loss  gradient  Hessian-vector product")
    for row in result["products"]:
        print(f"{row['batch']:<22}{row['bn']:<12}{row['program']:<9}{row['dtype']:<5}{row['loss']:>8.1e}  {row['grad']:>8.1e}  "
              f"{row['hvp']:.1e}")
    for row in result["eigenvalues"]:
        print(f"eigenvalue {row['goshawk']:12.6g} {row['torch']:12.6g}: {row['difference']:.1e}")
    for row in result["traces"]:
        print(f"trace {row['layer']:<22} {row['goshawk']:10.5g} {row['torch']:10.5g} ± {row['standard_error']:.2g}: "
              f"{row['sigmas']:+.1f} standard errors")


if __name__ == "__main__":
    main()
