"""celery_client - the Python client, for `./dev bench`: what bench/client.c does, with Celery; the same words, the same numbers."""
import statistics
import sys
import time

from celery_tasks import noop


def main(what, n, width=1):
    noop.apply_async(ignore_result=True)  # connected, declared
    if what == "single":
        began = time.monotonic()
        with noop.app.producer_pool.acquire(block=True) as producer:
            for _ in range(n):
                noop.apply_async(producer=producer)
        print(n / (time.monotonic() - began))
        return
    took, runs = [], []
    for i in range(n + width):
        if i >= width:
            began, run = runs[i - width]
            run.get(timeout=60)
            took.append((time.monotonic() - began) * 1e6)
        if i < n:
            began = time.monotonic()
            runs.append((began, noop.apply_async()))
    took = sorted(took[n // 10:])
    print(statistics.median(took), took[len(took) * 99 // 100])


main(sys.argv[1], *map(int, sys.argv[2:]))
