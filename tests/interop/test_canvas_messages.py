"""The messages that apium publishes for a workflow are the ones that Celery publishes, ids aside; and a signature that is read and written
again is the same."""
import glob
import json
import os
import unittest

import canvas_expressions
import canvas_kit
import harness

FIXTURES = str(canvas_kit.CAPTURED.parent)

# Expressions that apium sends otherwise than Celery 5.6, and why.
OTHER_MESSAGES = {
    "chord of chain that ends in group": "Celery gives the inner group the chord's own id, and its count then completes the chord too early: "
                                         "apium makes the inner group a chord that hands its results on",
}
# Of these only the result differs that the sender is told of: the id of an inner header is the one that is used; Celery tells one that it
# replaces when the header is sent.
OTHER_RESULTS = {"chord of chain with group", "chord of chain with chord", "chord five deep"}
# 5.2 gives a group's members no index and a chord's body no group, so a group there has an id of its own.
SINCE_5_3 = {"group_index", "group_id"}
OTHER_IN_5_2 = {"group, group", "chord empty", "chord body group", "chord body group, part fails", "chord body chain ends in group"}


def as_5_2(value):
    """Without what 5.2 does not send, on either side."""
    if isinstance(value, list):
        return [as_5_2(one) for one in value]
    if isinstance(value, dict):
        return {key: as_5_2(one) for key, one in value.items() if key not in SINCE_5_3}
    return value


def signatures(value):
    """The outermost signatures in a document."""
    if isinstance(value, dict):
        if "task" in value and "subtask_type" in value and "options" in value:
            yield value
        else:
            for one in value.values():
                yield from signatures(one)
    elif isinstance(value, list):
        for one in value:
            yield from signatures(one)


def fixture_signatures():
    for path in sorted(glob.glob(os.path.join(FIXTURES, "5.*", "*.json"))):
        with open(path) as file:
            for message in json.load(file).get("messages", ()):
                try:
                    body = json.loads(message.get("body_text", ""))
                except ValueError:
                    continue
                for one in signatures(body):
                    yield os.path.relpath(path, FIXTURES), one


def requests(documents, way):
    return [{"signature": one["signature"], "args": one["args"], "options": one["options"], "chords": way} for one in documents]


class CanvasMessages(unittest.TestCase):
    def agree(self, name, theirs, ours):
        if isinstance(ours, str):
            self.fail(ours)
        if name in OTHER_MESSAGES:
            self.assertNotEqual(theirs[0], ours[0], "no deviation any more")
        elif name in OTHER_RESULTS:
            self.assertEqual(canvas_kit.differences(theirs[0], ours[0]), [])
            self.assertNotEqual(theirs[1], ours[1], "no deviation any more")
        else:
            self.assertEqual(canvas_kit.differences(theirs, ours), [])

    def test_every_signature_of_the_fixtures_is_written_as_it_was_read(self):
        found = list(fixture_signatures())
        self.assertGreater(len(found), 200)
        for (name, one), again in zip(found, canvas_kit.apium_canvas([{"read": one} for _, one in found])):
            with self.subTest(fixture=name):
                self.assertEqual(canvas_kit.differences(one, again), [])

    def test_what_is_unknown_in_a_signature_is_kept(self):
        sig = {"task": "x", "args": [1.0, 10**30], "kwargs": {"k": None}, "options": {"foo": {"bar": [1]}, "chain": None},
               "subtask_type": "xmap", "immutable": True, "chord_size": None, "more": {"a": 1e5}}
        self.assertEqual(canvas_kit.apium_canvas([{"read": sig}]), [sig])

    def test_the_messages_are_those_of_celery_5_6(self):
        documents = canvas_kit.captured("messages.json")["expressions"]
        for way in ("counted", "polled"):
            for (name, theirs), ours in zip(documents.items(), canvas_kit.apium_operations(requests(documents.values(), way))):
                with self.subTest(expression=name, chords=way):
                    self.agree(name, canvas_kit.canonical(canvas_kit.operations(*theirs[way])),
                               ours if isinstance(ours, str) else canvas_kit.canonical(ours))

    @unittest.skipIf(canvas_expressions.VERSION > (5, 6), "Celery 5.7 draws chains behind chords otherwise")
    def test_the_messages_are_those_of_the_installed_celery(self):
        old = canvas_expressions.VERSION < (5, 3)
        seen = (lambda value: canvas_kit.canonical(as_5_2(value))) if old else canvas_kit.canonical
        app = canvas_kit.celery_app()
        names = [name for name in canvas_expressions.ALL if not (old and name in OTHER_IN_5_2)]
        asked = requests([canvas_expressions.make(name, app).json() for name in names], "counted")
        for name, ours in zip(names, canvas_kit.apium_operations(asked)):
            with self.subTest(expression=name):
                theirs = canvas_kit.celery_operations(app, canvas_expressions.make(name, app))
                self.agree(name, seen(theirs), ours if isinstance(ours, str) else seen(ours))

    def test_a_chord_is_refused_where_no_results_are_kept(self):
        chord = canvas_kit.captured("messages.json")["expressions"]["chord"]
        task = canvas_kit.captured("messages.json")["expressions"]["task"]
        refused, sent = canvas_kit.apium_canvas(requests([chord, task], "refused"))
        self.assertIn("cannot send a chord: the result backend rpc keeps no results to gather", refused["error"])
        self.assertEqual(len(sent["ops"]), 1)


if __name__ == "__main__":
    harness.main()
