"""The steps of the reading report that run in Python; the others are in steps.c. A worker for them:

    cd samples/mixed && python3 -m celery -A steps worker -Q python -l info
"""
import collections
import os
import re

from celery import Celery

url = os.environ.get("URL", "redis://localhost/0")
app = Celery("steps", broker=url, backend=url)


@app.task(name="mixed.vocabulary")
def vocabulary(sentences):
    """The words of more than three letters that come most often."""
    words = re.findall(r"[a-z]{4,}", " ".join(sentences).lower())
    return collections.Counter(words).most_common(5)


@app.task(name="mixed.grade")
def grade(both):
    """Flesch's reading ease, in words: what the two steps before found out, as a text."""
    frequent, sizes = both
    if not sizes["words"]:
        raise ValueError("there are no words in it")
    ease = 206.835 - 1.015 * sizes["words"] / sizes["sentences"] - 84.6 * sizes["syllables"] / sizes["words"]
    kind = "easy" if ease > 70 else "plain" if ease > 50 else "hard"
    return (f"{sizes['sentences']} sentences, {sizes['words']} words: {kind} to read ({ease:.1f}).\n"
            f"Often: {', '.join(f'{word} {n}' for word, n in frequent)}.\n")
