//! Blocks of keys by queries, of which a head's gradients are sums.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::dropout::{AttentionDropout, Factors, SlotFactors};
use super::super::layout::Rule;
use super::super::rows::Pack;
use super::{BLOCK, MIN_COLUMNS, Scratch};
use crate::bf16::pair_row;
use crate::gemm::tile::{
    Dot, MOST_COLUMNS, MOST_ROWS, multiply_vectors, tile_columns, tile_rows, tile_vectors,
};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd};

/// The packed inputs of a head, and the sums of its gradients; see [`Scratch`]. Products read words of a kind.
pub(super) struct Blocks<'a, D> {
    pub(super) head: usize,
    /// The first query's row.
    pub(super) first: usize,
    /// Number of queries.
    count: usize,
    dim: usize,
    padded: usize,
    pub(super) scale: f32,
    dropout: Option<&'a AttentionDropout<'a>>,
    /// Where keys are slots: what their scores are, the first query's place in its sequence, and the gradient of the bias.
    pub(super) rule: Option<(&'a Rule<'a>, usize, &'a mut [f64])>,
    key_strips: &'a [f32],
    value_strips: &'a [f32],
    query_panels: &'a [f32],
    dout_panels: &'a [f32],
    key_rows: &'a [f32],
    query_rows: &'a [f32],
    dout_rows: &'a [f32],
    lse: &'a [f32],
    delta: &'a [f32],
    pub(super) dq: &'a mut [f32],
    pub(super) dk: &'a mut [f32],
    pub(super) dv: &'a mut [f32],
    weights: &'a mut [f32],
    ds: &'a mut [f32],
    factors: &'a mut [f32],
    strip: &'a mut [f32],
    rounded: &'a mut [f32],
    paired: &'a mut [f32],
    words: PhantomData<D>,
}

impl<'a, D: Dot> Blocks<'a, D> {
    /// Of inputs that are laid out.
    #[inline(always)]
    pub(super) fn new<S: Simd>(
        _simd: S,
        scratch: &'a mut Scratch,
        count: usize,
        dim: usize,
        dropout: Option<&'a AttentionDropout<'a>>,
    ) -> Self {
        let padded = dim.next_multiple_of(S::LANES);
        let (height, width) = (tile_rows::<S>(), tile_columns::<S>());
        let dq = scratch.dq.at_least(count * padded);
        dq.fill(0.0);
        Self {
            head: 0,
            first: 0,
            count,
            dim,
            padded,
            scale: 1.0,
            dropout,
            rule: None,
            key_strips: &scratch.key_strips,
            value_strips: &scratch.value_strips,
            query_panels: &scratch.query_panels,
            dout_panels: &scratch.dout_panels,
            key_rows: &scratch.key_rows,
            query_rows: &scratch.query_rows,
            dout_rows: &scratch.dout_rows,
            lse: &scratch.lse,
            delta: &scratch.delta,
            dq,
            dk: scratch.dk.at_least(BLOCK * padded),
            dv: scratch.dv.at_least(BLOCK * padded),
            weights: scratch.weights.at_least(BLOCK * BLOCK),
            ds: scratch.ds.at_least(BLOCK * BLOCK),
            factors: match dropout {
                Some(_) => scratch.factors.at_least(BLOCK * width),
                None => &mut [],
            },
            strip: scratch.strip.at_least(BLOCK * height),
            rounded: scratch.rounded.at_least(height * width / D::VALUES),
            paired: match D::VALUES {
                1 => &mut [],
                _ => scratch.paired.at_least(BLOCK.div_ceil(2) * width),
            },
            words: PhantomData,
        }
    }

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
            let mut ds = &self.ds[offset..][..range.len() * columns];
            if const { D::VALUES == 2 } {
                ds = pair_keys(simd, ds, columns, self.paired);
            }
            // Blocks, and what a panel sees of them, start at whole words.
            let words = range.start / D::VALUES..range.end.div_ceil(D::VALUES);
            for at in (0..count).step_by(height) {
                simd.vectorize(Accumulate::<D> {
                    rows: height.min(count - at),
                    a: (&ds[at..], columns),
                    b: &self.key_rows[words.start * padded..words.end * padded],
                    padded,
                    to: &mut self.dq[(query + at) * padded..],
                    words: PhantomData,
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
            let words = |queries: usize| queries.div_ceil(D::VALUES);
            let span = words(queries.start + from)..words(queries.start + end);
            for (turned, b, to) in [
                (&*self.weights, self.dout_rows, &mut *self.dv),
                (&*self.ds, self.query_rows, &mut *self.dk),
            ] {
                let strip = &mut self.strip[..span.len() * height];
                for (panel, strip) in (low..).zip(strip.chunks_mut(words(width) * height)) {
                    let count = width.min(end - panel * width);
                    let columns = count.next_multiple_of(S::LANES);
                    let block = &turned[panel * width * BLOCK + at * columns..];
                    if const { D::VALUES == 1 } {
                        simd.vectorize(Pack::new((block, columns), rows, strip, height));
                        continue;
                    }
                    let stride = columns / 2;
                    let rounded = &mut self.rounded[..rows * stride];
                    for (from, to) in (block.chunks(columns)).zip(rounded.chunks_exact_mut(stride))
                    {
                        pair_row(simd, from, to);
                    }
                    simd.vectorize(Pack::new((rounded, stride), rows, strip, height));
                }
                simd.vectorize(Accumulate::<D> {
                    rows,
                    a: (strip, height),
                    b: &b[span.start * padded..span.end * padded],
                    padded,
                    to: &mut to[at * padded..],
                    words: PhantomData,
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
        let (words, columns) = (
            self.dim.div_ceil(D::VALUES),
            count.next_multiple_of(S::LANES),
        );
        let len = keys.len() * columns;
        let weights = &mut self.weights[offset..][..len];
        let ds = &mut self.ds[offset..][..len];
        for (strips, panels, to) in [
            (self.key_strips, self.query_panels, &mut *weights),
            (self.value_strips, self.dout_panels, &mut *ds),
        ] {
            let b = &panels[query * words..][..words * width];
            for at in (0..keys.len()).step_by(height) {
                let strip = &strips[(keys.start + at) * words..][..words * height];
                let rows = height.min(keys.len() - at);
                let vectors = columns / S::LANES;
                let to = &mut to[at * columns..];
                let a = (strip, height);
                multiply_vectors::<S, D>(simd, vectors, rows, a, (b, width), words, to);
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

/// Joins rows of `columns` values two by two.
#[inline(always)]
fn pair_keys<'a, S: Simd>(simd: S, rows: &[f32], columns: usize, to: &'a mut [f32]) -> &'a [f32] {
    let to = &mut to[..(rows.len() / columns).div_ceil(2) * columns];
    for (pair, to) in rows.chunks(2 * columns).zip(to.chunks_exact_mut(columns)) {
        let (first, second) = pair.split_at(columns);
        for at in (0..columns).step_by(S::LANES) {
            let second = match second.is_empty() {
                true => simd.zero(),
                false => simd.load(&second[at..]),
            };
            simd.store(
                &mut to[at..],
                simd.pair_bf16(simd.load(&first[at..]), second),
            );
        }
    }
    to
}

/// `to[row][D] += Σ a[k][row]·b[k][D]`, a tile of rows; `b` has whole rows.
struct Accumulate<'a, D> {
    rows: usize,
    a: (&'a [f32], usize),
    b: &'a [f32],
    padded: usize,
    to: &'a mut [f32],
    words: PhantomData<D>,
}

impl<D: Dot> Kernel for Accumulate<'_, D> {
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
            multiply_vectors::<S, D>(simd, vectors, self.rows, self.a, b, depth, &mut tile);
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
