"""canvas_expressions - the workflows that the canvas suites draw, each under a name.

An expression is a function of `t`, which makes signatures of tasks by their names: t.add(1, 2) is tasks.add.s(1, 2), t.i("add", 1, 2) is
tasks.add.si(1, 2). It gives a signature, or a Call when the sending takes arguments of its own. Run as a program it prints all of them
as JSON: {name: {"signature": ..., "args": [...], "options": {...}}}.
"""
import json

import celery
from celery import chain, chord, group

VERSION = tuple(int(part) for part in celery.__version__.split(".")[:2])


class Tasks:
    """Signatures by name, so that no task need be imported."""

    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.app.signature("tasks." + name, args=args, kwargs=kwargs)

    def i(self, name, *args):
        return self.app.signature("tasks." + name, args=args, immutable=True)

    def python(self, name, *args):
        """A task that only the Python module has, on a queue that only Python workers consume."""
        return self.app.signature("python." + name, args=args, options={"queue": "python"})

    def over(self, kind, name, it, *more):
        """map, starmap and chunks."""
        made = {"map": celery.canvas.xmap, "starmap": celery.canvas.xstarmap, "chunks": celery.canvas.chunks}[kind]
        return made(self.app.signature("tasks." + name), it, *more, app=self.app)


class Call:
    def __init__(self, sig, *args, **options):
        self.sig, self.args, self.options = sig, args, options

    def send(self):
        return self.sig.apply_async(self.args, **self.options)

    def json(self):
        return json.loads(json.dumps({"signature": self.sig, "args": self.args, "options": self.options}))


def linked(sig, *links):
    for link in links:
        sig.link(link)
    return sig


def on_error(sig, *links):
    for link in links:
        sig.link_error(link)
    return sig


def stamped(sig, **stamps):
    sig.stamp(**stamps)
    return sig


def nested_chord(t, depth):
    inner = t.add(1, 1)
    for _ in range(depth):
        inner = chord([inner, t.add(1, 1)], t.xsum())
    return inner


FIXED = "22222222-2222-4222-8222-22222222222%d"

EXPRESSIONS = {
    # tasks
    "task": lambda t: t.add(2, 3),
    "task, partial": lambda t: Call(t.add(3), 2),
    "task, immutable": lambda t: Call(t.i("add", 3, 4), 2),
    "task with an id": lambda t: Call(t.add(2, 3), task_id=FIXED % 0),
    "map": lambda t: t.over("map", "xsum", [[1, 2], [3]]),
    "starmap": lambda t: t.over("starmap", "add", [(1, 2), (3, 4)]),
    "chunks": lambda t: t.over("chunks", "add", [(1, 2), (3, 4), (5, 6)], 2).group(),
    "chunks as a task": lambda t: t.app.signature("celery.chunks", kwargs={"task": t.add(), "it": [(1, 2), (3, 4), (5, 6)], "n": 2}),
    # links
    "link": lambda t: t.add(1, 2).set(link=[t.add(10)]),
    "link by call": lambda t: Call(t.add(1, 2), link=t.add(10)),
    "link immutable": lambda t: Call(t.add(1, 2), link=t.i("add", 5, 5)),
    "links": lambda t: t.add(1, 2).set(link=[t.add(10), t.mul(10), t.i("add", 5, 5)]),
    "link chain": lambda t: t.add(1, 2).set(link=[chain(t.add(10), t.mul(2))]),
    "link group": lambda t: t.add(1, 2).set(link=[group(t.add(10), t.mul(2))]),
    "links with group": lambda t: t.add(1, 2).set(link=[group(t.add(10), t.mul(2)), t.add(3), t.add(4)]),
    "link chord": lambda t: t.add(1, 2).set(link=[chord([t.add(10), t.mul(2)], t.xsum())]),
    "link of a link": lambda t: t.add(1, 2).set(link=[t.add(10).set(link=[t.mul(3)])]),
    "link on failure": lambda t: t.fail("no").set(link=[t.add(1)]),
    "link fails": lambda t: t.add(1, 2).set(link=[t.i("fail", "late")]),
    "link after retries": lambda t: t.flaky("k", 1).set(link=[t.echo()]),
    "link_error": lambda t: t.fail("no").set(link_error=[t.echo()]),
    "link_error by call": lambda t: Call(t.fail("no"), link_error=t.echo()),
    "link_error twice": lambda t: t.fail("no").set(link_error=[t.echo(), t.i("noop")]),
    "link_error chain": lambda t: t.fail("no").set(link_error=[t.echo() | t.echo()]),
    "link_error group": lambda t: t.fail("no").set(link_error=[group(t.echo(), t.i("noop"))]),
    "link_error fails": lambda t: t.fail("no").set(link_error=[t.i("fail", "too").set(link_error=[t.echo()])]),
    "link_error, no error": lambda t: t.add(1, 1).set(link_error=[t.echo()]),
    "link and link_error": lambda t: on_error(linked(t.add(2, 3), t.echo()), t.echo()),
    # chains
    "chain": lambda t: t.add(2, 3) | t.mul(4) | t.add(1),
    "chain of two": lambda t: chain(t.add(2, 3), t.mul(4)),
    "chain of one": lambda t: chain(t.add(1, 1)),
    "chain, partial": lambda t: Call(t.add(3) | t.mul(4), 2),
    "chain with an id": lambda t: Call(t.add(2, 3) | t.mul(4), task_id=FIXED % 1),
    "chain immutable": lambda t: t.add(2, 3) | t.i("mul", 4, 5) | t.add(1),
    "chain immutable first": lambda t: Call(t.i("add", 2, 3) | t.mul(4), 9),
    "chain with options": lambda t: t.add(2, 3) | t.mul(4).set(priority=3, expires=60, time_limit=50, headers={"h": 1}),
    "chain fails first": lambda t: t.fail("no") | t.add(1) | t.add(2),
    "chain fails middle": lambda t: t.add(1, 1) | t.i("fail", "late") | t.add(2),
    "chain fails last": lambda t: t.add(1, 1) | t.add(2) | t.i("fail", "late"),
    "chain of ten": lambda t: chain(t.add(0, 1), *[t.add(1) for _ in range(9)]),
    "chain nested": lambda t: chain(t.add(1, 1), chain(t.add(2), chain(t.add(3), t.add(4))), t.add(5)),
    "chain link": lambda t: Call(chain(t.add(2, 3), t.mul(4)), link=t.add(1)),
    "chain link_error": lambda t: Call(chain(t.add(2, 3), t.mul(4)), link_error=t.echo()),
    "chain fails, link_error": lambda t: Call(chain(t.add(2, 3), t.i("fail", "late"), t.mul(4)), link_error=t.echo()),
    "chain errback": lambda t: chain(t.add(1, 1), t.i("fail", "late"), t.add(1)).on_error(t.echo()),
    "chain errback, unused": lambda t: (t.add(2, 3) | t.mul(4)).on_error(t.echo()),
    "chain, a step's errback": lambda t: t.add(1, 1) | t.i("fail", "late").on_error(t.echo()) | t.mul(2),
    "chain, a step's link": lambda t: t.add(2, 3).set(link=[t.add(100)]) | t.mul(4),
    "chain, retries": lambda t: chain(t.flaky("k", 1), t.echo(), t.i("flaky", "k", 2)),
    "chain, priority": lambda t: t.add(1, 1).set(priority=6) | t.mul(2),
    "chain, result ignored": lambda t: t.add(1, 1).set(ignore_result=True) | t.mul(2),
    "chain, kwargs": lambda t: t.add(1, y=2) | t.add(y=5),
    "chain starmap": lambda t: t.over("starmap", "add", [(1, 2), (3, 4)]) | t.xsum(),
    "chain ends in starmap": lambda t: t.add(1, 1) | t.over("starmap", "add", [(1, 2), (3, 4)]),
    # groups
    "group": lambda t: group(t.add(i, i) for i in range(5)),
    "group of one": lambda t: group([t.add(1, 1)]),
    "group empty": lambda t: group(app=t.app),
    "group, partial": lambda t: Call(group(t.add(1), t.i("add", 4, 4), t.add(2)), 10),
    "group with an id": lambda t: Call(group(t.add(1, 1), t.add(2, 2)), task_id=FIXED % 2),
    "group link": lambda t: linked(group(t.add(1, 1), t.add(2, 2)), t.i("echo", 7)),
    "group link_error": lambda t: on_error(group(t.add(1, 1), t.fail("no")), t.i("echo", 7)),
    "group of groups": lambda t: group(t.add(1, 1), group(t.add(2, 2), group(t.add(3, 3), t.add(4, 4))), t.add(5, 5)),
    "group of chains": lambda t: group(t.add(1, 1) | t.mul(2), t.add(2, 2) | t.mul(3)),
    "group of chains, one fails": lambda t: group(t.fail("no") | t.mul(2) | t.mul(3), t.add(2, 2) | t.mul(3)),
    "group of mixed": lambda t: group(t.add(1, 1) | t.mul(2), t.add(2, 2), group(t.add(3, 3) | t.mul(3), t.add(4, 4))),
    "group with failure": lambda t: group(t.add(1, 1), t.fail("no")),
    "group with retries": lambda t: group(t.flaky("a", 1), t.flaky("b", 2)),
    "group of chord": lambda t: group(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), t.add(3, 3)),
    "group of chords": lambda t: group(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), chord([t.add(3, 3)], t.xsum())),
    "group of chord, part fails": lambda t: group(t.add(1, 1), chord([t.add(1, 1), t.fail("no")], t.xsum())),
    # chains and groups
    "chain ends in group": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3), t.i("add", 1, 1)),
    "chain ends in group of chains": lambda t: t.add(1, 1) | group(t.mul(2) | t.add(1), t.mul(3)),
    "chain ends in group of one": lambda t: t.add(1, 1) | group([t.mul(2)]),
    "chain ends in group of groups": lambda t: t.add(1, 1) | group(t.mul(2), group(t.mul(3), t.mul(4))),
    "chain fails before group": lambda t: t.fail("no") | group(t.add(1), t.add(2)),
    "chain ends in group, one fails": lambda t: t.add(1, 1) | group(t.mul(2), t.i("fail", "late")),
    "group in chain": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum(),
    "group in chain, more": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum() | t.add(1) | t.mul(2),
    "group of one in chain": lambda t: t.add(2, 3) | group([t.mul(2)]) | t.add(1),
    "group in chain, one fails": lambda t: t.add(1, 1) | group(t.mul(2), t.i("fail", "late")) | t.xsum() | t.add(1),
    "group in chain, retries": lambda t: t.add(1, 1) | group(t.i("flaky", "k", 1), t.mul(3)) | t.echo(),
    "two groups": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | group(t.xsum(), t.xsum()),
    "two groups and a sum": lambda t: t.add(1, 1) | group(t.mul(2), t.mul(3)) | group(t.xsum(), t.xsum()) | t.xsum(),
    "three groups": lambda t: group(t.add(1, 1), t.add(2, 2)) | group(t.xsum(), t.xsum()) | group(t.echo(), t.echo()),
    "group first": lambda t: group(t.add(1, 1), t.add(2, 2)) | t.xsum(),
    "group first, chain after": lambda t: group(t.add(1, 1), t.add(2, 2)) | t.xsum() | t.add(1),
    "group, group": lambda t: group(t.add(1, 1), t.add(2, 2)) | group(t.xsum(), t.xsum()),
    "chain fails before chord": lambda t: t.fail("no") | group(t.add(1), t.add(2)) | t.xsum(),
    "chain fails before chord, more": lambda t: t.fail("no") | group(t.add(1), t.add(2)) | t.xsum() | t.add(1),
    # chords
    "chord": lambda t: chord([t.add(i, i) for i in range(10)], t.xsum()),
    "chord of one": lambda t: chord([t.add(1, 1)], t.xsum()),
    "chord empty": lambda t: chord([], t.xsum()),
    "chord, partial": lambda t: Call(chord([t.add(1), t.i("add", 2, 2)], t.xsum()), 10),
    "chord with an id": lambda t: Call(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), task_id=FIXED % 3),
    "chord order": lambda t: chord([t.echo(i) for i in range(30)], t.echo()),
    "chord immutable body": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.i("add", 7, 7)),
    "chord link": lambda t: linked(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), t.add(100)),
    "chord link_error": lambda t: on_error(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), t.echo()),
    "chord with options": lambda t: chord([t.add(1, 1).set(priority=5), t.add(2, 2)], t.xsum().set(priority=3)),
    "chord fails": lambda t: chord([t.add(1, 1), t.fail("no")], t.xsum()),
    "chord all fail": lambda t: chord([t.fail("a"), t.fail("b")], t.xsum()),
    "chord fails, link_error": lambda t: on_error(chord([t.add(1, 1), t.fail("no")], t.xsum()), t.echo()),
    "chord fails, two link_errors": lambda t: on_error(chord([t.add(1, 1), t.fail("no")], t.xsum()), t.echo(), t.i("noop")),
    "chord fails, link": lambda t: linked(chord([t.add(1, 1), t.fail("no")], t.xsum()), t.echo()),
    "chord fails, parts' errback": lambda t: chord([t.add(1, 1), t.fail("no").on_error(t.echo())], t.xsum()),
    "chord body fails": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.i("fail", "late")),
    "chord body fails, link_error": lambda t: on_error(chord([t.add(1, 1), t.add(2, 2)], t.i("fail", "late")), t.echo()),
    "chord body retries": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.i("flaky", "k", 1)),
    "chord body chain": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum() | t.add(1) | t.mul(2)),
    "chord body chain, part fails": lambda t: chord([t.add(1, 1), t.fail("no")], t.xsum() | t.add(1)),
    "chord body chain, part fails, link_error":
        lambda t: chord([t.add(1, 1), t.fail("no")], (t.xsum() | t.add(1)).on_error(t.echo())),
    "chord body chain fails": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum() | t.i("fail", "late") | t.add(1)),
    "chord body group": lambda t: chord([t.add(1, 1), t.add(2, 2)], group(t.xsum(), t.xsum())),
    "chord body group, part fails": lambda t: chord([t.add(1, 1), t.fail("no")], group(t.xsum(), t.xsum())),
    "chord body chord": lambda t: chord([t.add(1, 1), t.add(2, 2)], chord([t.xsum(), t.xsum()], t.xsum())),
    "chord body chain ends in group": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum() | group(t.add(1), t.add(2))),
    "chord of chains": lambda t: chord([t.add(1, 1) | t.mul(2), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chains, one fails": lambda t: chord([t.fail("no") | t.mul(2), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chains, middle fails":
        lambda t: chord([t.add(1, 1) | t.i("fail", "mid") | t.mul(2), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chains, last fails": lambda t: chord([t.add(1, 1) | t.i("fail", "late"), t.add(2, 2) | t.mul(3)], t.xsum()),
    "chord of chords": lambda t: chord([chord([t.add(1, 1), t.add(2, 2)], t.xsum()),
                                        chord([t.add(3, 3), t.add(4, 4)], t.xsum())], t.xsum()),
    "chord of chord and task": lambda t: chord([chord([t.add(1, 1), t.add(2, 2)], t.xsum()), t.add(3, 3)], t.xsum()),
    "chord of a group": lambda t: chord([group(t.echo(1), t.echo(2), t.echo(3)), t.echo(4)], t.echo()),
    "chord of a group of chains": lambda t: chord([group(t.add(1, 1) | t.mul(2), t.echo(2)), t.echo(4)], t.echo()),
    "chord of chain with group":
        lambda t: chord([t.add(1, 1) | group(t.mul(2), t.mul(3)) | t.xsum(), t.add(2, 2)], t.xsum()),
    "chord of chain with chord":
        lambda t: chord([t.add(1, 1) | chord([t.add(2), t.add(3)], t.xsum()), t.add(2, 2)], t.xsum()),
    "chord five deep": lambda t: nested_chord(t, 5),
    "chord | task": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | t.add(5),
    "chord | group": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | group(t.add(1), t.add(2)),
    "chord | chord": lambda t: chord([t.add(1, 1), t.add(2, 2)], t.xsum()) | chord([t.add(1), t.add(2)], t.xsum()),
    "task | chord": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum()),
    "chain of task and chord": lambda t: chain(t.add(1, 1), chord([t.add(2), t.add(3)], t.xsum())),
    "chain of task, chord, task": lambda t: chain(t.add(1, 1), chord([t.add(2), t.add(3)], t.xsum()), t.mul(2)),
    "task | chord | task": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum()) | t.mul(2),
    "task | chord | chord | task": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum())
    | chord([t.add(1), t.add(2)], t.xsum()) | t.mul(2),
    "task | chord with chain body": lambda t: t.add(1, 1) | chord([t.add(1), t.add(2)], t.xsum() | t.mul(3)),
    "task | chord fails": lambda t: t.add(1, 1) | chord([t.add(1), t.i("fail", "late")], t.xsum()),
    "task | chord fails | task": lambda t: t.add(1, 1) | chord([t.add(1), t.i("fail", "late")], t.xsum()) | t.mul(2),
    "task | chord of chains": lambda t: t.add(1, 1) | chord([t.add(1) | t.mul(2), t.add(2) | t.mul(2)], t.xsum()),
    "task | empty chord": lambda t: t.add(1, 1) | chord([], t.xsum()),
    "chord retries": lambda t: chord([t.flaky("k", 1), t.flaky("k", 2), t.add(1, 1)], t.echo()),
    "chord ignores results": lambda t: chord([t.add(1, 1).set(ignore_result=True), t.add(2, 2)], t.xsum()),
    "chord with links": lambda t: chord([t.add(1, 1).set(link=[t.add(1)]), t.add(2, 2)], t.xsum().set(link=[t.mul(2)])),
    "chord of starmaps": lambda t: chord([t.over("starmap", "add", [(1, 2)]), t.over("map", "xsum", [[3, 4]])], t.echo()),
    # what Celery breaks: see DEVIATIONS
    "chord of chain that ends in group": lambda t: chord([t.add(1, 1) | group(t.mul(2), t.mul(3)), t.add(3, 3)], t.echo()),
    "chord of failing chord": lambda t: chord([chord([t.add(1, 1), t.fail("no")], t.xsum()), t.add(3, 3)], t.xsum()),
    "chord of unknown task": lambda t: chord([t.no_such(1), t.add(1, 1)], t.xsum()),
}

# Tasks that replace themselves or join a chord while it runs: written in Python, on a queue of their own.
PYTHON_EXPRESSIONS = {
    "replaced by a task": lambda t: t.python("replace", "task", 1),
    "replaced by a chain": lambda t: t.python("replace", "chain", 1),
    "replaced by a group": lambda t: t.python("replace", "group", 1),
    "replaced by a chord": lambda t: t.python("replace", "chord", 1),
    "replaced in a chain": lambda t: t.echo("task") | t.python("replace", 1) | t.mul(2),
    "replaced by a chain in a chain": lambda t: t.echo("chain") | t.python("replace", 1) | t.mul(2),
    "replaced in a chord": lambda t: chord([t.python("replace", "task", 1), t.python("replace", "chain", 2)], t.xsum()),
    "replaced, with a link": lambda t: t.python("replace", "task", 1).set(link=[t.echo()], link_error=[t.echo()]),
    "added to a chord": lambda t: chord([t.python("add_to_chord", 1), t.add(2, 2)], t.xsum()),
}

if VERSION >= (5, 3):
    STAMPED_EXPRESSIONS = {
        "stamped chain": lambda t: stamped(chain(t.add(1, 1), t.mul(2)), stamp1="v1", stamp2=[1, 2]),
        "stamped chord": lambda t: stamped(chord([t.add(1, 1), t.add(2, 2)], t.xsum()), stamp="v"),
        "stamped group": lambda t: stamped(group(t.add(1, 1), t.add(2, 2).set(link=[t.add(1)])), stamp="v"),
    }
else:
    STAMPED_EXPRESSIONS = {}

ALL = {**EXPRESSIONS, **PYTHON_EXPRESSIONS, **STAMPED_EXPRESSIONS}


def make(name, app):
    """The expression of that name as a Call."""
    made = ALL[name](Tasks(app))
    return made if isinstance(made, Call) else Call(made)


if __name__ == "__main__":
    producer = celery.Celery("expressions", set_as_current=False)
    print(json.dumps({name: make(name, producer).json() for name in ALL}, indent=1))
