"""capture_flower - writes tests/fixtures/flower-2.2/answers.json anew: what real Flower answers to every call of flower_calls.py.

    python3 -m venv VENV && VENV/bin/pip install 'flower==2.2.*' 'celery[redis]'
    APIUM_TEST_BUILD=build PYTHONPATH=tests/support VENV/bin/python tests/interop/capture_flower.py

A Redis, a Celery worker that sends events, and Flower, all of them of this run. Ids are replaced by the names of the calls that made
them; of tracebacks and pages only that they are there is kept.
"""
import importlib.metadata
import json
import re
import sys

import flower_calls
import harness

OUT = harness.ROOT / "tests" / "fixtures" / "flower-2.2"


class Flower(harness.Process):
    def __init__(self, broker, backend):
        self.port = harness.free_port()
        super().__init__("flower", [sys.executable, "-m", "celery", "-A", "interop_app", "flower", "--address=127.0.0.1",
                                    f"--port={self.port}"], {**harness.environment(broker, backend), "FLOWER_UNAUTHENTICATED_API": "true"})

    def answers(self, path="/healthcheck"):
        try:
            return flower_calls.call(self.port, "GET", path, None)
        except OSError:
            return None


def named(answers, made):
    text = json.dumps(answers)
    for name, task in made.items():
        text = text.replace(task, f"<{name}>")
    text = re.sub(r'"Traceback [^"\\]*(\\.[^"\\]*)*"', '"Traceback"', text)
    return {name: answer if answer["type"] != "text/html" or answer["body"] == "OK" else {**answer, "body": "a page"}
            for name, answer in json.loads(text).items()}


def main():
    redis = harness.Redis().start()
    flower = Flower(redis.url(), redis.url())
    worker = harness.CeleryWorker(redis.url(), redis.url(), "-c", "2", "-E", "-n", "flower@test")
    try:
        flower.start()
        harness.eventually(flower.answers, 30)
        worker.start()
        made = {}
        answers = flower_calls.run(flower.port, flower_calls.FIRST, made)
        heard = lambda: [t for t in flower.answers("/api/tasks")["body"].values() if t["state"] in ("SUCCESS", "FAILURE")]
        want = 14
        harness.eventually(lambda: len(heard()) >= want, 30)
        answers.update(flower_calls.run(flower.port, flower_calls.THEN, made))
        metrics = flower.answers("/metrics")["body"]
    finally:
        worker.kill_group()
        flower.kill_group()
        redis.stop()
    OUT.mkdir(exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("flower", "celery", "kombu")}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(answer)}" for name, answer in named(answers, made).items())
    (OUT / "answers.json").write_text(f'{{"versions": {json.dumps(versions)}, "answers": {{\n{lines}\n}}}}\n')
    (OUT / "metrics.txt").write_text("".join(line + "\n" for line in metrics.splitlines() if line.startswith("# TYPE flower")))


if __name__ == "__main__":
    main()
