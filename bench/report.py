"""What came out: ratios round by round, verdicts, the table on the terminal and in Markdown."""

import statistics

from measure import LIMITS, MORE

# A missed target is at the limit when the limit itself is this near.
NEAR = 1.10
# Ratios that differ by less are the same.
RESOLUTION = 0.01


def compare(values, base):
    """Of two lists of one value a round, where None is a failure: (median, ratios, differences)."""
    known = [v for v in values if v is not None]
    pairs = [(v, b) for v, b in zip(values, base) if v is not None and b]
    return (statistics.median(known) if known else None, [v / b for v, b in pairs], [v - b for v, b in pairs])


def row_of(values, variant, base, target):
    """One line of the result: a dict for the table and for bench.json."""
    median, ratios, differences = compare(values[variant], values[base])
    row = {"variant": variant, "median": median}
    if variant == base or not ratios:
        return row
    row.update(ratio=statistics.median(ratios), low=min(ratios), high=max(ratios),
               difference=statistics.median(differences), difference_low=min(differences),
               difference_high=max(differences))
    if target is not None:
        row.update(target=target.bound, plus=target.plus)
    return row


def judge(row, unit, limit):
    """met, missed, or at the limit: no more than a tenth behind what the machine allows without a TCP."""
    value = row["difference"] if row["plus"] else row["ratio"]
    more = unit in MORE
    if value > row["target"] - RESOLUTION if more else value < row["target"] + RESOLUTION:
        return "met"
    if limit is None or row["plus"] or "ratio" not in limit:
        return "missed"
    near = value * NEAR >= limit["ratio"] if more else value <= limit["ratio"] * NEAR
    return "at the limit" if near else "missed"


def results(measure, values):
    """values: {variant: {unit: [one value a round]}}. Returns [{unit, title, base, rows}]."""
    found = []
    for unit, targets in measure.targets.items():
        by_variant = {v: values[v][unit] for v in values}
        base = next(iter(values))
        rows = [row_of(by_variant, v, base, targets.get(v)) for v in values
                if v == base or any(x is not None for x in by_variant[v]) or v in targets]
        by_name = {row["variant"]: row for row in rows}
        for row in rows:
            if "target" in row:
                row["verdict"] = judge(row, unit, by_name.get(LIMITS.get(row["variant"])))
        found.append({"unit": unit, "title": measure.what, "base": base, "rows": rows, "values": by_variant})
    for title, base, variants in measure.asides:
        unit = next(iter(measure.targets))
        by_variant = {v: values[v][unit] for v in (base, *variants) if v in values}
        if base in by_variant:
            found.append({"unit": unit, "title": f"the same against {title}", "base": base,
                          "rows": [row_of(by_variant, v, base, None) for v in by_variant],
                          "values": by_variant})
    return found


def number(value):
    if value is None:
        return "failed"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def columns(row, unit):
    """(variant, median, compared with the base, spread, target, verdict) as text."""
    cells = [row["variant"], number(row["median"]), "", "", "", ""]
    if "ratio" not in row:
        return cells
    sign = ">=" if unit in MORE else "<="
    if row.get("plus"):
        cells[2] = f"{row['difference']:+.2f}"
        cells[3] = f"{row['difference_low']:+.2f} .. {row['difference_high']:+.2f}"
    else:
        cells[2] = f"{row['ratio']:.2f} x"
        cells[3] = f"{row['low']:.2f} .. {row['high']:.2f}"
    if "target" in row:
        cells[4] = f"{sign} {row['target']:+.4g}" if row["plus"] else f"{sign} {row['target']:.2f} x"
        cells[5] = row.get("verdict", "")
    return cells


HEADINGS = ("measure", "unit", "", "median", "to the first", "spread", "target", "")
WIDTHS = (16, 13, 7, 12, 13, 19, 11, 0)


def line(cells):
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS)).rstrip()


def print_result(name, result):
    for row in result["rows"]:
        print(line((name, result["unit"], *columns(row, result["unit"]))), flush=True)


def markdown(document):
    """The whole result as a Markdown document's text."""
    out = [f"{document['started']}, Linux {document['kernel']}, {document['processors']} processors "
           f"({document['processor']}); {document['rounds']} rounds of {document['seconds']:g} s.", "",
           "| measure | unit | | median | to the first | spread | target | |",
           "|---|---|---|---|---|---|---|---|"]
    for measure in document["measures"]:
        name = f"`{measure['name']}`: {measure['title']}"
        for row in measure["rows"]:
            cells = columns(row, measure["unit"])
            out.append("| " + " | ".join([name, measure["unit"], *cells]) + " |")
            name = ""
    return "\n".join(out) + "\n"
