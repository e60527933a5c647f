"""test_client, which calls tasks and waits for them, over the servers that it needs: its program takes their URLs."""
import os
import subprocess
import unittest

import harness

PROGRAM = os.environ["APIUM_TEST_CLIENT"]


class Client(unittest.TestCase):
    def over(self, broker, backend):
        done = subprocess.run([PROGRAM, broker, backend], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_over_redis(self):
        redis = harness.Redis()
        redis.start()
        self.addCleanup(redis.stop)
        self.over(redis.url(), redis.url())
        self.over(redis.url(), redis.url(1))

    def test_over_rabbitmq(self):
        rabbit, redis = harness.RabbitMQ(), harness.Redis()
        for server in (rabbit, redis):
            server.start()
            self.addCleanup(server.stop)
        self.over(rabbit.url(), redis.url())
        self.over(rabbit.url(), "rpc://")


if __name__ == "__main__":
    harness.main()
