"""capture_canvas - writes tests/fixtures/canvas-5.6 anew: what Celery 5.6 does with every expression of canvas_expressions.py.

    python3 -m venv VENV && VENV/bin/pip install 'celery[redis]==5.6.*'
    APIUM_TEST_BUILD=build PYTHONPATH=tests/support VENV/bin/python tests/interop/capture_canvas.py

messages.json: each expression's signature as JSON; "counted" and "polled": what sending it publishes, on stores that count parts and on
those that cannot, and the result it gives. results.json: what a worker made of the counted ones, ids being numbers in the order of
appearance.
"""
import json

import celery

import canvas_expressions
import canvas_kit
import canvas_run
import harness


def write(name, documents):
    """A line for each expression, so that a change can be read."""
    canvas_kit.CAPTURED.mkdir(exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in documents.items())
    (canvas_kit.CAPTURED / name).write_text(f'{{"celery": "{celery.__version__}", "expressions": {{\n{lines}\n}}}}\n')


def messages():
    documents = {}
    for way in ("counted", "polled"):
        app = canvas_kit.celery_app(way == "polled")
        for name in canvas_expressions.ALL:
            call = canvas_expressions.make(name, app)
            document = documents.setdefault(name, call.json())
            document[way] = canvas_kit.celery_log(app, call)  # sending changes the signature
    return documents


def results(documents):
    server = harness.Redis().start()
    worker = harness.CeleryWorker(server.url(), server.url(), "-c", "4", "-Q", "celery,python")
    try:
        app = harness.app(server.url(), server.url())
        sent = canvas_run.replay(app, server.client(), documents)
        worker.start()
        return canvas_run.await_rest(app, server.client(), sent, 6, 120)
    finally:
        worker.kill_group()
        server.stop()


if __name__ == "__main__":
    assert canvas_expressions.VERSION == (5, 6), f"this is Celery {celery.__version__}"
    captured = messages()
    write("messages.json", captured)
    write("results.json", results(captured))
