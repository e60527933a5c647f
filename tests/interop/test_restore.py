"""What one kind of worker held when it died comes back by the other kind: `unacked` is shared."""
import json
import time
import unittest

from kombu import Connection

import harness

servers = harness.Servers()
tearDownModule = servers.stop


def restore(connection):
    """kombu's own restoring of what is older than the visibility timeout, without its waiting for every tenth call."""
    connection.default_channel.qos._vrestore_count = 0
    connection.default_channel.qos.restore_visible(interval=1)


class ByKombu(unittest.TestCase):
    """Without any C node, Python nodes bring back what a dead one left."""

    def left_behind(self, db, *call):
        """Entries of a C worker that was killed, and the envelope that it had taken."""
        redis = servers.redis
        ledger = harness.Ledger()
        worker = harness.Worker(redis.url(db), redis.url(db), "-c", "1", module=harness.LEDGER, env=ledger.env).start()
        harness.apium("call", *call, broker=redis.url(db), backend=redis.url(db), check=True)
        client = redis.client(db)
        harness.eventually(lambda: client.hlen("unacked") == 1, 10)
        harness.eventually(lambda: ledger.count("begin") or client.hkeys("unacked")[0].startswith(b"apium.e:"), 10)
        worker.kill_group()
        return client

    def test_a_held_entry(self):
        url = servers.redis.url(0)
        client = self.left_behind(0, "ledger.late", "-a", '["held", 60000]', "--priority", "6")
        with Connection(url, transport_options={"visibility_timeout": 1}) as connection:
            tag = client.hkeys("unacked")[0]
            stored = json.loads(client.hget("unacked", tag))[0]

            def is_back():
                restore(connection)
                return client.hlen("unacked") == 0
            harness.eventually(is_back, 10, every=0.2)
            queue = connection.SimpleQueue("celery")
            message = queue.get(timeout=5)
            self.assertEqual(message.headers["id"], stored["headers"]["id"])
            self.assertTrue(message.headers["redelivered"])
            self.assertEqual(message.delivery_tag, stored["properties"]["delivery_tag"])
            message.ack()
            queue.close()
        self.assertEqual(client.hlen("unacked"), 0)
        self.assertEqual(client.zcard("unacked_index"), 0)

    def test_a_parked_entry_is_left_until_its_time(self):
        url = servers.redis.url(1)
        client = self.left_behind(1, "ledger.work", "-a", '["parked"]', "--countdown", "3600")
        tag, score = client.zrange("unacked_index", 0, -1, withscores=True)[0]
        self.assertTrue(tag.startswith(b"apium.e:0:"), tag)
        self.assertAlmostEqual(score, time.time() + 3600, delta=30)
        with Connection(url, transport_options={"visibility_timeout": 1}) as connection:
            for _ in range(3):
                restore(connection)
            self.assertEqual(client.hlen("unacked"), 1)
            # Its time comes, and then the timeout.
            client.zadd("unacked_index", {tag: time.time() - 2})
            restore(connection)
            self.assertEqual(client.hlen("unacked"), 0)
            self.assertEqual(client.llen("celery"), 1)


class ByApium(unittest.TestCase):
    def test_what_a_dead_python_worker_held(self):
        """A C worker follows kombu's rule for entries of kombu, once its own renewals have held for a lease (a minute)."""
        redis, ledger = servers.redis, harness.Ledger()
        broker, client = redis.url(2), redis.client(2)
        options = {"broker_transport_options": {"visibility_timeout": 5}}
        app = harness.app(broker, broker)
        python = harness.CeleryWorker(broker, broker, "-c", "1", "--prefetch-multiplier", "4", env=ledger.env).start()
        for n in range(4):
            app.send_task("ledger.sure", (f"sure-{n}", 1000 if n else 30_000), priority=6, ignore_result=True)
        harness.eventually(lambda: client.hlen("unacked") == 4, 20)
        python.kill_group()
        apium = harness.Worker(broker, broker, "-c", "4", module=harness.LEDGER, env=ledger.env, conf=options).start()
        try:
            harness.eventually(lambda: len(ledger.count("end")) == 4, 140, every=0.5)
            harness.eventually(lambda: client.hlen("unacked") == 0, 10)
            self.assertEqual(client.zcard("unacked_index"), 0)
        finally:
            app.close()
            apium.stop()


if __name__ == "__main__":
    harness.main()
