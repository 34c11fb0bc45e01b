//! Attention under any mask and with a bias by distance, on the tiles of the dense kernel, over the slots that a chunk of
//! queries has its keys in (`layout.rs`). A tile of queries walks over the slots that it may see; of those, slots that a
//! query does not see score −∞.

use std::cell::RefCell;
use std::marker::PhantomData;

use super::super::AttentionInputs;
use super::super::dropout::{AttentionDropout, SlotFactors};
use super::super::layout::{Chunk, Rule, Slots, chunks};
use super::super::rows::{Rows, Source};
use super::{BLOCK_KEYS, Place, Scratch, TASK_QUERIES, Tile};
use crate::Exec;
use crate::exec::SharedMut;
use crate::gemm::PackedFormat;
use crate::gemm::tile::{
    Bf16Pair, Dot, F32Word, MOST_COLUMNS, tile_columns, tile_rows, tile_vectors,
};
use crate::simd::{Kernel, Simd};

/// Below any score: a maximum to start from whose difference to −∞ is no NaN.
const LOWEST: f32 = -1e30;

/// [`attention`](super::attention) of inputs that are checked.
pub(super) fn run(
    exec: &Exec,
    precision: PackedFormat,
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    out: &SharedMut<'_>,
    lse: Option<&SharedMut<'_>>,
) {
    let heads = inputs.shape.heads;
    let chunks = chunks(&inputs, TASK_QUERIES);
    exec.parallel(chunks.len() * heads, |task| {
        SCRATCH.with_borrow_mut(|(scratch, slots)| {
            let part = Part {
                inputs,
                chunk: &chunks[task / heads],
                head: task % heads,
                dropout,
                out,
                lse,
                scratch,
                slots,
            };
            let isa = exec.isa();
            match precision {
                PackedFormat::Bf16 if isa.multiplies_bf16() => {
                    isa.run_bf16(Task::<Bf16Pair>(part, PhantomData));
                }
                _ => isa.run(Task::<F32Word>(part, PhantomData)),
            }
        });
    });
}

thread_local! {
    static SCRATCH: RefCell<(Scratch, Slots)> =
        RefCell::new((Scratch::new(), Slots::default()));
}

/// One head of a chunk of queries.
struct Part<'a> {
    inputs: AttentionInputs<'a>,
    chunk: &'a Chunk,
    head: usize,
    dropout: Option<&'a AttentionDropout<'a>>,
    out: &'a SharedMut<'a>,
    lse: Option<&'a SharedMut<'a>>,
    scratch: &'a mut Scratch,
    slots: &'a mut Slots,
}

/// A part by vectors.
struct Task<'a, D>(Part<'a>, PhantomData<D>);

impl<D: Dot> Kernel for Task<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let part = self.0;
        let (inputs, chunk) = (&part.inputs, part.chunk);
        let dim = inputs.shape.head_dim;
        let column = part.head * dim;
        let columns = tile_columns::<S>();
        let window = (part.slots).lay_out(inputs, chunk, part.head, tile_rows::<S>());
        let rule = Rule {
            slots: part.slots,
            window,
        };
        let slots = &rule.slots.keys[..];
        let rows = Rows::Slots(chunk.keys.start, slots);
        let turns = inputs.rotary.map(|table| (table, chunk.keys.start));
        let turned = |of| Source { of, column, turns };
        let (k, v) = (turned(inputs.k), Source::plain(inputs.v, column));
        let mut tile = Tile::new::<S, D>(simd, part.scratch, (k, v, rows, slots.len()), dim);
        tile.scale = inputs.shape.scale;
        tile.head = part.head;
        tile.dropout = part.dropout;
        for first in chunk.queries.clone().step_by(columns) {
            let count = columns.min(chunk.queries.end - first);
            tile.take_queries::<S, D>(simd, turned(inputs.q), first, count);
            let walk = Walk {
                rule: &rule,
                place: chunk.place + first - chunk.queries.start,
                count,
            };
            let (max, totals) = match count.div_ceil(S::LANES) {
                1 => walk.run::<S, D, 1>(simd, &mut tile),
                2 => walk.run::<S, D, 2>(simd, &mut tile),
                _ if const { tile_vectors::<S>() >= 3 } => walk.run::<S, D, 3>(simd, &mut tile),
                count => unreachable!("{count} vectors of queries"),
            };
            let place = Place {
                first,
                count,
                head: part.head,
                heads: inputs.shape.heads,
            };
            tile.put(simd, &place, (&max, &totals), part.out, part.lse);
        }
    }
}

/// A tile of queries on its way over the slots.
struct Walk<'a> {
    rule: &'a Rule<'a>,
    /// The first query's place in its sequence.
    place: usize,
    count: usize,
}

impl Walk<'_> {
    #[inline(always)]
    fn run<S: Simd, D: Dot, const V: usize>(
        &self,
        simd: S,
        tile: &mut Tile<'_>,
    ) -> ([f32; MOST_COLUMNS], [f32; MOST_COLUMNS]) {
        let (place, count, columns) = (self.place, self.count, V * S::LANES);
        let padded = tile.dim.next_multiple_of(S::LANES);
        let mut max = [simd.splat(LOWEST); V];
        let mut total = [simd.zero(); V];
        tile.sums[..columns * padded].fill(0.0);
        for part in self.rule.parts() {
            let span = self.rule.seen(part, place, count, tile_rows::<S>());
            for first in span.clone().step_by(BLOCK_KEYS) {
                let keys = BLOCK_KEYS.min(span.end - first);
                tile.score::<S, D, V>(simd, first, keys);
                let scores = &mut tile.scores[..keys * columns];
                self.rule.mask(first, place, count, columns, scores);
                let rescale = tile.exponentiate::<S, V>(simd, keys, &mut max, &mut total);
                self.drop::<S, V>(simd, first, keys, tile);
                if const { D::VALUES == 2 } {
                    tile.pair_powers(simd, keys, columns);
                }
                // A block starts at a whole strip, and so at a whole word.
                let at = first / D::VALUES..(first + keys).div_ceil(D::VALUES);
                tile.add_values::<S, D>(simd, columns, at, &rescale);
            }
        }
        let (mut maxima, mut totals) = ([0.0; MOST_COLUMNS], [0.0; MOST_COLUMNS]);
        for v in 0..V {
            simd.store(&mut maxima[v * S::LANES..], max[v]);
            simd.store(&mut totals[v * S::LANES..], total[v]);
        }
        (maxima, totals)
    }

    /// Drops powers of a block of slots, whose sums are already taken.
    #[inline(always)]
    fn drop<S: Simd, const V: usize>(
        &self,
        simd: S,
        first: usize,
        keys: usize,
        tile: &mut Tile<'_>,
    ) {
        let Some(dropout) = tile.dropout else {
            return;
        };
        let len = keys * V * S::LANES;
        let factors = &mut tile.factors[..len];
        simd.vectorize(SlotFactors {
            dropout,
            head: tile.head,
            slots: &self.rule.slots.keys[first..first + keys],
            names: &tile.names,
            columns: V * S::LANES,
            mask: &mut *factors,
        });
        for (power, factor) in tile.scores[..len].iter_mut().zip(&*factors) {
            *power *= factor;
        }
    }
}
