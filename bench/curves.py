"""curves - a cost over a size: points, their spread, and the slope that is fitted to their medians.

A point is a function that runs once at one size and gives {metric: number}, as a contender of kit does. The order of the sizes
alternates from round to round.
"""
import math
import statistics
import sys

import kit


def line(points, relative=False):
    """Least squares: (a, b) of y = a + b * x; relative: every point counts by its error in proportion."""
    weights = [1 / (y * y) if relative else 1 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points))
    b = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points)) / spread
    return mean_y - b * mean_x, b


def power(points):
    """The exponent k of y = c * x^k, fitted in logarithms."""
    return line([(math.log(x), math.log(y)) for x, y in points])[1]


class Curve:
    """What is measured over sizes, and what is said of it."""

    def __init__(self, key, title, size, what):
        self.key, self.title, self.size, self.what = key, title, size, what
        self.samples, self.fits, self.notes = {}, [], []

    def run(self, sizes, point, rounds=None):
        for i in range(rounds or kit.Options.rounds):
            for x in sizes if i % 2 == 0 else reversed(sizes):
                self.samples.setdefault(x, []).append(point(x))
        self.samples = dict(sorted(self.samples.items()))
        return self

    def medians(self, metric, least=0):
        """[(size, median)] of the sizes that have the metric."""
        return [(x, statistics.median(values)) for x, values in
                ((x, [s[metric] for s in samples if metric in s]) for x, samples in self.samples.items()) if values and x >= least]

    def exponent(self, metric, of, least=1):
        """State how the metric grows, from the size `least` on."""
        points = self.medians(metric, least)
        if len(points) > 1 and all(y > 0 for _, y in points):
            k = round(power(points), 2) + 0.0  # no -0.00
            since = f" from {least} on" if least > 1 else ""
            self.fits.append({"metric": metric, "exponent": k, "text": f"{of} ~ {self.size}^{k:.2f}{since}"})

    def slope(self, metric, of, per, unit, relative=False):
        """State what `per` more of the size add to the metric."""
        points = self.medians(metric)
        if len(points) > 1:
            a, b = line(points, relative)
            self.fits.append({"metric": metric, "at_none": a, "slope": b * per,
                              "text": f"{of}: {kit.show(a)} + {kit.show(b * per)} {unit}"})

    def note(self, text):
        self.notes.append(text)

    def done(self):
        kit.found["curves"].append(self.data())
        print(f"\n{self.title}: {self.what}")
        kit.print_samples(self.samples, self.size, ">12")
        for text in [fit["text"] for fit in self.fits] + self.notes:
            print(f"  {text}")
        sys.stdout.flush()

    def data(self):
        return {"key": self.key, "title": self.title, "size": self.size, "what": self.what, "fits": self.fits, "notes": self.notes,
                "samples": [{"x": x, "samples": samples} for x, samples in self.samples.items()]}
