"""plots - curves and rates out of the JSON of runs, drawn by gnuplot into docs/plots/.

Lines run through medians; bars are the lowest and the highest round.
"""
import shutil
import statistics
import subprocess

import tables

FOLDER = tables.PAGE.parent / "plots"
COLOURS = ["#1f6fb4", "#c8502d", "#4a8f3c"]
HEAD = """set terminal svg size {width},{height} font "DejaVu Sans,sans-serif,12" background "#ffffff" noenhanced
set output "{path}"
set border 3 lc rgb "#666666"
set tics nomirror textcolor rgb "#333333"
set grid ytics lc rgb "#dddddd" lt 1
set key top left reverse Left samplen 2
set title "{title}" textcolor rgb "#222222"
set format y "%.0f"
"""
# key: [(metric, label)], label of y, logarithmic y
LINES = {
    "workers": ([("worker us", "workers"), ("server us", "redis-server")], "CPU us a task", False),
    "depth": ([("worker us", "worker"), ("server us", "redis-server"), ("bare server us", "redis-server, bare loop")], "CPU us a task", False),
    "queues": ([("worker us", "worker"), ("server us", "redis-server")], "CPU us a task", False),
    "held": ([("worker us", "worker"), ("server us", "redis-server")], "CPU us a task", False),
    "sizes": ([("MB/s", "no result"), ("stored MB/s", "result stored"), ("bare MB/s", "bare loop, no result")], "MB a second", True),
    "chords": ([("us each", "")], "us a part, sent to result", True),
    "chains": ([("us each", "")], "us a step, sent to result", True),
    "pieces": ([("us each", "")], "us a step, sent to result", True),
}


def text_of(value):
    return str(value).replace("\\", "\\\\").replace('"', '\\"')


def gnuplot(name, commands):
    subprocess.run(["gnuplot"], input=commands, text=True, check=True)
    path = FOLDER / f"{name}.svg"
    # No trailing spaces, and no date: a plot of the same figures is the same file.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def head(name, title, width=460, height=280):
    return HEAD.format(path=FOLDER / f"{name}.svg", title=text_of(title), width=width, height=height)


def short(x):
    for unit, size in (("M", 10**6), ("k", 1000)):
        if x >= size and x % size == 0:
            return f"{x // size}{unit}"
    return str(x)


def curve(key, found):
    series, label, log = LINES[key]
    xs = [point["x"] for point in found["samples"]]
    at = {x: x or xs[1] / 10 for x in xs}  # nothing has a place on a logarithmic axis, left of the first
    out = head(f"scale-{key}", found["title"]) + f'set xlabel "{found["size"]}"\nset ylabel "{label}"\nset logscale x\n'
    out += "set xtics (" + ", ".join(f'"{short(x)}" {at[x]:g}' for x in xs) + ")\n"
    out += f"set xrange [{min(at.values()) / 1.3:g}:{max(at.values()) * 1.3:g}]\n"
    highest = max(s[metric] for point in found["samples"] for s in point["samples"] for metric, _ in series if metric in s)
    out += "unset key\n" if len(series) == 1 else ""
    out += 'set key bottom right\nset logscale y\nset format y "%g"\n' if log else f"set yrange [0:{highest * (1.15 + 0.12 * len(series)):g}]\n"
    plots = []
    for i, (metric, name) in enumerate(series):
        out += f"$d{i} << EOD\n"
        for point in found["samples"]:
            values = [s[metric] for s in point["samples"] if metric in s]
            if values:
                out += f"{at[point['x']]:g} {statistics.median(values):g} {min(values):g} {max(values):g}\n"
        out += "EOD\n"
        plots.append(f'$d{i} using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.5 lc rgb "{COLOURS[i]}" title "{name}"')
    gnuplot(f"scale-{key}", out + "plot " + ", ".join(plots) + "\n")


def bars(name, title, rows):
    """[(label, values)], the longest bar on top; a logarithmic axis, for they differ by far."""
    rows = sorted(((label, values) for label, values in rows if values), key=lambda row: statistics.median(row[1]))
    if not rows:
        return
    out = head(name, title, 560, 60 + 26 * len(rows))
    out += 'unset key\nset logscale x\nset format x "%.0s%c"\nset xlabel "tasks a second"\nset grid noytics xtics\nset boxwidth 0.6\nset style fill solid 0.9\n'
    out += "set ytics (" + ", ".join(f'"{text_of(label)}" {i}' for i, (label, _) in enumerate(rows)) + f")\nset yrange [-0.6:{len(rows) - 0.4}]\n"
    middles = [statistics.median(values) for _, values in rows]
    least = 10 ** (len(str(int(min(middles)))) - 1)
    out += f"set xrange [{least}:{max(max(v) for _, v in rows) * 2.2:g}]\n$d << EOD\n"
    for i, (label, values) in enumerate(rows):
        out += f"{middles[i]:g} {i} {least} {middles[i]:g} {i - 0.3} {i + 0.3} {0 if label.startswith('apium') else 1} "
        out += f'"{tables.number(middles[i])}" {max(values):g} {min(values):g}\n'
    out += "EOD\n"
    out += f'plot $d using 1:2:3:4:5:6:($7 == 0 ? {int(COLOURS[0][1:], 16)} : {int("9aa5b1", 16)}) with boxxyerror lc rgb variable, '
    out += '$d using 1:2:10:9 with xerrorbars ps 0 lw 1 lc rgb "#333333", $d using ($9*1.05):2:8 with labels left offset 0.3,0\n'
    gnuplot(name, out)


def write(paths):
    if not shutil.which("gnuplot"):
        raise SystemExit("bench: gnuplot is not installed")
    FOLDER.mkdir(exist_ok=True)
    runs = tables.Runs(paths)
    for key, found in runs.curves.items():
        curve(key, found)
    for kind in ("on", "off"):
        name = f"peers, redis, results {kind}"
        bars(f"peers-results-{kind}", f"no-op tasks on one Redis, {'results stored' if kind == 'on' else 'no results'}",
             [(tables.peer_name(who), runs.values(name, who, "tasks/s")) for who in runs.measures.get(name, {}).get("samples", {})])
    print(*sorted(f"docs/plots/{path.name}" for path in FOLDER.glob("*.svg")), sep="\n")
