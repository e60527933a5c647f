"""Workflows built in Python, run by a Python worker, by a C worker, and by both sharing the queue: equal results, states, parents,
children and errors."""
import time
import unittest

import harness
from celery import chain, chord, group
from celery.result import GroupResult, ResultBase, result_from_tuple

servers = {}


def setUpModule():
    servers["redis"] = harness.Redis().start()


def tearDownModule():
    for server in servers.values():
        server.stop()


class Tasks:
    """Signatures by name, so that no task need be imported."""

    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.app.signature("tasks." + name, args=args, kwargs=kwargs)

    def i(self, name, *args):
        return self.app.signature("tasks." + name, args=args, immutable=True)


EXPRESSIONS = {
    # links
    "link": lambda t: t.add(1, 2).set(link=[t.add(10)]),
    "links": lambda t: t.add(1, 2).set(link=[t.add(10), t.mul(10), t.i("add", 5, 5)]),
    "link chain": lambda t: t.add(1, 2).set(link=[chain(t.add(10), t.mul(2))]),
    "link group": lambda t: t.add(1, 2).set(link=[group(t.add(10), t.mul(2))]),
    "links with group": lambda t: t.add(1, 2).set(link=[group(t.add(10), t.mul(2)), t.add(3), t.add(4)]),
    "link chord": lambda t: t.add(1, 2).set(link=[chord([t.add(10), t.mul(2)], t.xsum())]),
    "link on failure": lambda t: t.fail("no").set(link=[t.add(1)]),
    "link_error": lambda t: t.fail("no").set(link_error=[t.echo()]),
    "link_error twice": lambda t: t.fail("no").set(link_error=[t.echo(), t.i("noop")]),
    # chains
    "chain": lambda t: t.add(2, 3) | t.mul(4) | t.add(1),
    "chain immutable": lambda t: t.add(2, 3) | t.i("mul", 4, 5) | t.add(1),
    "chain fails first": lambda t: t.fail("no") | t.add(1) | t.add(2),
    "chain fails middle": lambda t: t.add(1, 1) | t.i("fail", "late") | t.add(2),
    "chain fails last": lambda t: t.add(1, 1) | t.add(2) | t.i("fail", "late"),
    "chain of ten": lambda t: chain(t.add(0, 1), *[t.add(1) for _ in range(9)]),
    "chain nested": lambda t: chain(t.add(1, 1), chain(t.add(2), chain(t.add(3), t.add(4))), t.add(5)),
    "chain of one": lambda t: chain(t.add(1, 1)),
    "chain errback": lambda t: chain(t.add(1, 1), t.i("fail", "late"), t.add(1)).on_error(t.echo()),
    "chain retries": lambda t: chain(t.flaky("k", 1), t.echo(), t.i("flaky", "k", 2)),
    # groups
    "group": lambda t: group(t.add(i, i) for i in range(5)),
    "group of one": lambda t: group([t.add(1, 1)]),
    "group of groups": lambda t: group(t.add(1, 1), group(t.add(2, 2), t.add(3, 3))),
    "group of chains": lambda t: group(t.add(1, 1) | t.mul(2), t.add(2, 2) | t.mul(3)),
    "group with failure": lambda t: group(t.add(1, 1), t.fail("no")),
    "group of chord": lambda t: group(t.add(1, 1), chord([t.add(1, 1), t.add(2, 2)], t.xsum())),
    "chain ends in group": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3), t.i("add", 1, 1)),
    "chain ends in group of chains": lambda t: t.add(1, 1) | group(t.mul(2) | t.add(1), t.mul(3)),
    "chain ends in group of one": lambda t: t.add(1, 1) | group([t.mul(2)]),
    "group in chain": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum(),
    "group in chain, more": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum() | t.add(1) | t.mul(2),
    "two groups": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | group(t.xsum(), t.xsum()),
    "two groups and a sum": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | group(t.xsum(), t.xsum()) | t.xsum(),
    "group first": lambda t: group(t.add(1, 1), t.add(2, 2)) | t.xsum(),
    "group first, chain after": lambda t: group(t.add(1, 1), t.add(2, 2)) | t.xsum() | t.add(1),
    "group, group": lambda t: group(t.add(1, 1), t.add(2, 2)) | group(t.xsum(), t.xsum()),
    # chords
    "chord": lambda t: chord([t.add(i, i) for i in range(10)], t.xsum()),
    "chord of one": lambda t: chord([t.add(1, 1)], t.xsum()),
    "chord empty": lambda t: chord([], t.xsum()),
    "chord order": lambda t: chord([t.echo(i) for i in range(30)], t.echo()),
    "chord immutable body": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.i("add", 7, 7)),
    "chord fails": lambda t: chord([t.add(1, 1), t.fail("no"), t.fail("neither")], t.xsum()),
    "chord all fail": lambda t: chord([t.fail("a"), t.fail("b")], t.xsum()),
    "chord body fails": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.i("fail", "late")),
    "chord fails, errback": lambda t: chord([t.add(1, 1), t.fail("no")], t.xsum().on_error(t.echo())),
    "chord body chain": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum() | t.add(1) | t.mul(2)),
    "chord body chain, part fails": lambda t: chord([t.add(1, 1), t.fail("no")], t.xsum() | t.add(1)),
    "chord body chain fails": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum() | t.i("fail", "late") | t.add(1)),
    "chord body group": lambda t: chord([t.add(1, 1), t.add(2, 2)], group(t.xsum(), t.xsum())),
    "chord body chord": lambda t: chord([t.add(1, 1), t.add(2, 2)], chord([t.xsum(), t.xsum()], t.xsum())),
    "chord of chains": lambda t: chord([t.add(1, 1) | t.mul(2), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chains, one fails": lambda t: chord([t.fail("no") | t.mul(2), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chains, last fails": lambda t: chord([t.add(1, 1) | t.i("fail", "late"), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chords": lambda t: chord([chord([t.add(1, 1), t.add(2, 2)], t.xsum()),
                                        chord([t.add(3, 3), t.add(4, 4)], t.xsum())], t.xsum()),
    "chord of a group": lambda t: chord([group(t.echo(1), t.echo(2), t.echo(3)), t.echo(4)], t.echo()),
    "chord of chain with group": lambda t: chord([t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum(), t.add(2, 2)], t.xsum()),
    "chord three deep": lambda t: chord([chord([chord([t.add(1, 1)] * 2, t.xsum()), t.add(1, 1)], t.xsum()), t.add(1, 1)],
                                        t.xsum()),
    "chord | task": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | t.add(5),
    "chord | group": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | group(t.add(1), t.add(2)),
    "chord | chord": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | chord([t.add(1), t.add(2)], t.xsum()),
    "task | chord": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum()),
    "task | chord | task": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum()) | t.mul(2),
    "task | chord | chord | task": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum())
    | chord([t.add(1), t.add(2)], t.xsum()) | t.mul(2),
    "task | chord with chain body": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum() | t.mul(3)),
    "task | chord fails": lambda t: t.add(1, 1) | chord([t.add(1), t.i("fail", "late")], t.xsum()),
    "task | chord of chains": lambda t: t.add(1, 1) | chord([t.add(1) | t.mul(2), t.add(2) | t.mul(2)], t.xsum()),
    "chord retries": lambda t: chord([t.flaky("k", 1), t.flaky("k", 2), t.add(1, 1)], t.echo()),
    "chord ignores results": lambda t: chord([t.add(1, 1).set(ignore_result=True), t.add(2, 2)], t.xsum()),
    "chord with links": lambda t: chord([t.add(1, 1).set(link=[t.add(1)]), t.add(2, 2)], t.xsum().set(link=[t.mul(2)])),
}


class Shape:
    """A result with everything that hangs on it, ids replaced by the order in which they were met."""

    def __init__(self, app):
        self.app, self.names, self.waiting = app, {}, False

    def name(self, key):
        return self.names.setdefault(key, len(self.names))

    def of(self, result, parents=True):
        if result is None:
            return None
        if isinstance(result, GroupResult):
            return ["group", [self.of(r) for r in result.results], self.of(result.parent) if parents else None]
        seen = result.id in self.names
        me = self.name(result.id)
        if seen:
            return ["again", me]
        meta = self.app.backend.get_task_meta(result.id)
        state, value = meta["status"], meta["result"]
        if state in ("PENDING", "STARTED", "RETRY", "RECEIVED"):
            self.waiting = True
        if isinstance(value, BaseException):
            value = [type(value).__name__, list(value.args)]
        elif isinstance(value, ResultBase):
            value = self.of(value)
        children = [self.of(result_from_tuple(c, self.app), False) for c in (meta.get("children") or [])]
        return [me, state, value, children, self.of(result.parent) if parents else None]

    def known(self, value):
        """The ids that were met, as names."""
        if isinstance(value, str):
            for key, name in self.names.items():
                value = value.replace(key, f"#{name}")
        elif isinstance(value, (list, tuple)):
            value = [self.known(v) for v in value]
        return value


def collect(app, results, timeout):
    """{name: shape} once nothing waits any more, or what there is at the deadline."""
    shapes, deadline, open_names = {}, time.monotonic() + timeout, set(results)
    while open_names:
        for name in sorted(open_names):
            shape = Shape(app)
            shapes[name] = shape.known(shape.of(results[name]))
            if not shape.waiting:
                open_names.discard(name)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return shapes, open_names


class Canvas(unittest.TestCase):
    def run_all(self, db, workers, conf=None):
        url = servers["redis"].url(db)
        app = harness.app(url, url, **(conf or {}))
        for worker in workers(url):
            self.addCleanup(worker.kill_group)
            worker.start()
        results = {name: make(Tasks(app)).apply_async() for name, make in EXPRESSIONS.items()}
        return collect(app, results, 12)

    def test_python_and_c_workers_agree(self):
        python, python_open = self.run_all(0, lambda url: [harness.CeleryWorker(url, url, "-c", "4")])
        c, c_open = self.run_all(1, lambda url: [harness.Worker(url, url, "-c", "4")])
        both, both_open = self.run_all(2, lambda url: [harness.Worker(url, url, "-c", "2"),
                                                       harness.CeleryWorker(url, url, "-c", "2")])
        for name in EXPRESSIONS:
            with self.subTest(expression=name, workers="C"):
                self.assertEqual(python[name], c[name])
            with self.subTest(expression=name, workers="both"):
                self.assertEqual(python[name], both[name])
        self.assertLessEqual(c_open, python_open)


if __name__ == "__main__":
    harness.main()
