"""What every experiment reports with its numbers: the machine, the commit, statistics, a plot."""

import html
import math
import os
import pathlib
import platform
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def environment() -> dict:
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(git + ["rev-parse", "HEAD"], capture_output=True, text=True).stdout
    # Results that were written before this one change nothing.
    status = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"]
    dirty = subprocess.run(git + status, capture_output=True, text=True).stdout
    import onnxruntime

    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit.strip() + ("+changes" if dirty.strip() else ""),
        "onnxruntime": onnxruntime.__version__,
    }


def paired_ratio(ours: list, theirs: list) -> dict:
    """Median of the rounds' ratios with its 95 % interval (bootstrap, seed 1)."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(ratios, (2000, ratios.size)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {
        "median": round(float(np.median(ratios)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def geomean(values) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


def bars(title: str, rows: list, unit: str, line_at: float | None = None) -> str:
    """Horizontal bars: rows of (label, value, text). A vertical line marks `line_at`."""
    left, width, height = 150, 420, 18
    top = 34
    most = max([r[1] for r in rows] + ([line_at] if line_at else [])) * 1.05 or 1
    total = top + height * len(rows) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 130}" height="{total}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="20" font-size="14">{html.escape(title)}</text>',
    ]
    for i, (label, value, text) in enumerate(rows):
        y = top + i * height
        color = "#2a7f62" if line_at is None or value <= line_at else "#b5533c"
        out.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{value / most * width:.1f}" height="{height - 6}" '
            f'fill="{color}"/>'
            f'<text x="{left + value / most * width + 5:.1f}" y="{y + 13}">{html.escape(text)}</text>'
        )
    if line_at:
        x = left + line_at / most * width
        out.append(
            f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{total - 20}" stroke="#444" '
            'stroke-dasharray="4 3"/>'
        )
    out.append(f'<text x="{left}" y="{total - 6}" fill="#666">{html.escape(unit)}</text></svg>')
    return "\n".join(out) + "\n"


COLORS = ["#2a7f62", "#b5533c", "#3c6db5", "#8a5fb0", "#b08b2a", "#4aa5b0", "#777777", "#b03c7d"]


def lines(title: str, series: dict, x_label: str, y_label: str, limit: float | None = None) -> str:
    """Both axes logarithmic. `series`: {name: [(x, y), ...]}, all positive; y is cut at `limit`."""
    left, top, width, height = 62, 36, 440, 300
    points = [p for values in series.values() for p in values]
    xs = [math.log10(x) for x, _ in points]
    ys = [math.log10(min(y, limit) if limit else y) for _, y in points]
    x0, x1 = min(xs), max(max(xs), min(xs) + 0.1)
    y0, y1 = math.floor(min(ys)), max(math.ceil(max(ys)), math.floor(min(ys)) + 1)

    def at(x, y):
        px = left + (math.log10(x) - x0) / (x1 - x0) * width
        py = top + height - (math.log10(y) - y0) / (y1 - y0) * height
        return f"{px:.1f}", f"{py:.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 220}" '
        f'height="{top + height + 44}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="20" font-size="14">{html.escape(title)}</text>',
    ]
    for decade in range(y0, y1 + 1):
        _, y = at(10**x0, 10**decade)
        out.append(
            f'<path d="M{left} {y} H{left + width}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{float(y) + 4}" text-anchor="end">{10**decade:g}</text>'
        )
    ticks = sorted({x for x, _ in points})
    step = max(1, len(ticks) // 8)
    for tick in ticks[::step]:
        x, _ = at(tick, 10**y0)
        out.append(f'<text x="{x}" y="{top + height + 16}" text-anchor="middle">{tick:.4g}</text>')
    for i, (name, values) in enumerate(series.items()):
        color = COLORS[i % len(COLORS)]
        dash = ' stroke-dasharray="5 3"' if i >= len(COLORS) else ""
        path = " ".join(",".join(at(x, min(y, limit) if limit else y)) for x, y in sorted(values))
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>'
            f'<rect x="{left + width + 14}" y="{top + 18 * i}" width="10" height="10" '
            f'fill="{color}"/><text x="{left + width + 30}" y="{top + 18 * i + 9}">'
            f"{html.escape(name)}</text>"
        )
    return "\n".join([*out, _axis_labels(x_label, y_label, left, top, width, height)]) + "\n"


def _axis_labels(x_label: str, y_label: str, left, top, width, height) -> str:
    """What ends a plot: its axes' names, and the end of the picture."""
    return (
        f'<text x="{left + width / 2}" y="{top + height + 36}" text-anchor="middle" fill="#666">'
        f'{html.escape(x_label)}</text><text x="14" y="{top + height / 2}" fill="#666" '
        f'transform="rotate(-90 14 {top + height / 2})" text-anchor="middle">'
        f"{html.escape(y_label)}</text></svg>"
    )


def curves(title: str, series: dict, x_label: str, y_label: str) -> str:
    """Both axes linear, y from 0. `series`: {name: [(x, y), ...]}; names in "(limit)" are dashed."""
    left, top, width, height = 52, 36, 440, 300
    points = [p for values in series.values() for p in values]
    x0, x1 = min(x for x, _ in points), max(x for x, _ in points)
    most = math.ceil(max(y for _, y in points))

    def at(x, y):
        return (
            f"{left + (x - x0) / ((x1 - x0) or 1) * width:.1f}",
            f"{top + height - y / most * height:.1f}",
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 220}" '
        f'height="{top + height + 44}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="20" font-size="14">{html.escape(title)}</text>',
    ]
    for tick in range(0, most + 1):
        _, y = at(x0, tick)
        out.append(
            f'<path d="M{left} {y} H{left + width}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{float(y) + 4}" text-anchor="end">{tick}</text>'
        )
    for tick in sorted({x for x, _ in points}):
        x, _ = at(tick, 0)
        out.append(f'<text x="{x}" y="{top + height + 16}" text-anchor="middle">{tick:g}</text>')
    hues = {}
    for i, (name, values) in enumerate(series.items()):
        color = hues.setdefault(name.replace(" (limit)", ""), COLORS[len(hues) % len(COLORS)])
        dash = ' stroke-dasharray="4 3"' if "(limit)" in name else ""
        path = " ".join(",".join(at(x, y)) for x, y in sorted(values))
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>'
            f'<path d="M{left + width + 12} {top + 18 * i + 5} h14" stroke="{color}" '
            f'stroke-width="2"{dash}/>'
            f'<text x="{left + width + 30}" y="{top + 18 * i + 9}">{html.escape(name)}</text>'
        )
    return "\n".join([*out, _axis_labels(x_label, y_label, left, top, width, height)]) + "\n"
