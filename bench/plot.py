"""Bars of the ratios to the kernel's stack, with their spread over the rounds: SVG by gnuplot."""

import os
import re
import subprocess

# (file, title, measures, units)
PICTURES = (
    ("bulk", "Throughput: more is better", r"(lo-)?bulk", ("Gbit/s",)),
    ("latency", "Round trips, median: less is better", r"rtt|spin|sockperf|lo-rtt|idle-rtt$", ("us",)),
    ("requests", "Connections and requests a second: more is better", r"connect|http|redis",
     ("conn/s", "req/s")),
    ("path", "Goodput at 20 ms and 100 Mbit/s: more is better", r"path-", ("Mbit/s",)),
    ("cost", "Processor time a byte, memory of an idle connection: less is better", r"bulk|idle",
     ("CPU s/GB", "bytes")),
)
COLOURS = {"U-K": "#6699cc", "K-U": "#88bb88", "U-U": "#cc5555", "limit U-K": "#dddddd", "limit K-U": "#cccccc",
           "limit": "#aaaaaa"}
SAME = {"U lo": "U-U", "U-U+": "U-U"}  # drawn like the pair that they are
CLUSTER = 90  # pixels


def bars(document, pattern, units):
    """[(measure's name, {variant: row})]"""
    found = []
    for measure in document["measures"]:
        if not re.match(pattern, measure["name"]) or measure["unit"] not in units:
            continue
        rows = {SAME.get(row["variant"], row["variant"]): row for row in measure["rows"] if "ratio" in row}
        if rows and measure["name"] not in [name for name, _ in found]:
            found.append((measure["name"], rows))
    return found


def script(path, title, clusters):
    """What gnuplot is told."""
    variants = [v for v in COLOURS if any(v in rows for _, rows in clusters)]
    lines = [f'set terminal svg noenhanced size {max(640, 200 + CLUSTER * len(clusters))},380 font "sans-serif,12" background "white"',
             f'set output "{path}"', f'set title "{title} (ratio to the kernel\'s stack)"',
             "set style data histogram", "set style histogram errorbars gap 1 linewidth 1",
             "set style fill solid", "set boxwidth 0.9", "set yrange [0:*]", "set grid ytics",
             "set key outside right", "set xtics rotate by -30 nomirror", "set bars 0.6",
             "$data << END"]
    for name, rows in clusters:
        cells = [f'"{name}"']
        for variant in variants:
            row = rows.get(variant)
            cells += [str(row[key]) for key in ("ratio", "low", "high")] if row else ["NaN"] * 3
        lines.append(" ".join(cells))
    lines.append("END")
    plots = [f'$data using {2 + 3 * i}:{3 + 3 * i}:{4 + 3 * i}:xtic(1) title "{v}" linecolor rgb "{COLOURS[v]}"'
             for i, v in enumerate(variants)]
    plots.append('1 with lines dashtype 2 linecolor rgb "black" title "kernel"')
    lines.append("plot " + ", ".join(plots))
    return "\n".join(lines) + "\n"


def draw_all(document, directory):
    """Returns the files' names."""
    made = []
    for file, title, pattern, units in PICTURES:
        clusters = bars(document, pattern, units)
        if not clusters:
            continue
        path = os.path.join(directory, file + ".svg")
        subprocess.run(["gnuplot"], input=script(path, title, clusters), text=True, check=True)
        made.append(file + ".svg")
    return made
