"""bench/run's experiments by name: runs one, writes its JSON and SVG, prints one JSON object."""

import argparse
import importlib
import inspect
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))

# name: (module, what it measures)
EXPERIMENTS = {
    "latency": ("latency", "batch-1 latency and memory per model against ONNX Runtime"),
    "fig2": ("fig2", "simulated: head-of-line blocking against hardware queues"),
    "trace-overhead": ("trace_overhead", "what the trace recorder costs, on and off"),
    "fig11": ("fig11", "simulated: eight CNNs over load, every system"),
    "fig12": ("fig12", "simulated: a short and a long CNN over load, every system"),
    "fig13": ("fig13", "simulated: fairness threshold against mean time per model"),
    "compile": ("compile_time", "load time, first request and new shapes against ONNX Runtime"),
    "mix8": ("mix8", "eight CNNs under load: policies, ONNX Runtime's ways to serve, an ideal queue"),
    "fairness": ("fairness", "a light tenant beside a flood, and weights 3:1"),
    "sched-overhead": ("sched_overhead", "ns per scheduling decision by policy and ready jobs"),
    "sharing-wake": ("sharing_wake", "six wake words on one shared path, against no sharing"),
    "sharing-ocr": ("sharing_ocr", "text and numbers on the same images, against no sharing"),
    "sharing-sweep": ("sharing_sweep", "generated families: gain over shared part and fan-out"),
    "batching": ("batching", "batching policies under deadlines: simulated A100, and the real CPU"),
    "discovery": ("discovery", "seconds and memory to find what 10 to 500 pipelines share"),
    "sim-speed": ("sim_speed", "block events per second of the simulated GPU and the dispatcher"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("name", nargs="?", help="the experiment")
    parser.add_argument("--quick", action="store_true", help="end within 5 minutes")
    parser.add_argument("--list", action="store_true", help="name the experiments")
    parser.add_argument("--only", help="comma-separated models (mix8: systems), for finding out why")
    parser.add_argument("--seeds", type=int, help="fig11, fig12: so many seeds instead of 5")
    parser.add_argument("--processes", type=int, help="fig11 to fig13: simulators at once")
    args = parser.parse_args()
    if args.list or args.name is None:
        for name, (_, what) in EXPERIMENTS.items():
            print(f"{name:12} {what}")
        return 0
    if args.name not in EXPERIMENTS:
        print(f"bench/run: no experiment '{args.name}'; see bench/run --list", file=sys.stderr)
        return 2
    module = importlib.import_module(EXPERIMENTS[args.name][0])
    only = set(args.only.split(",")) if args.only else None
    options = {k: v for k in ("seeds", "processes") if (v := getattr(args, k)) is not None}
    for option, value in options.items():
        if option not in inspect.signature(module.run).parameters or value < 1:
            print(f"bench/run: --{option} {value} does not fit {args.name}", file=sys.stderr)
            return 2
    result, svg = module.run(quick=args.quick, only=only, **options)
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    if only is None:  # a partial run is not a result
        (results / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (results / f"{args.name}.svg").write_text(svg)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
