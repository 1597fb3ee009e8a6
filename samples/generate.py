"""Make the synthetic sample data sets: photographs of a machined plate, and a pump station's sensor log.

Usage: python samples/generate.py [OUT_DIR=samples]

Writes parts/, parts-labels.csv, sensors.parquet and sensors-labels.csv to OUT_DIR. The seed is fixed: the same library
versions give the same bytes. Needs numpy, pillow and polars.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SEED = 20240611
Arr: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# --------------------------------------------------------------------------------------------------------------------
# Photographs of a part
# --------------------------------------------------------------------------------------------------------------------
# A scene is a height map with colours, lit from the upper left. All lengths are pixels of the final image; the canvas
# is drawn SS times finer and with a margin, so that filters see no border, then cropped and scaled down.

N_PARTS = 160
SIZE = 160
SS = 3
MARGIN = 8
CANVAS = SS * (SIZE + 2 * MARGIN)
JPEG_QUALITY = 88

HALF_W, HALF_H, CORNER_R = 58.0, 50.0, 13.0
HOLES = ((-43.0, -35.5), (43.0, -35.5), (43.0, 35.5), (-43.0, 35.5))
HOLE_R, SINK_R = 6.0, 8.6
BORE_R, RING_R, RING_HALF, FACE_R = 13.0, 20.5, 2.9, 28.0
CENTRE_Y = -3.0  # the bore sits a little above the middle: the part number goes below it
SLOT_X, SLOT_HALF_LEN, SLOT_R = 44.0, 8.0, 3.6
PINS = ((-41.0, -8.0), (-41.0, 6.0))
PIN_R = 2.4
PART_NUMBER = "KM 4081"

# What each defective part has; which of the parts is which is drawn from the seed.
DEFECTS = (
    ("scratch", "top"),
    ("scratch", "left"),
    ("scratch", "right"),
    ("scratch", "bottom"),
    ("stain", "rust"),
    ("stain", "rust"),
    ("stain", "oil"),
    ("stain", "oil"),
    ("missing", "hole"),
    ("missing", "corner"),
    ("missing", "gasket"),
    ("missing", "gasket"),
)

# Where a scratch runs, about: its ends, and whether the tool slid twice.
SCRATCHES = {
    "top": ((-32.0, -33.0), (28.0, -43.0), False),
    "left": ((-51.0, 20.0), (-22.0, -40.0), False),
    "right": ((20.0, -40.0), (36.0, 28.0), True),
    "bottom": ((-31.0, 45.0), (36.0, 26.0), False),
}

FREQ_Y = np.fft.fftfreq(CANVAS)[:, None] * SS  # cycles per final pixel
FREQ_X = np.fft.rfftfreq(CANVAS)[None, :] * SS


def smoothstep(low: float, high: float, x: Arr) -> Arr:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def inside(signed_distance: Arr) -> Arr:
    """Antialiased cover of the region where the signed distance is negative."""
    return smoothstep(0.25, -0.25, signed_distance)


def mix(a: Arr, b: Arr, t: Arr) -> Arr:
    """`a` where t = 0, `b` where t = 1; t gets a channel axis if needed."""
    if a.ndim > t.ndim:
        t = t[..., None]
    return a + (b - a) * t


def blur(x: Arr, sigma: float) -> Arr:
    """Gaussian blur; sigma in final pixels."""
    kernel = np.exp(-2.0 * (np.pi * sigma) ** 2 * (FREQ_X**2 + FREQ_Y**2))
    blurred: Arr = np.fft.irfft2(np.fft.rfft2(x) * kernel, s=x.shape)
    return blurred


def fractal(
    rng: np.random.Generator,
    beta: float,
    scale: tuple[float, float] = (1.0, 1.0),
    angle: float = 0.0,
    low: float = 0.01,
) -> Arr:
    """1/f^beta noise with unit variance; `scale` stretches it along and across the direction `angle`."""
    c, s = np.cos(angle), np.sin(angle)
    along = (c * FREQ_X + s * FREQ_Y) * scale[0]
    across = (-s * FREQ_X + c * FREQ_Y) * scale[1]
    amplitude = (along**2 + across**2 + low**2) ** (-beta / 2)
    amplitude[0, 0] = 0.0
    noise: Arr = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((CANVAS, CANVAS))) * amplitude, s=(CANVAS, CANVAS))
    noise /= noise.std()
    return noise


def box_distance(u: Arr, v: Arr, half_w: float, half_h: float, radius: float) -> Arr:
    """Signed distance to a rectangle with rounded corners."""
    qx, qy = np.abs(u) - half_w + radius, np.abs(v) - half_h + radius
    return np.hypot(np.maximum(qx, 0.0), np.maximum(qy, 0.0)) + np.minimum(np.maximum(qx, qy), 0.0) - radius


def curve_distance(u: Arr, v: Arr, points: Arr) -> tuple[Arr, Arr]:
    """Distance to a polyline, and the position along it (0 to 1) of the nearest point."""
    best = np.full(u.shape, np.inf)
    position = np.zeros(u.shape)
    for i, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
        dx, dy = bx - ax, by - ay
        t = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        d = np.hypot(u - ax - t * dx, v - ay - t * dy)
        closer = d < best
        best = np.where(closer, d, best)
        position = np.where(closer, (i + t) / (len(points) - 1), position)
    return best, position


def engraving() -> Image.Image:
    """The part number as a mask, in the part's own frame, SS times 2 finer than the final image."""
    k = SS * 2
    image = Image.new("L", (80 * k, 24 * k), 0)
    font = ImageFont.load_default(size=11.5 * k)
    ImageDraw.Draw(image).text((40 * k, 12 * k), PART_NUMBER, fill=255, font=font, anchor="mm", stroke_width=k // 6)
    return image


def sample_mask(mask: Image.Image, u: Arr, v: Arr) -> Arr:
    """Bilinear look-up of a mask that is centred on u = v = 0."""
    a = np.asarray(mask, dtype=np.float64) / 255.0
    k = SS * 2
    x = np.clip(u * k + a.shape[1] / 2 - 0.5, 0, a.shape[1] - 1.001)
    y = np.clip(v * k + a.shape[0] / 2 - 0.5, 0, a.shape[0] - 1.001)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    fx, fy = x - x0, y - y0
    top = a[y0, x0] * (1 - fx) + a[y0, x0 + 1] * fx
    bottom = a[y0 + 1, x0] * (1 - fx) + a[y0 + 1, x0 + 1] * fx
    value: Arr = top * (1 - fy) + bottom * fy
    return value


def scratches(rng: np.random.Generator, u: Arr, v: Arr, style: str) -> tuple[Arr, Arr]:
    """Height (a groove between raised edges) and cover of one or two scratches across the plate."""
    first, last, double = SCRATCHES[style]
    start, end = np.array(first) + rng.uniform(-3, 3, 2), np.array(last) + rng.uniform(-3, 3, 2)
    normal = np.array([-(end - start)[1], (end - start)[0]]) / np.hypot(*(end - start))
    bend = normal * rng.uniform(5, 9) * rng.choice([-1.0, 1.0])
    c1, c2 = start + (end - start) * 0.33 + bend, start + (end - start) * 0.67 + bend * rng.uniform(-0.4, 1.1)
    t = np.linspace(0.0, 1.0, 40)[:, None]
    path = (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * c1 + 3 * (1 - t) * t**2 * c2 + t**3 * end
    tracks = [(path, 1.0)]
    if double:
        tracks.append((path[6:34] + normal * rng.uniform(3.0, 4.0), 0.75))
    pressure = 0.75 + 0.25 * np.tanh(fractal(rng, 1.2, (3.0, 3.0)))  # the tool skips a little along the way
    height, cover = np.zeros_like(u), np.zeros_like(u)
    for points, strength in tracks:
        d, s = curve_distance(u, v, points)
        taper = smoothstep(0.0, 0.12, s) * smoothstep(1.0, 0.8, s)
        width = (0.42 + 0.34 * taper) * (0.85 + 0.15 * strength)
        depth = strength * taper * pressure
        ridge, furrow = np.exp(-(((d - 1.9 * width) / (0.7 * width)) ** 2)), np.exp(-((d / width) ** 2))
        height += depth * (0.55 * ridge - 1.1 * furrow)
        cover = np.maximum(cover, depth * np.exp(-((d / (0.9 * width)) ** 2)))
    return height, cover


def stain(rng: np.random.Generator, u: Arr, v: Arr, style: str) -> tuple[Arr, Arr]:
    """Cover of an irregular stain, and of its darker rim where the liquid dried last."""
    corner = np.array(HOLES[rng.integers(4)])
    x0, y0 = corner * rng.uniform(0.5, 0.75) + rng.uniform(-4, 4, 2)
    radius = rng.uniform(11, 14) if style == "rust" else rng.uniform(12, 15)
    stretch, tilt = rng.uniform(1.0, 1.5), rng.uniform(0, np.pi)
    a = np.cos(tilt) * (u - x0) + np.sin(tilt) * (v - y0)
    b = -np.sin(tilt) * (u - x0) + np.cos(tilt) * (v - y0)
    level = 1.0 - np.hypot(a / stretch, b * stretch**0.5) / radius + 0.27 * fractal(rng, 2.1, low=0.03)
    near = np.hypot(u - x0, v - y0) < 1.9 * radius  # no stray islands far from the source
    edge = 0.50 if style == "rust" else 0.42
    cover = smoothstep(0.0, edge, level) * near
    rim = smoothstep(-0.02, 0.10, level) * smoothstep(0.34, 0.14, level) * near
    return cover, rim


def render_part(rng: np.random.Generator, line: str, kind: str, style: str, number: Image.Image) -> Image.Image:
    """One photograph. `kind` is empty for a part without a defect."""
    # --- pose: part coordinates (u, v) of every canvas pixel
    axis = (np.arange(CANVAS) + 0.5) / SS - (SIZE / 2 + MARGIN)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle = np.deg2rad(np.clip(rng.normal(0, 1.6), -4, 4))
    dx, dy = np.clip(rng.normal(0, 1.6, 2), -4, 4)
    c, s = np.cos(angle), np.sin(angle)
    u, v = c * (x - dx) + s * (y - dy), -s * (x - dx) + c * (y - dy)

    # --- light: direction in the plane, from the upper left, the lamp almost fixed
    azimuth = np.deg2rad(rng.normal(-128, 4))
    lx, ly = np.cos(azimuth), np.sin(azimuth)

    # --- the belt: a fine rubber weave, worn along its direction of travel, with some dust
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    wobble = 0.25 * fractal(rng, 1.6)
    weave = np.sin(x * 1.45 + phase_x + wobble) * np.sin(y * 1.45 + phase_y + wobble)
    belt_height = 0.32 * np.tanh(1.6 * weave) + 0.10 * fractal(rng, 0.7)
    gy, gx = np.gradient(belt_height, 1 / SS)
    wear = 0.020 * fractal(rng, 1.2, (14.0, 1.0)) + 0.016 * fractal(rng, 1.7)
    belt_tone = 0.215 - 0.085 * (gx * lx + gy * ly) + wear + (0.012 if line == "line_b" else 0.0)
    dust = smoothstep(3.5, 4.3, fractal(rng, 0.9, (1.0, 1.0), low=0.35))
    belt = np.maximum(belt_tone + 0.16 * dust, 0.02)[..., None] * np.array([0.94, 1.02, 1.0])

    # --- the part's shape as signed distances, negative inside
    body = box_distance(u, v, HALF_W, HALF_H, CORNER_R)
    fracture = np.full_like(u, -99.0)  # negative: material still there
    if style == "corner":
        sign = np.sign(np.array(HOLES[rng.integers(4)]))
        lean = np.deg2rad(rng.uniform(33, 55))
        reach = (HALF_W - 10) * np.cos(lean) + (HALF_H - 10) * np.sin(lean)
        ragged = 1.3 * fractal(rng, 1.7, low=0.04)
        fracture = sign[0] * u * np.cos(lean) + sign[1] * v * np.sin(lean) - reach + ragged
        body = np.maximum(body, fracture)
    r = np.hypot(u, v - CENTRE_Y)
    phi = np.arctan2(v - CENTRE_Y, u)
    absent = int(rng.integers(4)) if style == "hole" else -1
    holes = [(np.hypot(u - hx, v - hy) - HOLE_R, SINK_R - HOLE_R) for i, (hx, hy) in enumerate(HOLES) if i != absent]
    holes += [(np.hypot(u - px, v - py) - PIN_R, 0.7) for px, py in PINS]
    holes.append((box_distance(u - SLOT_X, v - CENTRE_Y, SLOT_R, SLOT_HALF_LEN + SLOT_R, SLOT_R), 1.0))
    holes.append((r - BORE_R, 1.6))
    opening = np.min([d for d, _ in holes], axis=0)

    # --- height of the metal: chamfers, the turned face round the bore, its groove, the engraving
    height = -0.9 * (2.4 - np.clip(-body, 0.0, 2.4))
    for d, chamfer in holes:
        height -= 0.85 * (chamfer - np.clip(d, 0.0, chamfer))
    face = inside(r - FACE_R)
    height -= 0.6 * smoothstep(FACE_R + 0.8, FACE_R - 0.8, r)
    groove = smoothstep(RING_HALF + 0.9, RING_HALF + 0.1, np.abs(r - RING_R))
    height -= 1.5 * groove
    letters = sample_mask(number, u, v - 37.5)
    height -= 0.9 * blur(letters, 0.35)
    brush = fractal(rng, 0.55, (26.0, 1.0), angle)
    fine_rings = np.interp(r, np.linspace(0, 40, 400), rng.standard_normal(400))
    rings = 0.7 * fine_rings + 0.3 * fractal(rng, 0.6)
    broken = smoothstep(-5.0, -0.5, fracture)  # the face of the fracture
    height += broken * (0.7 * fractal(rng, 1.1) - 2.2 * broken)
    scratch_cover = np.zeros_like(u)
    if kind == "scratch":
        scratch_height, scratch_cover = scratches(rng, u, v, style)
        keep = (1 - groove) * smoothstep(0.0, 1.5, opening) * smoothstep(0.0, -1.5, body)
        height += scratch_height * keep
        scratch_cover *= keep

    # --- shading of metal: it mirrors a room that is bright on the lamp's side
    gy, gx = np.gradient(height, 1 / SS)
    slope = -(gx * lx + gy * ly) / np.sqrt(1.0 + gx**2 + gy**2)
    grain = mix(0.030 * brush, 0.026 * rings, face)
    band = v - 22.0 * np.sin(azimuth) + rng.normal(0, 4)
    sheen = mix(0.13 * np.exp(-((band / 34.0) ** 2)), 0.17 * np.abs(np.cos(phi - azimuth - np.pi / 2)) ** 10, face)
    mottle = 0.014 * fractal(rng, 1.8)
    tone = 0.53 + grain + sheen + mottle + 0.42 * np.tanh(1.5 * slope)
    tone -= 0.07 * face + 0.20 * letters + 0.03 * groove
    tone = mix(tone, 0.40 + 0.30 * np.tanh(1.2 * slope) + 0.02 * brush, 0.85 * broken)
    tone += 0.20 * scratch_cover  # bare metal at the bottom of a scratch
    metal = np.clip(tone, 0.03, 1.2)[..., None] * np.array([0.985, 1.0, 1.015])

    # --- stains lie on the metal only
    if kind == "stain":
        cover, rim = stain(rng, u, v, style)
        patchy = np.clip(0.72 + 0.20 * fractal(rng, 1.3), 0.2, 1.0)
        if style == "rust":
            tint = np.array([0.86, 0.60, 0.40])
            metal = mix(metal, metal * tint + np.array([0.035, 0.012, 0.0]), cover * patchy)
            metal = mix(metal, metal * np.array([0.86, 0.74, 0.66]), 0.8 * rim * patchy)
        else:  # oil: darker, smoother, brownish, with a thin film that shimmers at the rim
            metal = mix(
                metal,
                blur(tone, 0.8)[..., None] * np.array([0.62, 0.55, 0.42]),
                (0.62 + 0.30 * np.clip(patchy, 0, 1)) * cover,
            )
            shimmer = 0.03 * np.sin(9.0 * cover[..., None] + np.array([0.0, 2.1, 4.2]))
            metal = mix(
                metal + shimmer * (4 * cover * (1 - cover))[..., None], metal * np.array([0.80, 0.78, 0.74]), 0.5 * rim
            )

    # --- the gasket: a black rubber ring in the groove, a round profile with a soft highlight
    across = np.clip((r - RING_R) / RING_HALF, -1.0, 1.0)
    bump = np.cos(phi - azimuth) * across
    rubber_tone = 0.095 + 0.05 * bump + 0.20 * np.exp(-(((bump - 0.62) / 0.20) ** 2)) + 0.006 * fractal(rng, 0.5)
    ring = inside(np.abs(r - RING_R) - RING_HALF)
    if style == "gasket":
        middle, half = rng.uniform(-np.pi, np.pi), np.deg2rad(rng.uniform(22, 32))
        away = np.abs(np.angle(np.exp(1j * (phi - middle)))) * RING_R + 0.5 * fractal(rng, 1.5) - half * RING_R
        ring *= smoothstep(-0.4, 0.4, away)
    rubber = np.maximum(rubber_tone, 0.02)[..., None] * np.array([1.0, 1.0, 1.03])

    # --- put together, with soft shadows on the belt round the part and in the openings
    solid = inside(body) * smoothstep(-0.25, 0.25, opening)
    contact = blur(solid, 1.6)
    shift = (round(-ly * 4.0 * SS), round(-lx * 4.0 * SS))
    cast = blur(np.roll(solid, shift, (0, 1)), 2.2)
    light_on_belt = (1.0 - 0.55 * cast) * (1.0 - 0.38 * contact) * (1.0 - 0.45 * inside(opening) * inside(body))
    groove_shadow = 1.0 - 0.35 * groove * blur(np.roll(ring, (shift[0] // 4, shift[1] // 4), (0, 1)), 0.7) * (1 - ring)
    image = mix(belt * light_on_belt[..., None], mix(metal * groove_shadow[..., None], rubber, ring), solid)

    # --- camera: uneven light, exposure, colour temperature, focus, sensor
    tilt_x, tilt_y = rng.normal(lx * 0.05, 0.03), rng.normal(ly * 0.05, 0.03)
    light = 1.0 + (tilt_x * x + tilt_y * y) / (SIZE / 2) - 0.05 * (x**2 + y**2) / (SIZE / 2) ** 2
    warmth = rng.normal(0.006 if line == "line_b" else -0.004, 0.010)
    gain = np.exp(rng.normal(0.0, 0.045)) * np.array([1 + warmth, 1.0, 1 - warmth])
    image = image * light[..., None] * gain
    focus = rng.uniform(0.28, 0.55)
    crop = slice(MARGIN * SS, -MARGIN * SS)
    channels = [Image.fromarray(blur(image[..., k], focus)[crop, crop].astype(np.float32)) for k in range(3)]
    pixels = np.stack([np.asarray(ch.resize((SIZE, SIZE), Image.Resampling.LANCZOS)) for ch in channels], axis=-1)
    pixels = pixels.astype(np.float64)
    pixels = np.where(pixels > 0.8, 0.8 + 0.2 * np.tanh((pixels - 0.8) / 0.2), pixels)  # highlights roll off
    noise = rng.standard_normal((SIZE, SIZE, 1)) * 0.8 + rng.standard_normal((SIZE, SIZE, 3)) * 0.6
    pixels = pixels + noise * np.sqrt(1.5e-5 + 1.2e-4 * np.maximum(pixels, 0.0))
    return Image.fromarray(np.clip(np.rint(pixels * 255.0), 0, 255).astype(np.uint8))


def make_parts(out: Path) -> None:
    """Render all parts to out/parts/line_*/ and write out/parts-labels.csv."""
    rng = np.random.default_rng([SEED, 1])
    defective = dict(zip(rng.permutation(N_PARTS)[: len(DEFECTS)].tolist(), DEFECTS, strict=True))
    on_line_b = rng.random(N_PARTS) < 0.45
    number = engraving()
    rows: list[tuple[str, int, str]] = []
    for i in range(N_PARTS):
        kind, style = defective.get(i, ("", ""))
        line = "line_b" if on_line_b[i] else "line_a"
        path = f"{line}/part_{i + 1:04d}.jpg"
        image = render_part(np.random.default_rng([SEED, 2, i]), line, kind, style, number)
        (out / "parts" / line).mkdir(parents=True, exist_ok=True)
        image.save(out / "parts" / path, quality=JPEG_QUALITY, optimize=True)
        rows.append((path, int(bool(kind)), kind))
    rows.sort()
    table = pl.DataFrame(rows, schema={"path": pl.String, "anomaly": pl.Int64, "kind": pl.String}, orient="row")
    table.write_csv(out / "parts-labels.csv", quote_style="never")


# --------------------------------------------------------------------------------------------------------------------
# Sensor log of a pump station
# --------------------------------------------------------------------------------------------------------------------

N_STEPS = 750  # every quarter of an hour, four machines: 3000 rows
MODES = ("idle", "normal", "boost")
# The chance of the next mode, given the present one.
MODE_STEPS = np.array([[0.94, 0.06, 0.00], [0.035, 0.935, 0.03], [0.00, 0.08, 0.92]])


@dataclass(frozen=True)
class Machine:
    """A pump's own constants."""

    name: str
    flow_per_rpm: float
    warmth: float
    vibration: float
    amps_idle: float


MACHINES = (
    Machine("P-101", 0.212, 0.0, 0.90, 4.2),
    Machine("P-102", 0.208, 2.5, 1.05, 4.5),
    Machine("P-103", 0.216, -1.5, 0.85, 4.1),
    Machine("P-104", 0.204, 4.0, 1.20, 4.8),
)


@dataclass(frozen=True)
class Fault:
    """A fault of one machine over some consecutive rows of its own."""

    kind: str
    machine: int
    rows: int
    mode: str  # the mode in which it shows, at its start


FAULTS = (
    Fault("bearing_wear", 3, 12, "normal"),
    Fault("bearing_wear", 1, 6, "boost"),
    Fault("leak", 0, 9, "normal"),
    Fault("leak", 2, 4, "boost"),
    Fault("stuck_sensor", 2, 7, "normal"),
    Fault("electrical", 1, 2, "normal"),
    Fault("electrical", 0, 2, "boost"),
    Fault("electrical", 3, 2, "normal"),
    Fault("clogged_filter", 1, 8, "normal"),
    Fault("unit_error", 0, 5, "normal"),
    Fault("unit_error", 3, 3, "boost"),
)


def simulate(rng: np.random.Generator, machine: Machine, hours: Arr) -> dict[str, NDArray[np.generic]]:
    """One pump's healthy columns."""
    n = len(hours)
    ambient = 19.0 + 4.5 * np.sin((hours - 9.0) / 24.0 * 2 * np.pi) + 0.01 * hours
    mode, drift = 1, 0.0
    modes = np.zeros(n, dtype=np.int64)
    load, temp = np.zeros(n), np.zeros(n)
    heat = 38.0 + machine.warmth
    for i in range(n):
        mode = int(rng.choice(3, p=MODE_STEPS[mode]))
        drift = 0.9 * drift + rng.normal(0, 2.2)
        level = (12.0 + 0.25 * drift, 56.0 + 0.9 * drift, 84.0 + 0.5 * drift)[mode]
        modes[i], load[i] = mode, np.clip(level + rng.normal(0, 1.2), 2.0, 100.0)
        heat += 0.22 * (ambient[i] + 14.0 + machine.warmth + 0.36 * load[i] - heat)  # the motor warms up slowly
        temp[i] = heat
    running = modes > 0
    valve = running.copy()  # an idle pump turns slowly against a closed valve
    rpm = 520.0 + 11.2 * load + rng.normal(0, 9.0, n)
    flow = machine.flow_per_rpm * rpm * np.where(valve, 1.0, 0.03) * (1 + rng.normal(0, 0.012, n))
    pressure = 0.8 + 3.9 * (rpm / 1500.0) ** 2 - 0.9 * (flow / 320.0) ** 2 + rng.normal(0, 0.04, n)
    vibration = machine.vibration * (0.35 + 0.75 * rpm / 1000.0) * np.exp(rng.normal(0, 0.07, n))
    current = machine.amps_idle + 0.165 * load + 0.0006 * load**2 + rng.normal(0, 0.18, n)
    return {
        "mode": np.array(MODES)[modes],
        "load_pct": load,
        "rpm": rpm,
        "flow_l_min": flow,
        "pressure_bar": pressure,
        "motor_temp_c": temp + rng.normal(0, 0.35, n),
        "vibration_mm_s": vibration,
        "current_a": current,
        "valve_open": valve,
    }


def apply_fault(rng: np.random.Generator, columns: dict[str, NDArray[np.generic]], at: slice, kind: str) -> None:
    """Change the columns of one machine in place, over the rows of one fault."""
    n = at.stop - at.start
    ramp = np.linspace(0.55, 1.0, n)

    def put(name: str, value: Arr | float) -> None:
        columns[name][at] = value

    def get(name: str) -> Arr:
        return columns[name][at].astype(np.float64)

    if kind == "bearing_wear":  # shakes and heats up, worse with time, and takes some more current
        put("vibration_mm_s", get("vibration_mm_s") * (1.8 + 3.2 * ramp) * np.exp(rng.normal(0, 0.10, n)))
        put("motor_temp_c", get("motor_temp_c") + 10.0 + 18.0 * ramp)
        put("current_a", get("current_a") * (1.0 + 0.10 * ramp))
    elif kind == "leak":  # behind the flow meter: more flow, and little pressure for it
        put("flow_l_min", get("flow_l_min") * (1.08 + 0.08 * ramp))
        put("pressure_bar", get("pressure_bar") * (0.62 - 0.22 * ramp))
    elif kind == "stuck_sensor":  # the flow meter's register reads all ones
        put("flow_l_min", 655.35)
    elif kind == "electrical":  # a phase fault
        put("current_a", get("current_a") * rng.uniform(2.0, 2.6, n))
        put("vibration_mm_s", get("vibration_mm_s") * rng.uniform(1.2, 1.5, n))
    elif kind == "clogged_filter":  # starves the pump: less flow, higher head, more load
        put("flow_l_min", get("flow_l_min") * (0.75 - 0.35 * ramp))
        put("pressure_bar", get("pressure_bar") + 0.5 + 0.9 * ramp)
        put("vibration_mm_s", get("vibration_mm_s") * (1.15 + 0.35 * ramp))
    elif kind == "unit_error":  # a gateway sends Fahrenheit
        put("motor_temp_c", get("motor_temp_c") * 1.8 + 32.0)
    else:
        raise ValueError(kind)


def make_sensors(out: Path) -> None:
    """Write out/sensors.parquet and out/sensors-labels.csv."""
    rng = np.random.default_rng([SEED, 3])
    hours = np.arange(N_STEPS) / 4.0
    data = [simulate(rng, m, hours) for m in MACHINES]
    kinds = [np.full(N_STEPS, "", dtype="<U16") for _ in MACHINES]
    for fault in FAULTS:
        modes, taken = data[fault.machine]["mode"], kinds[fault.machine]
        starts = [
            i
            for i in range(40, N_STEPS - fault.rows)
            if (modes[i : i + fault.rows] == fault.mode).all() and (taken[i - 4 : i + fault.rows + 4] == "").all()
        ]
        start = int(rng.choice(starts))
        at = slice(start, start + fault.rows)
        apply_fault(rng, data[fault.machine], at, fault.kind)
        taken[at] = fault.kind

    begin = datetime(2024, 3, 4, 0, 0)
    frames = []
    for k, (machine, columns, kind) in enumerate(zip(MACHINES, data, kinds, strict=True)):
        late = rng.integers(0, 12, N_STEPS) + 15 * k  # the machines are polled in turn
        times = [begin + timedelta(minutes=15 * i, seconds=int(late[i])) for i in range(N_STEPS)]
        frame = pl.DataFrame({"time": times, "machine": [machine.name] * N_STEPS, **columns, "kind": kind})
        for name in ("pressure_bar", "vibration_mm_s"):  # lost readings; the faulty rows keep theirs
            lost = (rng.random(N_STEPS) < 0.01) & (kind == "")
            frame = frame.with_columns(pl.when(pl.Series(lost)).then(None).otherwise(pl.col(name)).alias(name))
        frames.append(frame)
    decimals = {"load_pct": 1, "rpm": 0, "flow_l_min": 2, "pressure_bar": 2, "motor_temp_c": 1}
    decimals |= {"vibration_mm_s": 2, "current_a": 2}
    log = (
        pl.concat(frames)
        .sort("time")
        .with_row_index("n", offset=1)
        .with_columns(
            pl.format("R{}", pl.col("n").cast(pl.String).str.zfill(5)).alias("row_id"),
            pl.lit("2.4.1").alias("firmware"),
            pl.col("time").cast(pl.Datetime("us")),
            *(pl.col(name).round(digits) for name, digits in decimals.items()),
        )
    )
    labels = log.select(pl.col("row_id").alias("id"), (pl.col("kind") != "").cast(pl.Int64).alias("anomaly"), "kind")
    labels.write_csv(out / "sensors-labels.csv", quote_style="never")
    log.select("row_id", "time", "machine", pl.exclude("n", "row_id", "time", "machine", "kind")).write_parquet(
        out / "sensors.parquet", compression="zstd", compression_level=10, row_group_size=len(log)
    )


def main(arguments: list[str]) -> None:
    """Make everything."""
    out = Path(arguments[0]) if arguments else Path("samples")
    out.mkdir(parents=True, exist_ok=True)
    make_parts(out)
    make_sensors(out)


if __name__ == "__main__":
    main(sys.argv[1:])
