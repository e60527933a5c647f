"""test_client and test_flow, which send tasks and workflows and wait for them, over servers: their programs take URLs."""
import os
import subprocess
import unittest

import harness

CLIENT = os.environ["APIUM_TEST_CLIENT"]
FLOW = os.environ["APIUM_TEST_FLOW"]


class Client(unittest.TestCase):
    def over(self, broker, backend, program=CLIENT):
        done = subprocess.run([program, broker, backend], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_over_redis(self):
        redis = harness.Redis()
        redis.start()
        self.addCleanup(redis.stop)
        self.over(redis.url(), redis.url())
        self.over(redis.url(), redis.url(1))

    def test_workflows_over_redis(self):
        redis = harness.Redis()
        redis.start()
        self.addCleanup(redis.stop)
        self.over(redis.url(), redis.url(), FLOW)

    def test_over_http(self):
        if "http:yes" not in harness.apium("report").stdout:
            harness.lacking("libcurl")
        redis = harness.Redis().start()
        self.addCleanup(redis.stop)
        web = harness.Web().start()
        self.addCleanup(web.stop)
        self.over(redis.url(), web.url())
        self.over(redis.url(), web.url(), FLOW)

    def test_over_rabbitmq(self):
        rabbit, redis = harness.RabbitMQ(), harness.Redis()
        for server in (rabbit, redis):
            server.start()
            self.addCleanup(server.stop)
        self.over(rabbit.url(), redis.url())
        self.over(rabbit.url(), "rpc://")
        self.over(rabbit.url(), redis.url(), FLOW)
        self.over(rabbit.url(), "rpc://", FLOW)


if __name__ == "__main__":
    harness.main()
