"""The training engine's speed and quality, beside its peers on this machine.

  hack/bench.sh train [--torch] [--mxnet] [--parts speed,goal,modes,wire] [--rounds N] [--models …] [--batches …]

  speed   samples/s, of every run the second epoch on; Fashion-MNIST, SGD with momentum 0.9, one thread a process:
            alone    thole, one process without servers (train_bench)
            job      thole-trainer local: 2 workers, 1 parameter server, Synchronous, 8 blocks, float32 over loopback TCP
            job16    the same with bfloat16 on the wire
            torch    PyTorch, one process
            ddp      PyTorch DistributedDataParallel over gloo, 2 processes
            kvstore  MXNet's dist_sync, which is ps-lite: 1 server, 2 workers
  goal    seconds to 90 % test accuracy with lenet, validation included, beside PyTorch DDP with the same settings
  modes   final accuracy of every sync type with lenet, mean of three seeds
  wire    bytes/s through a parameter server with 4 workers and 10 million parameters, beside iperf3; what the CRC costs

Batches are of the whole step, over all processes. Runs take turns, so that what the machine does besides falls on all
alike; tables have medians, with the least and the most. Peers that are not installed are left out: --torch and --mxnet
fetch them (gigabytes). resnet8 trains on the first 6,000 samples.
"""

import argparse
import collections
import importlib.util
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import systems
from systems import BLOCKS, BUILD, Failed, Job, free_port, part_of, run, samples_of

EPOCHS = 3
SMALL = {"resnet8": 6000, "resnet20": 3000}  # samples, where an epoch of all takes minutes
GOAL, GOAL_EPOCHS, GOAL_RATE = 90.0, 40, 0.02  # at 0.05 accuracies swing around 90 % from epoch to epoch
MODE_EPOCHS = 8
SEEDS = (1, 2, 3)
BFLOAT16 = f"{{type: Synchronous, synchronous: {{blocks: {BLOCKS}, wire: BFloat16}}}}"
Mode = collections.namedtuple("Mode", "name sync batch rate momentum")
ROWS = {
    "alone": f"thole, 1 process, {BLOCKS} blocks",
    "job": f"thole, 2 workers + 1 shard, {BLOCKS} blocks, Float32",
    "job16": f"thole, 2 workers + 1 shard, {BLOCKS} blocks, BFloat16",
    "torch": "PyTorch, 1 process",
    "ddp": "PyTorch DDP gloo, 2 processes",
    "kvstore": "MXNet dist_sync, 2 workers + 1 server",
}
RATIOS = (("job / ddp", "job", "ddp"), ("job16 / ddp", "job16", "ddp"), ("job / kvstore", "job", "kvstore"),
          ("alone / torch", "alone", "torch"))  # fmt: skip
# Batches of all but Synchronous are each worker's. What gradients that come late bring is more momentum than was asked
# for (Mitliagkas et al. 2016), Asynchronous divides the rate by 1 + staleness, and KAverage's momentum begins anew with
# every average: each has its own settings.
MODES = (
    Mode("Synchronous", f"{{type: Synchronous, synchronous: {{blocks: {BLOCKS}}}}}", 128, 0.05, 0.9),
    Mode("Synchronous, BFloat16", BFLOAT16, 128, 0.05, 0.9),
    Mode("Asynchronous, staleness ≤ 4", "{type: Asynchronous, asynchronous: {maxStaleness: 4}}", 64, 0.15, 0.5),
    Mode("Hogwild", "{type: Hogwild}", 64, 0.1, 0.5),
    Mode("KAverage, 16 local steps", "{type: KAverage, kAverage: {localSteps: 16}}", 64, 0.1, 0.9),
    Mode("KAverage, one average an epoch", "{type: KAverage, kAverage: {}}", 64, 0.05, 0.9),
)


def systems_by_row(options):
    rows = {
        "alone": systems.run_alone,
        "job": systems.run_job,
        "job16": lambda job: systems.run_job(Job(**{**vars(job), "sync": BFLOAT16})),
        "torch": systems.run_torch,
        "ddp": systems.run_ddp,
        "kvstore": lambda job: systems.run_kvstore(job, options.mxnet_python),
    }
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: its rows are left out (--torch fetches it)")
        del rows["torch"], rows["ddp"]
    if not options.mxnet_python:
        print("MXNet is not installed: its row is left out (--mxnet fetches it)")
        del rows["kvstore"]
    return rows


def tell(text):
    print(f"    {text}", file=sys.stderr)


def middle(values, form):
    if not values:
        return "–"
    spread = f" ({form.format(min(values))} – {form.format(max(values))})" if len(values) > 1 else ""
    return form.format(statistics.median(values)) + spread


def print_table(head, titles, lines):
    """`lines`: a name and a text for each title."""
    first = max(len(text) for text in [head, *(name for name, _ in lines)])
    widths = [max(len(title), *(len(cells[i]) for _, cells in lines)) for i, title in enumerate(titles)]
    print(f"\n| {head:<{first}} | " + " | ".join(f"{title:>{width}}" for title, width in zip(titles, widths)) + " |")
    print(f"|{'-' * (first + 2)}|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    for name, cells in lines:
        print(f"| {name:<{first}} | " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths)) + " |")


# ---- samples/s ----


def skipped(row, model):
    return row == "kvstore" and model.startswith("resnet")


def measure_speed(options, rows, data, figures, losses):
    columns = [(model, int(batch)) for model in options.models.split(",") for batch in options.batches.split(",")]
    columns = [(model, batch) for model, batch in columns if not (model in SMALL and batch != 128)]
    total = options.rounds * sum(not skipped(row, model) for model, _ in columns for row in rows)
    done = 0
    for _ in range(options.rounds):
        for model, batch in columns:
            for row, system in rows.items():
                if skipped(row, model):
                    continue
                done += 1
                tell(f"{done} of {total}: {ROWS[row]}, {model}, batch {batch}")
                try:
                    result = system(Job(data(model), model, batch, EPOCHS))
                except Failed as failure:  # the others' figures are worth having
                    print(f"error: {ROWS[row]}, {model}, batch {batch}: {failure}", file=sys.stderr)
                    continue
                rates = [samples_of(data(model)) / seconds for seconds in result.seconds[1:]]
                figures.setdefault((row, (model, batch)), []).extend(rates)
                losses[row, (model, batch)] = result.loss
    return columns


def speed(options, rows, data):
    figures, losses = {}, {}
    columns = measure_speed(options, rows, data, figures, losses)
    lines = [(ROWS[row], [middle(figures.get((row, column)), "{:,.0f}") for column in columns]) for row in rows]
    for title, above, below in RATIOS:
        if above not in rows or below not in rows:
            continue
        pairs = [(figures.get((above, column)), figures.get((below, column))) for column in columns]
        ratios = [f"{statistics.median(a) / statistics.median(b):.2f}×" if a and b else "–" for a, b in pairs]
        lines.append((title, ratios))
    print_table("samples/s", [f"{model}, batch {batch}" for model, batch in columns], lines)
    lines = [(ROWS[row], [f"{losses[row, c]:.3f}" if (row, c) in losses else "–" for c in columns]) for row in rows]
    print_table(
        f"mean loss of epoch {EPOCHS}: do all learn alike?", [f"{model}, batch {batch}" for model, batch in columns], lines
    )


# ---- time to accuracy ----


def goal(options, rows, data):
    compared = [row for row in ("job", "job16", "ddp") if row in rows]
    seconds, epochs = {}, {}
    for seed in SEEDS:
        for row in compared:
            tell(f"to {GOAL:g} %: {ROWS[row]}, lenet, seed {seed}")
            result = rows[row](Job(data("lenet"), "lenet", 128, GOAL_EPOCHS, seed=seed, rate=GOAL_RATE, goal=GOAL))
            if result.accuracy[-1] < GOAL:
                raise Failed(f"{ROWS[row]}: {result.accuracy[-1]:.2f} % after {len(result.accuracy)} epochs")
            seconds.setdefault(row, []).append(sum(result.seconds))
            epochs.setdefault(row, []).append(len(result.seconds))
    lines = [(ROWS[row], [middle(seconds[row], "{:.1f}"), middle(epochs[row], "{:.0f}")]) for row in compared]
    if "ddp" in compared:
        ratio = statistics.median(seconds["job"]) / statistics.median(seconds["ddp"])
        lines.append(("job / ddp", [f"{ratio:.2f}×", ""]))
    print_table(f"lenet to {GOAL:g} % test accuracy, seeds {SEEDS}", ["seconds", "epochs"], lines)


# ---- accuracy of the sync types ----


def modes(_options, _rows, data):
    lines, first = [], None
    for mode in MODES:
        accuracies, seconds = [], []
        for seed in SEEDS:
            tell(f"{mode.name}, lenet, seed {seed}")
            job = Job(
                data("lenet"), "lenet", mode.batch, MODE_EPOCHS, seed=seed, rate=mode.rate, momentum=mode.momentum,
                cosine=True, sync=mode.sync, validate=True,
            )  # fmt: skip
            result = systems.run_job(job)
            accuracies.append(result.accuracy[-1])
            seconds.append(sum(result.seconds))
        mean = statistics.mean(accuracies)
        first = mean if first is None else first
        settings = f"{mode.batch}, {mode.rate:g}, {mode.momentum:g}"
        each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        middle_seconds = f"{statistics.median(seconds):.1f}"
        lines.append((mode.name, [settings, f"{mean:.2f}", f"{mean - first:+.2f}", each, middle_seconds]))
    titles = ["batch, rate, momentum", "accuracy %", "to Synchronous", "by seed", "seconds"]
    print_table(f"lenet, {MODE_EPOCHS} epochs, cosine, 2 workers", titles, lines)


# ---- the wire ----


def iperf(streams):
    port = str(free_port())
    server = subprocess.Popen(["iperf3", "-s", "-1", "--forceflush", "-p", port], stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            if "listening" in line:
                break
        text = run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", "5", "-P", str(streams), "-f", "g"])
    finally:
        server.kill()
        server.wait()
    rates = re.findall(r"([\d.]+) Gbits/sec.*receiver", text)
    return float(rates[-1]) / 8


def wire(options, _rows, _data):
    servers, limits, checks = [], [], []
    for turn in range(options.rounds):
        tell(f"parameter server and iperf3, {turn + 1} of {options.rounds}")
        text = run([BUILD / "ps_bench", "4", "10000000", "30"])
        servers.append(float(re.search(r"([\d.]+) GB/s through", text)[1]))
        checks.append(float(re.search(r"crc32c: ([\d.]+) GB/s", text)[1]))
        limits.append(max(iperf(1), iperf(4)))
    lines = [
        ("parameter server, 4 workers, 10 million parameters, Float32", [middle(servers, "{:.2f}")]),
        ("iperf3, the better of 1 and 4 streams", [middle(limits, "{:.2f}")]),
        ("server / iperf3", [f"{100 * statistics.median(servers) / statistics.median(limits):.0f} %"]),
        ("CRC32C on one core", [middle(checks, "{:.1f}")]),
    ]
    # A byte is checked where it is made and where it arrives; parameters are made once for all workers.
    share = 1.625 * statistics.median(servers) / statistics.median(checks) / (os.cpu_count() or 1)
    lines.append(("what the CRC takes of all cores then", [f"{100 * share:.1f} %"]))
    print_table("loopback TCP", ["GB/s"], lines)


# ---- all together ----


def machine():
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    kernel = run([BUILD / "thole-trainer", "--version"]).strip()
    return f"{model}, {os.cpu_count()} cores, {system}; {kernel}"


PARTS = {"speed": speed, "goal": goal, "modes": modes, "wire": wire}


def arguments():
    parser = argparse.ArgumentParser(
        prog="hack/bench.sh train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", action="store_true", help="fetch PyTorch into the cache, and run it too")
    parser.add_argument("--mxnet", action="store_true", help="the same of MXNet")
    parser.add_argument("--mxnet-python", help=argparse.SUPPRESS)
    parser.add_argument("--parts", default=",".join(PARTS), help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each system [3]")
    parser.add_argument("--models", default="mlp,lenet,resnet8")
    parser.add_argument("--batches", default="128,32")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of the four files [%(default)s]")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part '{part}'; there are {', '.join(PARTS)}")
    return options


def main():
    options = arguments()
    print(machine())
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.1f}): these are not its best figures", file=sys.stderr)
    rows = systems_by_row(options)
    with tempfile.TemporaryDirectory(prefix="thole-bench-data-") as folder:

        def data(model):
            if model not in SMALL:
                return Path(options.data)
            small = Path(folder, model)
            if not small.exists():
                small.mkdir()
                part_of(options.data, SMALL[model], small)
            return small

        for part in options.parts:
            PARTS[part](options, rows, data)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
