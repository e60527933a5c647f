"""The programs of docs/results-from-other-languages.md, where their language is on the machine: all of them read the same result."""
import os
import re
import shutil
import subprocess
import sys
import unittest

import harness

SAMPLES = harness.ROOT / "samples" / "results"


class Languages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.redis = harness.Redis().start()
        cls.worker = harness.Worker(cls.redis.url(), cls.redis.url(), "-c", "1").start()
        cls.web = harness.Web(cls.redis.url(), env=harness.environment(cls.redis.url(), cls.redis.url())).start()

    @classmethod
    def tearDownClass(cls):
        assert cls.web.stop() == 0
        assert cls.worker.stop() == 0
        cls.redis.stop()

    def prints_five(self, *command, needs=None):
        if not shutil.which(needs or command[0]):
            self.skipTest(f"{needs or command[0]} is not on this machine")
        env = {**os.environ, "GOFLAGS": "-mod=mod"}
        env.pop("PYTHONPATH", None)
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=200, env=env,
                              cwd=harness.folder("cwd"), check=False)
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "5"), done.stderr)

    def test_shell(self):
        self.prints_five("sh", SAMPLES / "http.sh", self.web.url(), needs="curl")

    def test_python(self):
        self.prints_five(sys.executable, SAMPLES / "http_client.py", self.web.url())

    def test_node(self):
        self.prints_five("node", SAMPLES / "http.js", self.web.url())

    def test_go(self):
        self.prints_five("go", "run", SAMPLES / "http.go", self.web.url())

    def test_java(self):
        version = subprocess.run(["java", "-version"], stderr=subprocess.PIPE, text=True, check=False).stderr if shutil.which("java") else ""
        found = re.search(r'version "(\d+)', version)
        if not found or int(found.group(1)) < 11 or not shutil.which("javac"):
            self.skipTest("no Java 11 with its compiler is on this machine")
        self.prints_five("java", SAMPLES / "Http.java", self.web.url())

    def test_celery(self):
        self.prints_five(sys.executable, SAMPLES / "celery_client.py", self.redis.url())

    def test_redis_cli(self):
        done = harness.apium("call", "tasks.add", "-a", "[2, 3]", "--task-id", "from-redis", "--wait", broker=self.redis.url(),
                             backend=self.redis.url(), check=True)
        self.assertEqual(done.stdout.split()[-1], "5")
        self.prints_five("sh", SAMPLES / "redis.sh", self.redis.url(), "from-redis", needs="redis-cli")

    def test_the_page_shows_what_the_programs_have(self):
        page = (harness.ROOT / "docs" / "results-from-other-languages.md").read_text()
        programs = "".join(p.read_text() for p in SAMPLES.iterdir())
        blocks = [b for b in re.findall(r"```sh\n(.*?)```", page, re.S) if not b.startswith("apium ")]
        self.assertEqual(len(blocks), 2)
        for block in blocks:
            self.assertIn(block.strip(), programs)
        for name in re.findall(r"samples/results/([\w.]+)", page):
            self.assertTrue((SAMPLES / name).is_file(), name)


if __name__ == "__main__":
    harness.main()
