"""bench - apium beside Celery and beside the bare protocol, in one run; prints medians, their spread, and ratios.

    ./dev bench [MEASURE...] [--quick] [--json FILE] [--rounds N] [--tasks N]
    ./dev bench --guard          count the instructions of the hot path and compare them with bench/budget.json
    ./dev bench --markdown RUN.json...   the tables of docs/performance.md out of such runs; --plots: docs/plots/; --docs: both, into the page

Without arguments everything is measured, which takes an hour or two: every measure starts servers and workers of its own, and
its contenders run in turn, in an order that alternates from round to round. Absolute figures belong to this machine and this
minute; the ratios, which are taken within each round, are what is meant to be read.
"""
import argparse
import functools
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "support"))
import client  # noqa: E402
import drain  # noqa: E402
import guard  # noqa: E402
import kit  # noqa: E402
import memory  # noqa: E402
import peers  # noqa: E402
import plots  # noqa: E402
import scale  # noqa: E402
import tables  # noqa: E402
import workflows  # noqa: E402

MEASURES = {
    "redis": drain.redis, "rabbitmq": drain.rabbitmq, "sqlite": drain.sqlite, "two-workers": drain.pair, "delay": drain.delayed, "events": drain.events,
    "publish": client.publish, "latency": client.latency, "memory": memory.measure, "workflows": workflows.measure,
    "peers": peers.measure, "scale": scale.measure,
}
PARTS = {f"scale-{name}": functools.partial(scale.measure, name) for name in scale.CURVES}


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join([*MEASURES, *PARTS]) + "; default: all")
    parser.add_argument("--rounds", type=int, help="alternated rounds (5; quick: 2)")
    parser.add_argument("--tasks", type=int, help="tasks of a drain (20000; quick: 5000); Celery gets a tenth")
    parser.add_argument("--deepest", type=int, metavar="N", help="longest queue of the curve (1000000; quick: 100000); 10000000 takes 10 GB of memory")
    parser.add_argument("--quick", action="store_true", help="few rounds and tasks: a look, not a measurement")
    parser.add_argument("--json", metavar="FILE", help="write everything that was seen there; - is the standard output")
    parser.add_argument("--guard", action="store_true", help="only compare instruction counts with the budget")
    parser.add_argument("--write-budget", action="store_true", help="with --guard: what is counted now is the budget")
    parser.add_argument("--markdown", nargs="+", metavar="RUN.json", help="only print the tables of docs/performance.md out of runs that --json wrote")
    parser.add_argument("--plots", nargs="+", metavar="RUN.json", help="only draw docs/plots/*.svg out of such runs")
    parser.add_argument("--docs", nargs="+", metavar="RUN.json", help="both, into docs/performance.md and docs/plots/")
    opts = parser.parse_args()
    unknown = [name for name in opts.measures if name not in {**MEASURES, **PARTS}]
    if unknown:
        parser.error(f"no measure is called {unknown[0]}; there are {', '.join([*MEASURES, *PARTS])}")
    if opts.deepest is not None and opts.deepest < 10:
        parser.error("--deepest: a queue of 10 is the shortest")
    if opts.markdown:
        return tables.show(opts.markdown)
    if opts.plots or opts.docs:
        plots.write(opts.plots or opts.docs)
        return tables.write(opts.docs) if opts.docs else None
    if opts.guard:
        sys.exit(guard.main(opts.write_budget))
    kit.Options.quick = opts.quick
    kit.Options.rounds = opts.rounds or (2 if opts.quick else 5)
    kit.Options.tasks = opts.tasks or (5000 if opts.quick else 20000)
    kit.Options.deepest = opts.deepest or (100000 if opts.quick else 1000000)
    kit.Options.json_path = opts.json
    print(f"{kit.Options.rounds} alternated rounds on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; median (lowest-highest)")
    try:
        for name in opts.measures or MEASURES:
            {**MEASURES, **PARTS}[name]()
    finally:
        kit.write_json()


if __name__ == "__main__":
    main()
