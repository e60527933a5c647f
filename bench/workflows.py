"""workflows - chords and chains on workers of both kinds: seconds from sending to the result, and how they grow.

Redis is broker and result store, prefork -c 2. bench/flow.c sends and waits, so the sender is the same for both. Sizes beyond what
Celery does in reasonable time are measured with apium alone, and so are chains in pieces (task_chain_piece_size), which are apium's.
"""
import harness
import kit

SIZES = {"chord": ([100, 1000, 10000], [100000]), "chain": ([100, 1000], [10000])}  # of both, of apium alone
PIECES = {"task_chain_piece_size": 100}
IN_PIECES = [100, 1000, 10000, 100000]


def run(kind, url, sizes, peak, conf=None):
    """One worker and everything it is given: {(shape, n): seconds}, and its memory's peak in MiB. `conf` is the sender's too."""
    worker = kind(url, conf).start()
    found = {}
    try:
        for shape, n in sizes:
            found[shape, n] = kit.program("flow", shape, n, **harness.environment(url, url, conf))[1]
        peak.append(sum(high_water_kib(pid) for pid in harness.tree(worker.pid)) / 1024)
    finally:
        worker.kill_group()
    return found


def high_water_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)


def apium(url, conf=None):
    return harness.Worker(url, url, "-c", "2", conf=conf)


class Celery(kit.Celery):
    """It says when it is ready, as apium does."""

    def __init__(self, url, _conf=None):
        super().__init__(url, url, level="INFO")

    def start(self):
        super().start()
        harness.eventually(lambda: " ready." in self.log(), 60, "Celery is ready")
        return self


def measure():
    rounds = kit.Options.rounds
    server = harness.Redis().start()
    url = server.url()
    both = [(shape, n) for shape, (sizes, _) in SIZES.items() for n in sizes if not kit.Options.quick or n <= 1000]
    alone = [(shape, n) for shape, (_, sizes) in SIZES.items() for n in sizes]
    pieces = [("chain", n) for n in IN_PIECES]
    report = kit.Report("workflows, redis", "seconds from sending to the result, prefork -c 2; the C client sends to both")

    def sample(kind, sizes, conf=None):
        peak = []
        server.client().flushall()
        found = {f"{shape} {n}": seconds for (shape, n), seconds in run(kind, url, sizes, peak, conf).items()}
        return {**found, "peak MiB": peak[0]}
    kit.alternate(report, {"apium": lambda: sample(apium, both), "celery": lambda: sample(Celery, both)}, rounds)
    if not kit.Options.quick:
        kit.alternate(report, {"apium, large": lambda: sample(apium, alone), "apium, pieces": lambda: sample(apium, pieces, PIECES)}, 1)
    for shape, n in both:
        report.ratio(f"{shape} of {n}, celery / apium", "celery", "apium", f"{shape} {n}")
    for who, sizes in (("apium", both), ("apium, large", alone), ("apium, pieces", pieces)):
        for shape, n in sizes:
            seconds = report.median(who, f"{shape} {n}")
            if seconds:
                report.note(f"{shape} of {n}{', in pieces' if sizes is pieces else ''}: {seconds / n * 1e6:.0f} us a part")
    report.done()
    server.stop()
