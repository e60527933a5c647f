"""A server goes away in the middle of work and comes back: the worker goes on, every task is run, none of the safe kind is
lost, and a wait in between ends."""
import signal
import time
import unittest

import harness

COUNT = 600


class Restarts:
    def setUp(self):
        self.start_servers()
        self.where = harness.environment(self.broker, self.backend)
        self.ledger = harness.Ledger()
        self.worker = harness.Worker(self.broker, self.backend, "-c", "2", module=harness.LEDGER, env=self.ledger.env).start()

    def tearDown(self):
        self.worker.kill_group()
        for server in self.servers:
            server.stop()

    def ended(self):
        return len(self.ledger.count("end"))

    def run_through(self, cut):
        """Send, cut in the middle, and see everything succeed."""
        for name, task in (("sure", "ledger.sure"), ("work", "ledger.work")):
            harness.send_many(self.where, task, name, COUNT, 4)
        harness.eventually(lambda: self.ended() > COUNT // 3, 30)
        cut()
        ids = [f"{name}-{n}" for name in ("sure", "work") for n in range(COUNT)]
        harness.eventually(lambda: self.ended() == 2 * COUNT, 100, "every task has ended", every=0.2)
        harness.eventually(lambda: all(s == "SUCCESS" for s in harness.states(self.where, ids).values()), 60,
                           "every result is stored", every=0.5)
        self.assertTrue(self.worker.alive())
        # The worker takes new work as before.
        harness.send_many(self.where, "ledger.work", "after", 20, 0)
        harness.eventually(lambda: self.ended() == 2 * COUNT + 20, 20)
        self.assertEqual(self.worker.stop(), 0)


class RedisRestarts(Restarts, unittest.TestCase):
    def start_servers(self):
        self.redis = harness.Redis(appendonly=True).start()
        self.servers = [self.redis]
        self.broker, self.backend = self.redis.url(0), self.redis.url(1)

    def test_redis_is_killed_and_starts_again(self):
        def cut():
            self.redis.kill()
            time.sleep(1.5)  # the length of the outage
            self.redis.start()
        self.run_through(cut)
        # An early ack that Redis had answered cannot have begun again; one that it had not, may.
        self.assertLessEqual(sum(n - 1 for k, n in self.ledger.count("begin").items() if k.startswith("work")), 64)

    def test_redis_stops_answering_for_a_while(self):
        def cut():
            self.redis.signal(signal.SIGSTOP)
            time.sleep(4)  # the length of the outage
            self.redis.signal(signal.SIGCONT)
        self.run_through(cut)

    def test_every_connection_is_cut_again_and_again(self):
        def cut():
            for _ in range(10):
                self.redis.client().execute_command("CLIENT", "KILL", "TYPE", "normal")
                time.sleep(0.2)  # the time between two cuts
        self.run_through(cut)


class RabbitRestarts(Restarts, unittest.TestCase):
    def start_servers(self):
        self.redis = harness.Redis().start()
        self.rabbit = harness.RabbitMQ().start()
        self.servers = [self.rabbit, self.redis]
        self.broker, self.backend = self.rabbit.url(), self.redis.url(1)

    def test_rabbitmq_is_killed_and_starts_again(self):
        def cut():
            self.rabbit.kill_group()
            self.rabbit.start()
        self.run_through(cut)


if __name__ == "__main__":
    harness.main()
