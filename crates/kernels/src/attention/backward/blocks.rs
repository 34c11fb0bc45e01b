//! Blocks of keys by queries, of which a head's gradients are sums.

use std::ops::Range;

use super::super::dropout::{AttentionDropout, Factors, SlotFactors};
use super::super::layout::Rule;
use super::{BLOCK, MIN_COLUMNS, Pack};
use crate::gemm::tile::{
    F32Word, MOST_COLUMNS, MOST_ROWS, multiply_vectors, tile_columns, tile_rows, tile_vectors,
};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd};

/// The packed inputs of a head, and the sums of its gradients; see [`Scratch`](super::Scratch).
pub(super) struct Blocks<'a> {
    pub(super) head: usize,
    /// The sequence's first row, and how many it has.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) dim: usize,
    pub(super) padded: usize,
    pub(super) scale: f32,
    pub(super) dropout: Option<&'a AttentionDropout<'a>>,
    /// Where keys are slots: what their scores are, the first query's place in its sequence, and the gradient of the bias.
    pub(super) rule: Option<(&'a Rule<'a>, usize, &'a mut [f64])>,
    pub(super) key_strips: &'a [f32],
    pub(super) value_strips: &'a [f32],
    pub(super) query_panels: &'a [f32],
    pub(super) dout_panels: &'a [f32],
    pub(super) key_rows: &'a [f32],
    pub(super) query_rows: &'a [f32],
    pub(super) dout_rows: &'a [f32],
    pub(super) lse: &'a [f32],
    pub(super) delta: &'a [f32],
    pub(super) dq: &'a mut [f32],
    pub(super) dk: &'a mut [f32],
    pub(super) dv: &'a mut [f32],
    pub(super) weights: &'a mut [f32],
    pub(super) ds: &'a mut [f32],
    pub(super) factors: &'a mut [f32],
    pub(super) strip: &'a mut [f32],
}

impl Blocks<'_> {
    /// Adds what a block of keys and queries has of the gradients.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&mut self, simd: S, keys: Range<usize>, queries: Range<usize>) {
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let padded = self.padded;
        let panels = queries.len().div_ceil(width);
        // Of each panel the keys that it sees.
        let mut seen = [const { 0..0 }; BLOCK / MIN_COLUMNS];
        for (panel, seen) in seen[..panels].iter_mut().enumerate() {
            let query = queries.start + panel * width;
            let count = width.min(self.count - query);
            let columns = count.next_multiple_of(S::LANES);
            let range = match &self.rule {
                Some((rule, place, _)) => rule.seen(keys.clone(), place + query, count, height),
                None => keys.clone(),
            };
            *seen = range.clone();
            if range.is_empty() {
                continue;
            }
            let offset = panel * width * BLOCK + (range.start - keys.start) * columns;
            self.weigh(simd, range.clone(), query, count, offset);
            let ds = &self.ds[offset..][..range.len() * columns];
            for at in (0..count).step_by(height) {
                simd.vectorize(Accumulate {
                    rows: height.min(count - at),
                    a: (&ds[at..], columns),
                    b: &self.key_rows[range.start * padded..range.end * padded],
                    padded,
                    to: &mut self.dq[(query + at) * padded..],
                });
            }
        }
        for at in (0..keys.len()).step_by(height) {
            let rows = height.min(keys.len() - at);
            // The panels that see the strip lie side by side.
            let sees = |seen: &Range<usize>| seen.contains(&(keys.start + at));
            let Some(low) = seen[..panels].iter().position(sees) else {
                continue;
            };
            let high = seen[low..panels]
                .iter()
                .take_while(|seen| sees(seen))
                .count()
                + low;
            let (from, end) = (low * width, queries.len().min(high * width));
            for (turned, b, to) in [
                (&*self.weights, self.dout_rows, &mut *self.dv),
                (&*self.ds, self.query_rows, &mut *self.dk),
            ] {
                let strip = &mut self.strip[..(end - from) * height];
                for (panel, strip) in (low..).zip(strip.chunks_mut(width * height)) {
                    let columns = (strip.len() / height).next_multiple_of(S::LANES);
                    simd.vectorize(Pack {
                        from: &turned[panel * width * BLOCK + at * columns..],
                        stride: columns,
                        count: rows,
                        to: strip,
                        width: height,
                    });
                }
                simd.vectorize(Accumulate {
                    rows,
                    a: (strip, height),
                    b: &b[(queries.start + from) * padded..(queries.start + end) * padded],
                    padded,
                    to: &mut to[at * padded..],
                });
            }
        }
    }

    /// The (dropped) weights of some keys for a panel of queries, and the gradients of their scores, from `offset` on.
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        simd: S,
        keys: Range<usize>,
        query: usize,
        count: usize,
        offset: usize,
    ) {
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let (dim, columns) = (self.dim, count.next_multiple_of(S::LANES));
        let len = keys.len() * columns;
        let weights = &mut self.weights[offset..][..len];
        let ds = &mut self.ds[offset..][..len];
        for (strips, panels, to) in [
            (self.key_strips, self.query_panels, &mut *weights),
            (self.value_strips, self.dout_panels, &mut *ds),
        ] {
            let b = &panels[query * dim..][..dim * width];
            for at in (0..keys.len()).step_by(height) {
                let strip = &strips[(keys.start + at) * dim..][..dim * height];
                let rows = height.min(keys.len() - at);
                let vectors = columns / S::LANES;
                let to = &mut to[at * columns..];
                multiply_vectors::<S, F32Word>(
                    simd,
                    vectors,
                    rows,
                    (strip, height),
                    (b, width),
                    dim,
                    to,
                );
            }
        }
        if let Some((rule, place, _)) = &self.rule {
            rule.mask(keys.start, place + query, count, columns, weights);
        }
        let dropped = self.dropout.is_some();
        if let Some(dropout) = self.dropout {
            let mut names = [0; MOST_COLUMNS];
            for (i, name) in names[..count].iter_mut().enumerate() {
                *name = dropout.name(self.first + query + i);
            }
            let (head, names, mask) = (self.head, &names, &mut self.factors[..len]);
            match &self.rule {
                None => simd.vectorize(Factors {
                    dropout,
                    head,
                    first: keys.start,
                    names,
                    columns,
                    mask,
                }),
                Some((rule, ..)) => simd.vectorize(SlotFactors {
                    dropout,
                    head,
                    slots: &rule.slots.keys[keys.clone()],
                    names,
                    columns,
                    mask,
                }),
            }
        }
        let scale = simd.splat(self.scale);
        for at in (0..columns).step_by(S::LANES) {
            let lse = simd.load(&self.lse[query + at..]);
            let delta = simd.load(&self.delta[query + at..]);
            let mut place = at;
            while place < len {
                let score = simd.load(&weights[place..]);
                let weight = exp(simd, simd.sub(simd.mul(score, scale), lse));
                let mut dp = simd.load(&ds[place..]);
                let mut kept = weight;
                if dropped {
                    let factor = simd.load(&self.factors[place..]);
                    dp = simd.mul(dp, factor);
                    kept = simd.mul(weight, factor);
                }
                let gradient = simd.mul(simd.mul(weight, scale), simd.sub(dp, delta));
                simd.store(&mut weights[place..], kept);
                simd.store(&mut ds[place..], gradient);
                place += columns;
            }
        }
        if let Some((rule, place, dbias)) = &mut self.rule {
            rule.add_bias_gradient(keys.start, *place + query, count, columns, ds, dbias);
        }
    }
}

/// `to[row][D] += Σ a[k][row]·b[k][D]`, a tile of rows; `b` has whole rows.
struct Accumulate<'a> {
    rows: usize,
    a: (&'a [f32], usize),
    b: &'a [f32],
    padded: usize,
    to: &'a mut [f32],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let padded = self.padded;
        let depth = self.b.len() / padded;
        let mut tile = [0.0; MOST_ROWS * MOST_COLUMNS];
        let mut column = 0;
        while column < padded {
            // Four vectors are two pairs: three and one would leave a lean tile.
            let vectors = match (padded - column) / S::LANES {
                4 => 2,
                left => left.min(tile_vectors::<S>()),
            };
            let b = (&self.b[column..], padded);
            multiply_vectors::<S, F32Word>(simd, vectors, self.rows, self.a, b, depth, &mut tile);
            for r in 0..self.rows {
                for v in 0..vectors {
                    let to = &mut self.to[r * padded + column + v * S::LANES..];
                    let new = simd.load(&tile[(r * vectors + v) * S::LANES..]);
                    let sum = simd.add(simd.load(to), new);
                    simd.store(to, sum);
                }
            }
            column += vectors * S::LANES;
        }
    }
}
