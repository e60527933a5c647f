"""bench - apium beside Celery and beside the bare protocol, in one run; prints ratios.

    ./dev bench [--tasks N] [--rounds N] [--only redis|rabbitmq|workflows] [--multiplier N]

Each round drains the same number of no-op tasks with results, by apium, by Celery (both prefork, two processes) and by a
C loop that issues only the commands a task costs (bench/bare/); the order alternates from round to round, and medians are
printed. Workflows (workflows.py) are sent by the same C program to both kinds of workers. Absolute figures belong to this machine and this minute; the ratios are what is meant to be read.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "support"))
import envelopes  # noqa: E402
import harness  # noqa: E402
import workflows  # noqa: E402

BENCH = pathlib.Path(__file__).resolve().parent


class Apium(harness.Worker):
    def __init__(self, broker, backend, options):
        super().__init__(broker, backend, "-c", "2", *options, level="WARNING")

    def start(self):
        self.began = time.monotonic()
        return harness.Process.start(self)  # at WARNING nobody says "ready": a probe task tells when it is up


class Celery(harness.Process):
    def __init__(self, broker, backend, options):
        super().__init__("celery", [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-l", "WARNING", "-c", "2",
                                    "--without-gossip", "--without-mingle", "--without-heartbeat", *options],
                         {"BENCH_BROKER": broker, "BENCH_BACKEND": backend, "PYTHONPATH": str(BENCH)})

    def start(self):
        self.began = time.monotonic()
        return super().start()


class OnRedis:
    name = "redis"

    def __init__(self):
        self.server = harness.Redis().start()
        self.redis = self.server.client()
        self.broker = self.backend = self.server.url()

    def fill(self, n, queue):
        pipe = self.redis.pipeline(transaction=False)
        for i in range(n):
            pipe.lpush(queue, envelopes.redis(str(uuid.uuid4())))
            if i % 1000 == 999:
                pipe.execute()
        pipe.execute()

    def results(self):
        return self.redis.dbsize()

    def probe(self):
        task_id = str(uuid.uuid4())
        self.redis.lpush("celery", envelopes.redis(task_id))
        harness.eventually(lambda: self.redis.exists("celery-task-meta-" + task_id), 60, "the probe task is done", every=0.002)

    def drain(self, n):
        """The worker is up and idle; the tasks appear all at once."""
        self.redis.flushall()
        self.fill(n, "staged")
        begin = time.monotonic()
        self.redis.rename("staged", "celery")
        meta = "return redis.call('DBSIZE') - redis.call('EXISTS', 'celery', 'unacked', 'unacked_index', " \
               "'_kombu.binding.celery', 'unacked_mutex')"
        harness.eventually(lambda: self.redis.eval(meta, 0) >= n, 300, "all results are there", every=0.005)
        return n / (time.monotonic() - begin)

    def bare(self, n):
        self.redis.flushall()
        self.fill(n, "celery")
        return float(subprocess.check_output([harness.BUILD / "bench" / "redis_drain", str(self.server.port), "celery", str(n)]))


class OnRabbit:
    name = "rabbitmq"

    def __init__(self):
        import amqp
        self.server = harness.RabbitMQ().start()
        self.broker, self.backend = self.server.url(), "rpc://"
        self.amqp = amqp
        self.connection = amqp.Connection(f"127.0.0.1:{self.server.port}")
        self.connection.connect()
        self.channel = self.connection.channel()
        self.reply = "bench-replies"
        self.channel.exchange_declare("celery", "direct", durable=True, auto_delete=False)
        for queue in ("celery", "staged"):
            self.channel.queue_declare(queue, durable=True, auto_delete=False)
        self.channel.queue_bind("celery", "celery", "celery")
        self.channel.queue_declare(self.reply, durable=True, auto_delete=False)

    def publish(self, queue, task_id):
        self.channel.basic_publish(self.amqp.Message(
            envelopes.body(), content_type="application/json", content_encoding="utf-8", application_headers=envelopes.headers(task_id),
            delivery_mode=2, priority=0, correlation_id=task_id, reply_to=self.reply), routing_key=queue)

    def depth(self, queue):
        return self.channel.queue_declare(queue, passive=True).message_count

    def probe(self):
        before = self.depth(self.reply)
        self.publish("celery", str(uuid.uuid4()))
        harness.eventually(lambda: self.depth(self.reply) > before, 60, "the probe task is done", every=0.002)

    def drain(self, n, worker):
        """The worker is stopped while the queue is filled: RabbitMQ cannot rename. It holds at most its window then."""
        import signal
        self.channel.queue_purge(self.reply)
        for pid in harness.tree(worker.pid):
            os.kill(pid, signal.SIGSTOP)
        for _ in range(n):
            self.publish("celery", str(uuid.uuid4()))
        harness.eventually(lambda: self.depth("celery") + 4096 >= n, 60, "the queue is filled")
        begin = time.monotonic()
        for pid in harness.tree(worker.pid):
            os.kill(pid, signal.SIGCONT)
        harness.eventually(lambda: self.depth(self.reply) >= n, 300, "all results are there", every=0.005)
        return n / (time.monotonic() - begin)

    def bare(self, n):
        self.channel.queue_purge(self.reply)
        for _ in range(n):
            self.publish("celery", str(uuid.uuid4()))
        harness.eventually(lambda: self.depth("celery") >= n, 60, "the queue is filled")
        return float(subprocess.check_output([harness.BUILD / "bench" / "amqp_drain", str(self.server.port), "celery", str(n)]))


def measure(where, kind, options, n):
    """Start a worker, drain, stop; gives tasks/s, start-up seconds, PSS in KiB."""
    if where.name == "redis":
        where.redis.flushall()
    worker = kind(where.broker, where.backend, options).start()
    try:
        where.probe()
        startup = time.monotonic() - worker.began
        where.drain(min(n, 500), *([worker] if where.name == "rabbitmq" else []))  # warm
        rate = where.drain(n, *([worker] if where.name == "rabbitmq" else []))
        memory = harness.pss_kib(worker.pid)
    finally:
        worker.stop()
    return rate, startup, memory


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--celery-tasks", type=int, help="fewer tasks in each of Celery's drains, for a quick look")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["redis", "rabbitmq", "workflows"])
    parser.add_argument("--multiplier", type=int, help="worker_prefetch_multiplier of both (default: each one's own)")
    opts = parser.parse_args()
    options = ["--prefetch-multiplier", str(opts.multiplier)] if opts.multiplier else []

    for make in (OnRedis, OnRabbit):
        if opts.only and opts.only != make.name:
            continue
        where = make()
        rounds = {"apium": [], "celery": [], "bare": []}
        for i in range(opts.rounds):
            order = ["apium", "celery", "bare"]
            for who in order if i % 2 == 0 else reversed(order):
                if who == "bare":
                    rounds[who].append((where.bare(opts.tasks), 0, 0))
                else:
                    rounds[who].append(measure(where, Apium if who == "apium" else Celery, options,
                                               opts.tasks if who == "apium" else opts.celery_tasks or opts.tasks))
        median = {who: [statistics.median(figures) for figures in zip(*rows)] for who, rows in rounds.items()}
        apium, celery, bare = median["apium"], median["celery"], median["bare"]
        print(f"\n{make.name}: {opts.tasks} no-op tasks with results, prefork -c 2, medians of {opts.rounds} alternated rounds")
        print(f"  {'':10} {'tasks/s':>10} {'start-up s':>11} {'memory MiB':>11}")
        print(f"  {'apium':10} {apium[0]:10.0f} {apium[1]:11.3f} {apium[2] / 1024:11.1f}")
        print(f"  {'celery':10} {celery[0]:10.0f} {celery[1]:11.3f} {celery[2] / 1024:11.1f}")
        print(f"  {'bare C':10} {bare[0]:10.0f}")
        print(f"  apium / celery: {apium[0] / celery[0]:.1f} times the tasks; memory {apium[2] / celery[2]:.3f}; "
              f"start-up {apium[1] / celery[1]:.3f}")
        print(f"  apium / bare:   {apium[0] / bare[0]:.2f}", flush=True)
        where.server.stop()
    if opts.only in (None, "workflows"):
        workflows.main(opts.rounds)


if __name__ == "__main__":
    main()
