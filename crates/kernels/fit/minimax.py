"""The coefficients of src/simd/math.rs: minimax fits of the relative error, rounded to f32 one by one.

Needs mpmath, numpy and scipy: `python minimax.py`. Each fit prints its coefficients and the relative error that
the rounded coefficients leave in exact arithmetic (as a power of two); rounding errors of the evaluation
come on top and are measured over all f32 by the ignored tests of math.rs.
"""
import mpmath as mp
import numpy as np
from scipy.special import erfcx

mp.mp.dps = 50


def chebyshev_points(a, b, n):
    return [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]


def extrema(error, a, b, count):
    """The places of the `count` alternating extrema of `error`, from a dense scan."""
    xs = chebyshev_points(a, b, 120 * count)
    es = [error(x) for x in xs]
    runs = []
    for x, e in zip(xs, es):
        if runs and (e > 0) == (runs[-1][1] > 0):
            if abs(e) > abs(runs[-1][1]):
                runs[-1] = (x, e)
        else:
            runs.append((x, e))
    while len(runs) > count:
        runs.pop(0 if abs(runs[0][1]) < abs(runs[-1][1]) else -1)
    return runs


def remez(f, basis, fixed, a, b, weight=None, rounds=12):
    """Minimax of weight·(f − fixed − Σ cᵢ·basisᵢ) on [a, b], by default weight = 1/f.

    Returns the coefficients and the largest error."""
    weight = weight or (lambda x: 1 / f(x))
    n = len(basis)
    if n == 0:
        grid = chebyshev_points(a, b, 4000)
        return [], max(abs(weight(x) * (f(x) - fixed(x))) for x in grid)
    points = chebyshev_points(a, b, n + 1)
    largest = None
    for _ in range(rounds):
        m = mp.matrix(n + 1, n + 1)
        r = mp.matrix(n + 1, 1)
        for i, x in enumerate(points):
            for j, g in enumerate(basis):
                m[i, j] = g(x)
            m[i, n] = (-1) ** i / weight(x)
            r[i] = f(x) - fixed(x)
        c = mp.lu_solve(m, r)
        c = [c[j] for j in range(n)]
        error = lambda x: weight(x) * (f(x) - fixed(x) - sum(k * g(x) for k, g in zip(c, basis)))
        runs = extrema(error, a, b, n + 1)
        largest = max(abs(e) for _, e in runs)
        if len(runs) < n + 1 or largest < min(abs(e) for _, e in runs) * mp.mpf("1.0001"):
            break
        points = [x for x, _ in runs]
    return c, largest


def rounded(f, basis, fixed, a, b, weight=None):
    """As `remez`, with coefficients that are f32: each is rounded and the rest fitted again."""
    done = []
    basis = list(basis)
    while basis:
        c, _ = remez(f, basis, fixed, a, b, weight)
        value = mp.mpf(float(np.float32(float(c[0]))))
        done.append(value)
        g, old = basis.pop(0), fixed
        fixed = lambda x, g=g, old=old, value=value: old(x) + value * g(x)
    _, error = remez(f, [], fixed, a, b, weight)
    return done, error


def show(name, c, error):
    print(f"{name}: 2^{float(mp.log(error, 2)):.2f}")
    for value in c:
        print(f"    {np.float32(float(value))!r} {np.float32(float(value)).view(np.uint32):#010x}")


def power(n):
    return lambda x: mp.mpf(x) ** n


def exp():
    """e^r = 1 + r + c₂r² + … + c₆r⁶ for |r| ≤ ln 2/2 (and a little beyond, where rounding may lead)."""
    end = mp.log(2) / 2 * mp.mpf("1.001")
    fixed = lambda r: 1 + r
    show("exp", *rounded(mp.exp, [power(i) for i in range(2, 7)], fixed, -end, end))


def tanh():
    """(tanh z − z)/z³ in z², for z up to 0.56, with the error relative to tanh z."""
    ratio = lambda s: mp.tanh(mp.sqrt(s)) / mp.sqrt(s)
    f = lambda s: (ratio(s) - 1) / s
    a, b = mp.mpf("1e-4"), mp.mpf("0.56") ** 2
    show("tanh", *rounded(f, [power(i) for i in range(5)], lambda s: mp.mpf(0), a, b, lambda s: s / ratio(s)))


def gelu():
    """n(z)/d(z) = c·e^(−z²/2)/Φ(−z) − z with c = 1/√(2π), for z from 0 to where z·Φ(−z) rounds to 0.

    Then Φ(−z) = c·e^(−z²/2)·d/(z·d + n); the error is that of Φ(−z), relative. n(0) = 2c·d(0) makes it exact
    at 0, c being the f32; d(0) is near 1, where rounding is relatively finest, and such that n(0) is as good
    as an f32. First n/d by Lawson's weights, then for a few d(0) d rounded and n fitted to it, then both in
    single ULPs while that helps. Last e^(−r/2)·c = c − r·c/2 + …, for the same c.
    """
    c = float(np.float32(1 / np.sqrt(2 * np.pi)))
    end, m, n = 14.5, 4, 4
    k = np.arange(3000)
    z = end / 2 - end / 2 * np.cos(np.pi * (k + 0.5) / len(k))
    g = c / (0.5 * erfcx(z / np.sqrt(2))) - z
    g_of = lambda z: c * 2 / (mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))) - z
    powers = np.vander(z, max(m, n) + 1, increasing=True)
    w, d, best = np.ones(len(k)), np.ones(len(k)), (np.inf, None)
    for _ in range(2000):
        left, right = powers[:, 1 : m + 1], -powers[:, 1 : n + 1] * g[:, None]
        system = np.concatenate([left, right], 1) / (d * (z + g))[:, None]
        target = (g - 2 * c) / (d * (z + g))
        scale = np.abs(system).max(0)
        x = np.linalg.lstsq(system / scale * np.sqrt(w)[:, None], np.sqrt(w) * target, rcond=None)[0] / scale
        d = 1 + powers[:, 1 : n + 1] @ x[m:]
        error = np.abs((2 * c + powers[:, 1 : m + 1] @ x[:m]) / d - g) / (z + g)
        if d.min() > 0 and error.max() < best[0]:
            best = (error.max(), x)
        w = w * (error / error.max() + 1e-3)
        w /= w.sum()
    print(f"gelu before rounding: 2^{np.log2(best[0]):.2f}")

    error = lambda x: (np.abs((powers[:, : m + 1] @ x[: m + 1]) / (powers[:, : n + 1] @ x[m + 1 :]) - g) / (z + g)).max()
    free = [i for i in range(m + n + 2) if i not in (0, m + 1)]
    steps = [(i, u, j, v) for i in free for j in free if i < j for u in (-2, -1, 0, 1, 2) for v in (-2, -1, 0, 1, 2)]
    starts = np.arange(0.92, 0.97, 2.0**-24).astype(np.float32).astype(np.float64)
    starts = starts[np.argsort(np.abs((2 * c * starts).astype(np.float32) / (2 * c * starts) - 1))[:8]]
    least, kept = np.inf, None
    for d0 in starts:
        n0 = float(np.float32(2 * c * d0))
        d = [mp.mpf(d0)] + [mp.mpf(float(np.float32(v * d0))) for v in best[1][m:]]
        d_of = lambda z: mp.polyval(d[::-1], z)
        weight = lambda z: 1 / (d_of(z) * (z + g_of(z)))
        p, _ = rounded(
            lambda z: g_of(z) * d_of(z), [power(i) for i in range(1, m + 1)], lambda z: mp.mpf(n0),
            mp.mpf("1e-6"), mp.mpf(end), weight,
        )
        x = np.array([n0] + [float(v) for v in p + d], dtype=np.float32)
        e, better = error(x.astype(np.float64)), True
        while better:
            better = False
            for i, u, j, v in steps:
                y = x.copy()
                for place, step in ((i, u), (j, v)):
                    y[place] = (y[place : place + 1].view(np.int32) + np.int32(step)).view(np.float32)[0]
                moved = error(y.astype(np.float64))
                if moved < e * 0.9999:
                    e, x, better = moved, y, True
        if e < least:
            least, kept = e, x
    show("gelu numerator", kept[: m + 1], least)
    show("gelu denominator", kept[m + 1 :], least)

    end = mp.log(2) * mp.mpf("1.001")
    f = lambda r: c * mp.exp(-r / 2)
    fixed = lambda r: c - r * c / 2
    show("gelu exponential", *rounded(f, [power(i) for i in range(2, 7)], fixed, -end, end))


if __name__ == "__main__":
    exp()
    tanh()
    gelu()
