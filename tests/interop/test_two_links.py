"""Workflows where queue and results are on two servers: what must be known before a message may be taken is stored before it is sent."""
import threading
import unittest

import harness
import redis
from celery import chord

servers = {}


def setUpModule():
    servers["queue"], servers["results"] = harness.Redis().start(), harness.Redis().start()


def tearDownModule():
    for server in servers.values():
        server.stop()


class Watch(threading.Thread):
    """Every command that scripts give to a server, with its time by the machine's clock."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.seen, self.monitor = [], server.client(0).monitor()
        self.monitor.__enter__()
        self.start()

    def run(self):
        try:
            for command in self.monitor.listen():
                if command["client_type"] == "lua" or command["command"].startswith("LPUSH "):
                    self.seen.append((command["time"], command["command"]))
        except (OSError, ValueError, AttributeError, redis.RedisError):
            pass  # the server has ended

    def first(self, *words):
        return next((when for when, command in self.seen if all(w in command for w in words)), None)


class TwoLinks(unittest.TestCase):
    def test_a_body_that_is_a_chord_is_sent_after_its_size_is_known(self):
        queue, results = servers["queue"].url(0), servers["results"].url(0)
        app = harness.app(queue, results)
        sent, stored = Watch(servers["queue"]), Watch(servers["results"])
        worker = harness.Worker(queue, results, "-c", "2")
        self.addCleanup(worker.kill_group)
        worker.start()
        add = [app.signature("tasks.add", args=(i, i)) for i in range(2)]
        total = app.signature("tasks.xsum")
        result = chord(add, chord([total, total], total)).apply_async()
        self.assertEqual(result.get(timeout=20), 4)
        app.backend.result_consumer._pubsub = None  # or results would unsubscribe where no server is any more
        size = next(command.split()[1] for _, command in stored.seen if command.startswith("SET celery-taskset-meta-"))
        group = size.removeprefix("celery-taskset-meta-").removesuffix(".s")
        harness.eventually(lambda: sent.first("LPUSH", group), 10, "the inner header is sent")
        self.assertLess(stored.first("SET", group + ".s"), sent.first("LPUSH", group))
        # and the outer header is taken when they are on their way
        self.assertGreater(stored.first("UNLINK"), sent.first("LPUSH", group))


if __name__ == "__main__":
    harness.main()
