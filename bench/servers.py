"""servers - where the bench's tasks go: filling a queue, and knowing when all that was in it is done."""
import contextlib
import os
import shutil
import signal
import sqlite3
import time
import uuid

import envelopes
import harness
import kit


@contextlib.contextmanager
def asleep(workers):
    """The workers stand still: a queue is filled that they are to find full."""
    pids = [pid for worker in workers for pid in harness.tree(worker.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class OnRedis:
    """Redis as broker and result store."""
    name = "redis"

    def __init__(self):
        self.server = harness.Redis().start()
        self.redis = self.server.client()
        self.broker = self.backend = self.server.url()
        self.pid = self.server.pid

    def clean(self):
        self.redis.flushall()

    def fill(self, n, queue, **headers):
        """Tasks as envelopes.redis() writes them, a few megabytes at a time."""
        pipe, waiting = self.redis.pipeline(transaction=False), 0
        for _ in range(n):
            text = envelopes.redis(str(uuid.uuid4()), **headers)
            pipe.lpush(queue, text)
            waiting += len(text)
            if waiting > 2 << 20:
                pipe.execute()
                waiting = 0
        pipe.execute()

    def push(self, n, queue):
        """Many no-op tasks, fast; with the same ids each time."""
        kit.program("redis_push", self.server.port, queue, n, 256)

    def probe(self, *_):
        task_id = str(uuid.uuid4())
        self.redis.lpush("celery", envelopes.redis(task_id))
        harness.eventually(lambda: not self.redis.exists("celery") and not self.redis.exists("unacked"), 60,
                           "the probe task is done", every=0.002)

    def drain(self, n, workers, results=True):
        """The workers are up and idle; the tasks appear all at once."""
        self.redis.flushall()
        self.fill(n, "staged")
        spent = kit.Spent(workers, self.pid)
        begin = time.monotonic()
        self.redis.rename("staged", "celery")
        if results:
            kit.reached(self.redis.dbsize, n, what="nearly all results are there")
        else:
            kit.reached(lambda: n - self.redis.llen("celery"), n, what="the queue is empty")
        harness.eventually(lambda: not self.redis.exists("celery", "unacked"), 600, "all tasks are done", every=0.002)
        return {"tasks/s": n / (time.monotonic() - begin), **spent.each(n)}

    def bare(self, n, results=True, batch=64):
        self.redis.flushall()
        self.fill(n, "celery")
        spent = kit.Spent([], self.pid)
        rate = kit.program("redis_drain", self.server.port, "celery", n, batch, "results" if results else "none")[0]
        return {"tasks/s": rate, **spent.each(n)}

    def stop(self):
        self.server.stop()


class OnRabbit:
    """RabbitMQ as broker, results in Redis."""

    def __init__(self, quorum=False):
        import amqp
        self.name = "rabbitmq quorum" if quorum else "rabbitmq classic"
        self.server = harness.RabbitMQ().start()
        self.results = harness.Redis().start()
        self.redis = self.results.client()
        self.broker, self.backend = self.server.url(), self.results.url()
        self.pid = self.server.pid
        self.amqp = amqp
        self.connection = amqp.Connection(f"127.0.0.1:{self.server.port}")
        self.connection.connect()
        self.channel = self.connection.channel()
        self.conf = {}
        self.kind = {}
        if quorum:
            self.kind = {"x-queue-type": "quorum"}
            self.conf = {"task_default_queue_type": "quorum", "broker_native_delayed_delivery_queue_type": "quorum"}
        self.channel.exchange_declare("celery", "direct", durable=True, auto_delete=False)
        self.clean()

    def clean(self):
        """Everybody begins with a new queue: the memory of an old one, and how often the server's process for it collects garbage, is
        that of whoever used it before, and doubles or halves what a message costs."""
        self.redis.flushall()
        self.channel.queue_delete("celery")
        self.channel.queue_declare("celery", durable=True, auto_delete=False, arguments=self.kind)
        self.channel.queue_bind("celery", "celery", "celery")

    def publish(self, task_id, **headers):
        self.channel.basic_publish(self.amqp.Message(
            envelopes.body(), content_type="application/json", content_encoding="utf-8",
            application_headers=envelopes.headers(task_id, **headers), delivery_mode=2, priority=0, correlation_id=task_id),
            routing_key="celery")

    def depth(self):
        return self.channel.queue_declare("celery", passive=True).message_count

    def fill(self, n, queue="celery", **headers):
        for _ in range(n):
            self.publish(str(uuid.uuid4()), **headers)

    def done(self, workers, results):
        """How many tasks: by their results, or by what the workers count."""
        return self.redis.dbsize() if results else sum(worker.succeeded() for worker in workers)

    def probe(self, workers=(), results=True):
        before = self.done(workers, results)
        self.publish(str(uuid.uuid4()))
        harness.eventually(lambda: self.done(workers, results) > before, 60, "the probe task is done", every=0.002)

    def drain(self, n, workers, results=True):
        """The workers stand still while the queue is filled: RabbitMQ cannot rename. What it has pushed to them by then, their window, they
        have to do, but it does not count: of a short queue that would be most."""
        before = 0 if results else self.done(workers, results)
        with asleep(workers):
            self.redis.flushall()
            self.fill(n)
            counted = kit.at_rest(self.depth) or n
            spent = kit.Spent(workers, self.pid)
            begin = time.monotonic()
        if not results:
            kit.reached(lambda: counted - self.depth(), counted, what="the queue is empty")
        kit.reached(lambda: self.done(workers, results) - before, n)
        return {"tasks/s": counted / (time.monotonic() - begin), **spent.each(counted)}

    def bare(self, n, results=True, batch=64):
        self.clean()
        self.fill(n)
        harness.eventually(lambda: kit.at_rest(self.depth) >= n, 60, "the queue is filled")  # as long as the worker's
        spent = kit.Spent([], self.pid)
        rate = kit.program("amqp_drain", self.server.port, "celery", n, self.results.port if results else 0)[0]
        return {"tasks/s": rate, **spent.each(n)}

    def stop(self):
        self.server.stop()
        self.results.stop()


class OnSqlite:
    """One SQLite file as broker and result store, on the disk that holds the build, with synchronous=FULL."""
    name = "sqlite"
    pid = None

    def __init__(self):
        self.folder = harness.BUILD / f"bench-sqlite-{os.getpid()}"
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / "queue.db"
        self.broker = self.backend = f"sqlite:///{self.path}"

    def clean(self):
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def fill(self, n, queue="celery"):
        kit.program("client", "bulk", n, **harness.environment(self.broker, self.backend))

    def count(self, table):
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)) as db:
            try:
                return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            except sqlite3.OperationalError:
                return 0

    def probe(self, *_):
        self.fill(1)
        harness.eventually(lambda: self.count("apium_messages") == 0, 60, "the probe task is done", every=0.005)

    def drain(self, n, workers, results=True):
        with asleep(workers):
            self.fill(n)
            spent = kit.Spent(workers, None)
            begin = time.monotonic()
        kit.reached(lambda: n - self.count("apium_messages"), n)
        return {"tasks/s": n / (time.monotonic() - begin), **spent.each(n)}

    def stop(self):
        shutil.rmtree(self.folder)
