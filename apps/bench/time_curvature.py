#!/usr/bin/env python3
"""Times goshawk curvature on a trained ResNet-20 against PyTorch doing the same number of products.

usage: time_curvature.py --weights W.safetensors --data DATA [--images 4096] [--error 0.02] [--top 5] [--batch 128]
                         [--microbatch 32] [--threads 2] [--graph-memory MIB] [--seconds 5] [--goshawk PROGRAM]
                         [--json]

Three commands are timed from start to end, reading files included: Hutchinson's trace of the network to the wanted error,
the largest eigenvalues to a residual of 1e-3 (both by double backward), and the exact traces of all layers and
activations. In between, PyTorch's Hessian-vector products on one batch are timed (compare_with_pytorch.py has its
settings; the gradient's graph is made once and reused, the better of two memory layouts counts). What PyTorch would take
is extrapolated from that: time for a picture x pictures x products. It is in PyTorch's favour: the graph of so many
pictures does not fit into memory, and only products are counted, not what an algorithm does with them. Do not run anything
else meanwhile.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import compare_with_pytorch as peer


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--error", type=float, default=0.02)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128, help="pictures of PyTorch's products")
    parser.add_argument("--microbatch", type=int, default=32, help="pictures of Goshawk's microbatches")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graph-memory", type=int, help="MiB for Goshawk's kept graphs (some 3 a picture); else its default")
    parser.add_argument("--seconds", type=float, default=5, help="of PyTorch's products, each time and layout")
    parser.add_argument("--goshawk", default=str(root / "build/release/apps/goshawk"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.model = "resnet20"
    rates = {layout: [] for layout in peer.LAYOUTS}

    def time_products():
        for layout, measured in rates.items():
            measured.append(peer.run_torch("hvp_eval", options, options.batch, layout, options.seconds)[0])

    kept = ["--graph-memory", str(options.graph_memory)] if options.graph_memory is not None else []

    def curvature(*arguments):
        with tempfile.TemporaryDirectory() as scratch:
            start = time.perf_counter()
            subprocess.run([options.goshawk, "curvature", "--model", options.model, "--weights", options.weights, "--data",
                            options.data, "--images", str(options.images), "--microbatch", str(options.microbatch),
                            "--threads", str(options.threads), "--out", scratch + "/run", *kept, *arguments],
                           env=peer.environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            return seconds, json.loads(pathlib.Path(scratch, "run/curvature.json").read_text())

    network = ["--per", "network", "--road", "double-backward"]
    time_products()
    trace_seconds, result = curvature("--what", "trace", "--error", str(options.error), "--max-samples", "100000", *network)
    trace = result["network"]["trace"]
    time_products()
    eigen_seconds, result = curvature("--what", "eigenvalues", "--top", str(options.top), "--bottom", "0", *network)
    eigen, values = result["network"]["eigenvalues"], result["network"]["top_eigenvalues"]
    time_products()
    exact_seconds, result = curvature("--what", "trace,activations", "--road", "exact")
    exact = result["network"]["trace"]
    time_products()

    best = max(rates, key=lambda layout: statistics.median(rates[layout]))
    rate = statistics.median(rates[best])
    a_product = options.images / rate
    rows = [("Hutchinson", trace_seconds, trace["samples"]), ("eigenvalues", eigen_seconds, eigen["products"]),
            ("exact traces", exact_seconds, trace["samples"])]
    report = {"images": options.images, "threads": options.threads, "microbatch": options.microbatch,
              "graph_memory": options.graph_memory,
              "pytorch": {"batch": options.batch, "layout": best, "images_per_second": rates,
                          "seconds_per_product_extrapolated": a_product},
              "trace": trace, "exact_trace": exact, "top_eigenvalues": values, "residuals": eigen["residuals"],
              "stages": [{"stage": name, "seconds": seconds, "products": products,
                          "pytorch_seconds_extrapolated": products * a_product,
                          "ratio": products * a_product / seconds} for name, seconds, products in rows]}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    spread = f"{min(rates[best]):.0f} to {max(rates[best]):.0f}"
    print(f"ResNet-20, {options.images} pictures, {options.threads} threads; PyTorch ({best}, batch {options.batch}): "
          f"{rate:.0f} pictures/s a product ({spread}), so {a_product:.2f} s for one over all of them")
    for stage in report["stages"]:
        print(f"{stage['stage']:<13}{stage['seconds']:9.1f} s; PyTorch {stage['products']:5d} products, extrapolated "
              f"{stage['pytorch_seconds_extrapolated']:9.0f} s: {stage['ratio']:.1f}x")
    print(f"trace {trace['estimate']:.6g} ± {trace['standard_error']:.2g} after {trace['samples']} probes, exact "
          f"{exact['estimate']:.6g}; eigenvalues {', '.join(f'{v:.6g}' for v in values)}, residuals "
          f"{', '.join(f'{r:.1e}' for r in eigen['residuals'])}")


if __name__ == "__main__":
    main()
