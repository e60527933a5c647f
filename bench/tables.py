"""tables - the tables of docs/performance.md, row by row, out of the JSON of runs.

    ./dev bench --markdown RUN.json...    print them
    ./dev bench --docs RUN.json...        write them between their marks in docs/performance.md, and the plots

Of several runs the last one that has a measure counts. Marks are comments: <!-- bench: NAME --> before, <!-- bench end --> behind a table.
"""
import json
import pathlib
import re
import statistics

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def number(value):
    """Three digits that count, thousands apart."""
    if abs(value) >= 100:
        digits = max(0, len(str(int(abs(value)))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.3g}"


def spread(values, scale=1, show=number):
    middle, low, high = (show(f(values) * scale) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}-{high})"


class Runs:
    """Measures by their names, curves by their keys."""

    def __init__(self, paths):
        self.measures, self.curves = {}, {}
        for path in paths:
            try:
                run = json.loads(pathlib.Path(path).read_text())
                self.measures.update({m["name"]: m for m in run["measures"]})
                self.curves.update({c["key"]: c for c in run["curves"]})
            except OSError as error:
                raise SystemExit(f"bench: cannot read {path}: {error.strerror}") from None
            except (ValueError, KeyError, TypeError):
                raise SystemExit(f"bench: {path} is not what --json writes") from None

    def values(self, measure, who, metric):
        samples = self.measures.get(measure, {}).get("samples", {}).get(who, [])
        return [s[metric] for s in samples if metric in s]

    def cell(self, measure, who, metric, scale=1):
        values = self.values(measure, who, metric)
        return spread(values, scale) if values else ""

    def middle(self, measure, who, metric, scale=1, show=number):
        values = self.values(measure, who, metric)
        return show(statistics.median(values) * scale) if values else ""

    def ratio(self, measure, text, tail=""):
        for r in self.measures.get(measure, {}).get("ratios", []):
            if r["text"] == text:
                low, high = number(r["low"]), number(r["high"])
                return number(r["median"]) + tail + (f" ({low}-{high})" if low != high else "")
        return ""


def table(head, rows):
    rows = [row for row in rows if any(row[1:])]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)] if rows else []


def drains(runs):
    rows = []

    def row(label, measure, who="apium", celery="apium / celery", bare="apium / bare", tail=""):
        cost = [runs.middle(measure, who, metric) for metric in ("worker us", "server us")]
        beside = runs.ratio(measure, bare)
        rows.append([label, runs.cell(measure, who, "tasks/s"), " + ".join(c for c in cost if c), runs.ratio(measure, celery, " times") if celery else "",
                     beside + tail if beside else ""])
    row("Redis, late ack", "drain, redis, late ack, results on")
    row("Redis, late ack, threads", "drain, redis, late ack, results on", "apium threads", celery="", bare="apium threads / bare")
    row("Redis, early ack", "drain, redis, early ack, results on")
    row("Redis, late ack, results ignored", "drain, redis, late ack, results off")
    row("Redis, early ack, results ignored", "drain, redis, early ack, results off")
    row("Redis, late ack, task events", "drain, redis, events", "events on", bare="on / off", tail=" of itself without events")
    row("Redis, late ack, 1 ms of delay each way", "drain with 1 ms of delay each way, redis", "delayed", bare="delayed / straight",
        tail=" of itself without delay")
    for kind in ("classic", "quorum"):
        row(f"RabbitMQ {kind} queue, late ack", f"drain, rabbitmq {kind}, late ack, results on")
        row(f"RabbitMQ {kind} queue, early ack", f"drain, rabbitmq {kind}, early ack, results on")
        row(f"RabbitMQ {kind} queue, late ack, results ignored", f"drain, rabbitmq {kind}, late ack, results off")
    for label, who in (("late ack", "apium late ack"), ("early ack", "apium early ack"), ("late ack, results ignored", "late ack, results off")):
        row(f"SQLite, {label}, durable", "drain, sqlite", who)
    row("two workers on one Redis queue, late ack", "two workers, redis", "two", bare="two / one", tail=" of one")
    return table(["no-op tasks, prefork `-c 2`", "apium a second", "CPU us a task, worker + server", "beside Celery", "beside the bare loop"], rows)


def publishing(runs):
    rows = []
    for label, where in (("Redis", "redis"), ("RabbitMQ, confirmed", "rabbitmq classic")):
        name = f"publish, {where}"
        rows.append([label, runs.middle(name, "apium single", "calls/s"), runs.middle(name, "apium bulk", "calls/s"), runs.ratio(name, "bulk / bare window"),
                     runs.middle(name, "kombu", "calls/s"), runs.ratio(name, "bulk / kombu", " times")])
    return table(["publishing, calls a second", "single", "batch", "batch beside the bare window of 256", "kombu", "batch beside kombu"], rows)


def latency(runs):
    rows = []
    for name, behind in (("latency, redis", ""), ("latency on any core, redis", ", on any core"), ("latency with 1 ms of delay each way, redis", ", 1 ms of delay each way")):
        for metric, label in (("alone p50 us", "one at a time, median"), ("alone p99 us", "one at a time, 99th percentile"),
                              ("64 in flight p50 us", "64 in flight, median"), ("64 in flight p99 us", "64 in flight, 99th percentile")):
            ratio = runs.ratio(name, "alone, apium / bare") if metric == "alone p50 us" else ""
            rows.append([label + behind, *(runs.cell(name, who, metric, 0.001) for who in ("apium", "celery", "bare")), ratio])
    return table(["from sending to the result, Redis, ms", "apium", "Celery", "bare round trips", "apium beside them"], rows)


def worker(runs):
    name = "start-up and memory, redis"
    rows = [["start to first task done, s", *(runs.cell(name, who, "first task s") for who in ("apium", "celery")), runs.ratio(name, "start-up, apium / celery")],
            ["memory (PSS), idle, MiB", *(runs.cell(name, who, "idle MiB") for who in ("apium", "celery")), runs.ratio(name, "idle, apium / celery")],
            ["memory, draining, MiB", *(runs.cell(name, who, "busy MiB") for who in ("apium", "celery")), runs.ratio(name, "busy, apium / celery")]]
    for metric in (m for samples in runs.measures.get(name, {}).get("samples", {}).get("apium", [])[:1] for m in samples if m.endswith("delayed")):
        held = int(re.search(r"\d+", metric)[0])
        rows.append([f"added by {held:,} tasks with a far eta (Celery: {held // 20:,}), MiB", *(runs.cell(name, who, metric if who == "apium" else
                     f"MiB for {held // 20} delayed") for who in ("apium", "celery")), ""])
    return table(["a worker with two processes", "apium", "Celery", "ratio"], rows)


def workflows(runs):
    rows = []
    lines = [(f"{shape} of {n:,}", f"{shape} {n}", n, ("apium", "apium, large")) for shape, sizes in
             (("chord", (100, 1000, 10000, 100000)), ("chain", (100, 1000, 10000))) for n in sizes]
    lines += [(f"chain of {n:,}, in pieces of 100", f"chain {n}", n, ("apium, pieces",)) for n in (100, 1000, 10000, 100000)]
    for what, metric, n, whose in lines:
        seconds = next((found for who in whose if (found := runs.values("workflows, redis", who, metric))), None)
        if seconds:
            beside = "apium, pieces" not in whose
            rows.append([what, spread(seconds), f"{number(statistics.median(seconds) / n * 1e6)} us",
                         runs.middle("workflows, redis", "celery", metric) if beside else "",
                         runs.ratio("workflows, redis", f"{what.replace(',', '')}, celery / apium") if beside else ""])
    return table(["workflow on Redis, seconds", "apium", "a part", "Celery", "ratio"], rows)


def peer_name(who):
    """asynq -c 10: Asynq, concurrency 10"""
    word = re.split(r"[ ,]", who)[0]
    title = {"asynq": "Asynq", "machinery": "Machinery", "gocraft": "gocraft/work", "celery": "Celery"}.get(word, word)
    return re.sub(r" -c (\d+)", r", concurrency \1", who.replace(word, title, 1))


def peers(runs):
    on, off = "peers, redis, results on", "peers, redis, results off"
    names = list(dict.fromkeys([*runs.measures.get(on, {}).get("samples", {}), *runs.measures.get(off, {}).get("samples", {})]))
    rows = []
    for who in names:
        cells = [peer_name(who)]
        for name in (on, off):
            cost = [runs.middle(name, who, metric) for metric in ("worker us", "server us")]
            cells += [runs.cell(name, who, "tasks/s"), " + ".join(c for c in cost if c), runs.ratio(name, f"apium / {who}")]
        rows.append(cells)
    return table(["no-op tasks on one Redis", "a second, results stored", "CPU us, own + server", "apium is so many times that", "a second, no results",
                  "CPU us, own + server", "apium is so many times that"], rows)


def curves(runs):
    """A row each: the sizes, and at each of them the median."""
    wanted = {"workers": ("CPU us", "CPU us a task"), "depth": ("CPU us", "CPU us a task"), "queues": ("CPU us", "CPU us a task"), "sizes": ("MB/s", "MB a second"),
              "held": ("CPU us", "CPU us a task"), "chords": ("us each", "us a part"), "chains": ("us each", "us a step"),
              "pieces": ("us each", "us a step")}
    rows = []
    for key, curve in runs.curves.items():
        metric, what = wanted[key]
        points = [(p["x"], [s[metric] for s in p["samples"] if metric in s]) for p in curve["samples"]]
        rows.append([curve["title"], " · ".join(f"{x:,}" for x, _ in points), what + ": " + " · ".join(number(statistics.median(v)) for _, v in points),
                     "; ".join(fit["text"] for fit in curve["fits"])])
    order = list(wanted)
    rows.sort(key=lambda row: [order.index(k) for k, c in runs.curves.items() if c["title"] == row[0]])
    return table(["what grows", "sizes", "median at each", "slope"], rows)


TABLES = {"drains": drains, "publishing": publishing, "latency": latency, "worker": worker, "workflows": workflows, "peers": peers, "curves": curves}


def show(paths):
    runs = Runs(paths)
    for name, make in TABLES.items():
        lines = make(runs)
        if lines:
            print(f"<!-- bench: {name} -->", *lines, "<!-- bench end -->\n", sep="\n")


def write(paths):
    """Put what the runs have into the page; what they lack stays as it is."""
    runs, text = Runs(paths), PAGE.read_text()
    for name, make in TABLES.items():
        lines = make(runs)
        mark = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- bench end -->)", re.S)
        if lines and not mark.search(text):
            raise SystemExit(f"bench: {PAGE.name} has no mark <!-- bench: {name} -->")
        if lines:
            text = mark.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text)  # noqa: B023
    PAGE.write_text(text)
