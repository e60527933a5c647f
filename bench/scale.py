"""scale - what a task costs as things grow: workers, queue length, queues, argument size, held eta tasks, chords and chains.

Redis is broker and result store, late ack, results on unless said, prefork -c 2. Each is a curve with its slope: an exponent of 0
is flat, 1 is linear; CPU time is that of all workers and of the server.
"""
import datetime
import time
import uuid

import curves
import envelopes
import harness
import kit
import servers
import workflows

LATE = {"task_acks_late": True}
MB = 1 << 20


def up_to(most, start=10, step=10):
    """start, 10 * start, ... most"""
    sizes = [start]
    while sizes[-1] * step <= most:
        sizes.append(sizes[-1] * step)
    return sizes


class Fleet:
    """Workers that are up and warm, ended with the block."""

    def __init__(self, where, count=1, *options, conf=None, queue="celery"):
        self.where, self.queue = where, queue
        self.workers = [kit.Apium(where.broker, where.backend, *options, conf={**LATE, **(conf or {})}) for _ in range(count)]

    def __enter__(self):
        self.where.clean()
        for worker in self.workers:
            worker.start()
        task_id = str(uuid.uuid4())
        self.where.redis.lpush(self.queue, envelopes.redis(task_id))
        harness.eventually(lambda: not self.where.redis.exists(self.queue, "unacked"), 60, self.workers[0].log, every=0.002)
        return self.workers

    def __exit__(self, *_):
        for worker in self.workers:
            worker.kill_group()


def settled(where, queue="celery", every=0.005):
    harness.eventually(lambda: not where.redis.exists(queue, "unacked"), 600, "all tasks are done", every=every)


def costs(n, seconds, spent):
    each = spent.each(n)
    return {"tasks/s": n / seconds, **each, "CPU us": sum(each.values())}


# ---- one curve each ----

def workers(where):
    n = 4 * kit.Options.tasks  # eight of them are to have something to do
    curve = curves.Curve("workers", "workers on one queue", "workers", f"{n} no-op tasks, prefork -c 2 each")

    def point(count):
        with Fleet(where, count) as up:
            where.drain(min(n, 500), up)
            found = where.drain(n, up)
            return {**found, "CPU us": found["worker us"] + found["server us"]}
    curve.run([1, 2, 4, 8], point)
    curve.exponent("CPU us", "CPU a task")
    curve.exponent("server us", "the server's part")
    curve.exponent("tasks/s", "tasks a second")
    curve.done()


def depth(where):
    """A queue that is longer than what is measured is cut off behind it; a shorter one is filled again and again."""
    count = kit.Options.tasks
    curve = curves.Curve("depth", "queue length", "messages", f"{count} no-op tasks from a queue of that length (a short one: as often as needed, at most "
                         "100 times); behind it the bare loop")

    def long(size, up):
        where.push(size, "staged")
        spent, began = kit.Spent(up, where.pid), time.monotonic()
        where.redis.rename("staged", "celery")
        kit.reached(lambda: size - where.redis.llen("celery"), count, what="enough tasks are done")
        where.redis.rename("celery", "rest")
        rest = where.redis.llen("rest")
        settled(where, every=0.002)
        found = costs(size - rest, time.monotonic() - began, spent)
        n = min(count, rest)
        spent = kit.Spent([], where.pid)  # what a queue of that length costs the server anyway
        kit.program("redis_drain", where.server.port, "rest", n, 64, "results")
        return {**found, "bare server us": spent.each(n)["server us"]}

    def short(size, up):
        times = max(1, min(100, count // size))
        where.push(size * times, "staged")
        deal = where.redis.register_script("for i = 1, ARGV[1] do redis.call('LMOVE', 'staged', 'celery', 'RIGHT', 'LEFT') end")
        spent, began = kit.Spent(up, where.pid), time.monotonic()
        for _ in range(times):
            deal(args=[size])
            settled(where, every=0.0005)
        return costs(size * times, time.monotonic() - began, spent)

    def point(size):
        with Fleet(where) as up:
            where.drain(500, up)
            where.redis.flushall()
            found = (long if size >= 2 * count else short)(size, up)
        where.clean()
        return found
    curve.run(up_to(kit.Options.deepest), point)
    curve.exponent("CPU us", "CPU a task", least=1000)
    curve.exponent("tasks/s", "tasks a second", least=1000)
    curve.note("a queue of 10 is handed over, done and looked at each time: what a batch costs, shared by 10")
    curve.done()


def queues(where):
    n = kit.Options.tasks
    curve = curves.Curve("queues", "queues of one worker", "queues", f"{n} no-op tasks in equal parts")

    def point(count):
        names = [f"q{i}" for i in range(count)]
        with Fleet(where, 1, "-Q", ",".join(names), queue="q0") as up:
            time.sleep(1.5)  # looks at queues that nobody waits on become rarer
            idle, began = kit.Spent(up, where.pid), time.monotonic()
            time.sleep(1.5)
            waiting = {name.replace("us", "idle %"): us / 10000 / (time.monotonic() - began) for name, us in idle.each(1).items()}
            began = time.monotonic()
            where.redis.lpush(names[-1], envelopes.redis(str(uuid.uuid4())))
            settled(where, names[-1], every=0.001)
            lone = (time.monotonic() - began) * 1000
            where.redis.flushall()
            where.push(n, "staged")
            where.redis.eval("for i = 1, ARGV[1] do redis.call('LMOVE', 'staged', 'q' .. i % ARGV[2], 'RIGHT', 'LEFT') end", 0, n, count)
            spent, began = kit.Spent(up, where.pid), time.monotonic()
            kit.reached(where.redis.dbsize, n)
            settled(where, names[-1])
            return {**costs(n, time.monotonic() - began, spent), **waiting, "lone ms": lone}
    curve.run([1, 10, 100, 1000], point)
    curve.exponent("CPU us", "CPU a task")
    curve.exponent("tasks/s", "tasks a second")
    curve.note("idle: CPU with nothing to do; lone: from sending one task into the last queue, after that, until it is done")
    curve.done()


def sizes(where):
    most = 64 * MB if kit.Options.quick else 256 * MB
    curve = curves.Curve("sizes", "argument size", "bytes", f"tasks.echo of a string, at most {kit.Options.tasks} tasks and {most // MB} MB; "
                         "no result stored; the same stored; the bare loop without results")

    def drain(size, n, results):
        with Fleet(where) as up:
            where.drain(500, up)
            where.redis.flushall()
            where.fill(n, "staged", task="tasks.echo", args=("x" * size,), ignore_result=not results)
            spent, began = kit.Spent(up, where.pid), time.monotonic()
            where.redis.rename("staged", "celery")
            settled(where)
            return costs(n, time.monotonic() - began, spent)

    def point(size):
        n = max(50, min(kit.Options.tasks, most // size))
        kept, ignored = drain(size, n, True), drain(size, n, False)
        where.redis.flushall()
        where.fill(n, "celery", task="tasks.echo", args=("x" * size,))
        bare = kit.program("redis_drain", where.server.port, "celery", n, max(1, min(64, 4 * MB // size)), "none")[0]
        where.clean()
        return {"tasks/s": ignored["tasks/s"], "worker us": ignored["worker us"], "server us": ignored["server us"], "CPU us": ignored["CPU us"],
                "us": 1e6 / ignored["tasks/s"], "MB/s": ignored["tasks/s"] * size / 1e6, "stored MB/s": kept["tasks/s"] * size / 1e6,
                "bare MB/s": bare * size / 1e6}
    curve.run(up_to(MB) if not kit.Options.quick else up_to(MB, step=100), point)
    curve.slope("CPU us", "CPU a task, us", 1000, "a kB", relative=True)
    curve.slope("us", "time a task, us", 1000, "a kB", relative=True)
    curve.done()


def held(where):
    n = kit.Options.tasks
    curve = curves.Curve("held", "held eta tasks", "held", f"{n} no-op tasks beside tasks with an eta in three hours")

    def point(count):
        with Fleet(where) as up:
            where.drain(500, up)
            where.redis.flushall()
            found = {}
            before = harness.pss_kib(up[0].pid)
            if count:
                eta = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=3)).isoformat()
                where.fill(count, "staged", eta=eta)
                began = time.monotonic()
                where.redis.rename("staged", "celery")
                harness.eventually(lambda: not where.redis.exists("celery"), 600, "all delayed tasks are taken", every=0.01)
                found["taken/s"] = count / (time.monotonic() - began)
                kit.at_rest(lambda: where.redis.hlen("unacked"))
                found["MiB more"] = (harness.pss_kib(up[0].pid) - before) / 1024
            where.push(n, "staged")
            kept = kit.at_rest(lambda: where.redis.hlen("unacked"))  # of those that are held; others are parked elsewhere
            spent, began = kit.Spent(up, where.pid), time.monotonic()
            where.redis.rename("staged", "celery")
            harness.eventually(lambda: not where.redis.exists("celery") and where.redis.hlen("unacked") <= kept, 600, "all tasks are done", every=0.01)
            return {**costs(n, time.monotonic() - began, spent), **found}
    curve.run([0, *up_to(10000 if kit.Options.quick else 100000, 100)], point)
    curve.slope("CPU us", "CPU a task, us", 1000, "a 1,000 held")
    curve.slope("MiB more", "memory, MiB", 1000, "a 1,000 held")
    curve.done()


def flows(where, shape, sizes_of, key=None, title=None, conf=None):
    curve = curves.Curve(key or f"{shape}s", title or f"{shape} size", "parts" if shape == "chord" else "steps",
                         "from sending to the result; the C client sends")

    def point(n):
        where.clean()
        peak = []
        seconds = workflows.run(workflows.apium, where.broker, [(shape, n)], peak, conf)[shape, n]
        return {"seconds": seconds, "us each": seconds / n * 1e6, "peak MiB": peak[0]}
    curve.run(sizes_of, point)
    curve.exponent("seconds", "seconds", least=100)
    curve.done()


CURVES = {
    "workers": workers, "depth": depth, "queues": queues, "sizes": sizes, "held": held,
    "chords": lambda where: flows(where, "chord", up_to(10000 if kit.Options.quick else 100000)),
    "chains": lambda where: flows(where, "chain", up_to(1000)),
    "pieces": lambda where: flows(where, "chain", up_to(10000), "pieces", "chain size, in pieces of 100 (task_chain_piece_size)", workflows.PIECES),
}


def measure(*names):
    where = servers.OnRedis()
    try:
        for name in names or CURVES:
            CURVES[name](where)
    finally:
        where.stop()
