"""The map-reduce of samples/wordcount, composed in Python and run by its C workers:

    build/samples/wordcount -b redis://localhost/0 --result-backend redis://localhost/0 worker &
    python3 samples/python/wordcount.py redis://localhost/0 *.txt
"""
import os
import sys

from celery import Celery, chord

PART_BYTES = 65536


def split(app, paths):
    """A call of wordcount.count for each part of each file."""
    for path in map(os.path.abspath, paths):
        size = os.stat(path).st_size
        for begin in range(0, size, PART_BYTES):
            yield app.signature("wordcount.count", args=(path, begin, min(begin + PART_BYTES, size)))


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: wordcount.py URL FILE...")
    url, *paths = sys.argv[1:]
    app = Celery("wordcount", broker=url, backend=url)
    merge_and_report = app.signature("wordcount.merge") | app.signature("wordcount.report", args=(12,))
    report = chord(split(app, paths), merge_and_report).apply_async().get(timeout=60)
    for word, times in report["rows"]:
        print(f"{times:9} {word}")
    print(f"{report['words']} words, {report['different']} different ones")


if __name__ == "__main__":
    main()
