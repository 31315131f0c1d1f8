#!/usr/bin/env python3
"""Counts how often the 95 % intervals of goshawk curvature contain the exact trace.

usage: check_coverage.py --weights W.safetensors (--data DATA | --batch B.safetensors) [--model resnet20] [--images 4]
                         [--error 0.2] [--runs 200] [--layer NAME ...] [--goshawk PROGRAM] [--json]

For every seed two commands: the traces of some layers (each from its own probes or all from joint ones, as the program
chooses) or of the whole network by double backward, stopped as soon as the standard error is small enough, and the same
traces on the exact road. A seed draws its own pictures from a data set, and its own probes. Of 200 intervals that hold in
95 % of runs, 184 to 196 contain the exact value, give or take.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data")
    source.add_argument("--batch")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--error", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--layer", action="append", help="may be given several times; conv1, layer2.0.conv1 and linear")
    parser.add_argument("--goshawk", default=str(root / "build/release/apps/goshawk"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    layers = options.layer or ["conv1", "layer2.0.conv1", "linear"]
    pictures = ["--data", options.data] if options.data else ["--batch", options.batch]

    def traces(seed, road, scope):
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([options.goshawk, "curvature", "--model", options.model, "--weights", options.weights, *pictures,
                            "--images", str(options.images), "--microbatch", "2", "--what", "trace", "--seed", str(seed),
                            "--road", road, "--error", str(options.error), "--max-samples", "100000", "--out",
                            scratch + "/run", *scope],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            result = json.loads(pathlib.Path(scratch, "run/curvature.json").read_text())
        parts = result.get("layers", []) + ([{"name": "network", **result["network"]}] if "network" in result else [])
        return {part["name"]: part["trace"] for part in parts}

    scopes = [["--per", "network"], [argument for layer in layers for argument in ("--layer", layer)]]
    covered, probes = {}, {}
    for seed in range(options.runs):
        for scope in scopes:
            exact = traces(seed, "exact", scope)
            for name, trace in traces(seed, "double-backward", scope).items():
                low, high = trace["interval_95"]
                covered.setdefault(name, []).append(low <= exact[name]["estimate"] <= high)
                probes.setdefault(name, []).append(trace["samples"])
    rows = [{"part": name, "runs": len(hits), "covered": sum(hits), "percent": 100 * sum(hits) / len(hits),
             "mean_probes": sum(probes[name]) / len(hits)} for name, hits in covered.items()]
    if options.json:
        print(json.dumps({"model": options.model, "images": options.images, "error": options.error, "parts": rows}, indent=2))
        return
    print(f"{options.model}, {options.images} pictures a run, stopped at a standard error of {100 * options.error:g} %")
    for row in rows:
        print(f"{row['part']:<16}{row['covered']:4d} of {row['runs']} intervals contain the exact trace "
              f"({row['percent']:.1f} %), {row['mean_probes']:.0f} probes on average")


if __name__ == "__main__":
    main()
