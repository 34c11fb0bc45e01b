//! Weights, packed once for the product.

use std::cell::RefCell;
use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
use super::amx::{self, PackTiles, panel_bytes, plain_weights};
use super::pack::{Stored, pack_strip};
use super::tile::panel_width;
use crate::Exec;
#[cfg(target_arch = "x86_64")]
use crate::amx::{Amx, BLOCK};
use crate::bf16::{self, Narrow};
use crate::buffer::AlignedFloats;
use crate::exec::SharedMut;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd};

/// A weight matrix as a file holds it, row-major.
#[derive(Clone, Copy, Debug)]
pub enum WeightSource<'a> {
    /// f32.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [half::bf16]),
    /// IEEE half precision.
    F16(&'a [half::f16]),
}

impl WeightSource<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }
}

thread_local! {
    /// A panel before it is rounded.
    static PANEL: RefCell<AlignedFloats> = RefCell::new(AlignedFloats::zeroed(0));
}

/// The format of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackedFormat {
    /// f32: products keep to an error of 10⁻⁵ in Frobenius' norm, relative to the result. Where the machine has a unit for it, the
    /// product of two halves each, high and low.
    F32,
    /// f32, by f32 multiply-adds on any machine.
    F32Strict,
    /// bf16, half the memory. A product rounds its inputs to bf16 too; products and sums are f32.
    Bf16,
}

/// The weight `W[N,K]` of a product `X·Wᵀ`, f32 or bf16, in the layout that one instruction set wants.
///
/// Panels of as many columns of `Wᵀ` as a register tile has, one after the other; in a panel, the
/// values of one k lie side by side. The last panel is filled up with zeros. The portable tier
/// keeps the rows as they are.
pub struct PackedWeights {
    data: Data,
    format: PackedFormat,
    isa: Isa,
    n: usize,
    k: usize,
}

enum Data {
    F32(AlignedFloats),
    Bf16(Vec<half::bf16>),
    /// Words of two bf16 of consecutive k each, the first in the lower half; of an odd K the last has a zero.
    Bf16Pairs(AlignedFloats),
    /// Tiles of the matrix unit, of bf16.
    #[cfg(target_arch = "x86_64")]
    Tiles(AlignedFloats),
    /// Tiles of the matrix unit, of f32 as two bf16 each.
    #[cfg(target_arch = "x86_64")]
    HalfTiles(AlignedFloats),
}

/// Whether f32 weights are so few that they would fill tiles in part, and that the errors of their products as halves would
/// not average out.
#[cfg(target_arch = "x86_64")]
fn narrow(format: PackedFormat, n: usize, k: usize) -> bool {
    const LEAST: usize = 16;
    format == PackedFormat::F32 && (n < LEAST || k < 2 * LEAST)
}

/// How packed weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    F32,
    /// bf16 that are widened before they are multiplied.
    Bf16,
    /// Pairs of bf16 that the machine multiplies as they are.
    Bf16Pairs,
    /// For the matrix unit.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl PackedWeights {
    /// Packs `W[n,k]` as f32.
    ///
    /// # Panics
    /// When `source` has not `n·k` values.
    pub fn pack(exec: &Exec, source: WeightSource<'_>, n: usize, k: usize) -> Self {
        Self::pack_stacked(exec, &[(source, n)], k, PackedFormat::F32)
    }

    /// Packs matrices of `k` columns stacked on top of each other, each with its number of rows: their
    /// products with one input then are one product.
    ///
    /// # Panics
    /// When a source has another number of values than its rows times `k`.
    pub fn pack_stacked(
        exec: &Exec,
        sources: &[(WeightSource<'_>, usize)],
        k: usize,
        format: PackedFormat,
    ) -> Self {
        let n = sources.iter().map(|&(_, rows)| rows).sum();
        let mut weights = Self::room(exec.isa(), n, k, format);
        weights.repack(exec, sources);
        weights
    }

    /// Packs the transpose `W[rows,k]ᵀ` of stacked matrices of `k` columns: [`gemm`](super::gemm) then computes
    /// `dX[T,k] = dY[T,rows]·W`, the gradient of the input of a product with `W`. N is `k`, and K all rows.
    ///
    /// # Panics
    /// When a source has another number of values than its rows times `k`.
    pub fn pack_transposed(
        exec: &Exec,
        sources: &[(WeightSource<'_>, usize)],
        k: usize,
        format: PackedFormat,
    ) -> Self {
        let rows = sources.iter().map(|&(_, rows)| rows).sum();
        let mut weights = Self::room(exec.isa(), k, rows, format);
        weights.repack_transposed(exec, sources);
        weights
    }

    /// Packs changed values in place of the old ones, as [`PackedWeights::pack_stacked`] does. Allocates nothing.
    ///
    /// # Panics
    /// When the sources have not `N` rows of `K` values in all.
    pub fn repack(&mut self, exec: &Exec, sources: &[(WeightSource<'_>, usize)]) {
        self.fill(exec, sources, false);
    }

    /// Packs changed values in place of the old ones, as [`PackedWeights::pack_transposed`] does. Allocates
    /// nothing.
    ///
    /// # Panics
    /// When the sources have not `K` rows of `N` values in all.
    pub fn repack_transposed(&mut self, exec: &Exec, sources: &[(WeightSource<'_>, usize)]) {
        self.fill(exec, sources, true);
    }

    /// Zeros for a matrix of `n` rows and `k` columns.
    fn room(isa: Isa, n: usize, k: usize, format: PackedFormat) -> Self {
        #[cfg(target_arch = "x86_64")]
        if isa.amx().is_some() && !(format == PackedFormat::F32Strict || narrow(format, n, k)) {
            let parts = if format == PackedFormat::F32 { 2 } else { 1 };
            let words = n.div_ceil(BLOCK) * panel_bytes(k, parts) / size_of::<f32>();
            let data = match parts {
                1 => Data::Tiles(AlignedFloats::zeroed(words)),
                _ => Data::HalfTiles(AlignedFloats::zeroed(words)),
            };
            return Self {
                data,
                format,
                isa,
                n,
                k,
            };
        }
        let columns = n.next_multiple_of(panel_width(isa));
        let len = columns * k;
        let data = match format {
            PackedFormat::F32 | PackedFormat::F32Strict => Data::F32(AlignedFloats::zeroed(len)),
            PackedFormat::Bf16 if isa.multiplies_bf16() => {
                Data::Bf16Pairs(AlignedFloats::zeroed(columns * k.div_ceil(2)))
            }
            PackedFormat::Bf16 => Data::Bf16(vec![half::bf16::ZERO; len]),
        };
        Self {
            data,
            format,
            isa,
            n,
            k,
        }
    }

    fn fill(&mut self, exec: &Exec, sources: &[(WeightSource<'_>, usize)], transposed: bool) {
        let (isa, n, k) = (self.isa, self.n, self.k);
        let (all, columns) = if transposed { (k, n) } else { (n, k) };
        for &(source, rows) in sources {
            assert_eq!(
                source.len(),
                rows * columns,
                "weights are [{rows}, {columns}]"
            );
        }
        let rows: usize = sources.iter().map(|&(_, rows)| rows).sum();
        assert_eq!(rows, all, "as many rows as there is room for");
        #[cfg(target_arch = "x86_64")]
        if self.fill_tiles(exec, sources, columns, transposed) {
            return;
        }
        let width = panel_width(isa);
        let pack = |panel: usize, data: &mut [f32]| {
            isa.run(PackPanel {
                sources,
                columns,
                transposed,
                first: panel * width,
                width,
                data,
            });
        };
        let len = width * k;
        match &mut self.data {
            Data::F32(data) => exec.for_rows(data, len, len, |panels, data| {
                for (panel, data) in panels.zip(data.chunks_exact_mut(len)) {
                    pack(panel, data);
                }
            }),
            Data::Bf16(data) => {
                let panels = data.len().checked_div(len).unwrap_or(0);
                let shared = SharedMut::new(data);
                exec.for_ranges(panels, len, |panels| {
                    PANEL.with_borrow_mut(|packed| {
                        let packed = packed.at_least(len);
                        for panel in panels {
                            // Of the last panel, columns beyond the last stay zero.
                            packed.fill(0.0);
                            pack(panel, packed);
                            // SAFETY: each panel is packed once.
                            let to = unsafe { shared.slice(panel * len..(panel + 1) * len) };
                            isa.run(Narrow { from: packed, to });
                        }
                    });
                });
            }
            #[cfg(target_arch = "x86_64")]
            Data::Tiles(_) | Data::HalfTiles(_) => unreachable!("tiles were filled"),
            Data::Bf16Pairs(data) => {
                let words = width * k.div_ceil(2);
                exec.for_rows(data, words, len, |panels, data| {
                    PANEL.with_borrow_mut(|packed| {
                        let packed = packed.at_least(len);
                        for (panel, to) in panels.zip(data.chunks_exact_mut(words)) {
                            packed.fill(0.0);
                            pack(panel, packed);
                            isa.run(Pair {
                                from: packed,
                                width,
                                to,
                            });
                        }
                    });
                });
            }
        }
    }

    /// Packs tiles, where they are wanted and hold the values: weights beyond what halves hold become f32.
    #[cfg(target_arch = "x86_64")]
    fn fill_tiles(
        &mut self,
        exec: &Exec,
        sources: &[(WeightSource<'_>, usize)],
        columns: usize,
        transposed: bool,
    ) -> bool {
        let (isa, n, k) = (self.isa, self.n, self.k);
        let Some(amx) = isa.amx() else { return false };
        if let (Data::F32(_), PackedFormat::F32) = (&self.data, self.format)
            && !narrow(self.format, n, k)
        {
            // What was beyond need not be any more.
            *self = Self::room(isa, n, k, self.format);
        }
        let (data, halves) = match &mut self.data {
            Data::Tiles(data) => (data, false),
            Data::HalfTiles(data) => (data, true),
            _ => return false,
        };
        let words = panel_bytes(k, 1 + usize::from(halves)) / size_of::<f32>();
        let beyond = AtomicBool::new(false);
        exec.for_rows(data, words.max(1), BLOCK * k, |panels, data| {
            PANEL.with_borrow_mut(|packed| {
                let packed = packed.at_least(BLOCK * k);
                for (panel, to) in panels.zip(data.chunks_exact_mut(words)) {
                    packed.fill(0.0);
                    isa.run(PackPanel {
                        sources,
                        columns,
                        transposed,
                        first: panel * BLOCK,
                        width: BLOCK,
                        data: packed,
                    });
                    let largest = amx.vectors().vectorize(PackTiles {
                        from: packed,
                        halves,
                        to,
                    });
                    if halves && !plain_weights(largest) {
                        beyond.store(true, Ordering::Relaxed);
                    }
                }
            });
        });
        if beyond.into_inner() {
            let mut strict = Self::room(isa, n, k, PackedFormat::F32Strict);
            strict.fill(exec, sources, transposed);
            self.data = strict.data;
        }
        true
    }

    /// Columns of the product (N).
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the input (K).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.data {
            Data::F32(data) | Data::Bf16Pairs(data) => size_of_val(&**data),
            Data::Bf16(data) => size_of_val(&**data),
            #[cfg(target_arch = "x86_64")]
            Data::Tiles(data) | Data::HalfTiles(data) => size_of_val(&**data),
        }
    }

    /// The instruction set they were packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Their format.
    pub fn format(&self) -> PackedFormat {
        self.format
    }

    /// Their tiles, where they are that: the proof of the matrix unit, and of what precision.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn tiles(&self) -> Option<(Amx, PackedFormat, amx::Weights<'_>)> {
        let (Data::Tiles(data) | Data::HalfTiles(data)) = &self.data else {
            return None;
        };
        let weights = amx::Weights {
            n: self.n,
            k: self.k,
            panels: data.as_bytes(),
            scales: &[],
        };
        Some((self.isa.amx()?, self.format, weights))
    }

    /// How they lie.
    #[inline(always)]
    pub(super) fn layout(&self) -> Layout {
        match &self.data {
            Data::F32(_) => Layout::F32,
            Data::Bf16(_) => Layout::Bf16,
            Data::Bf16Pairs(_) => Layout::Bf16Pairs,
            #[cfg(target_arch = "x86_64")]
            Data::Tiles(_) | Data::HalfTiles(_) => Layout::Tiles,
        }
    }

    /// Words of a row of inputs, as the product takes them.
    #[inline(always)]
    pub(super) fn words(&self) -> usize {
        match &self.data {
            Data::F32(_) | Data::Bf16(_) => self.k,
            Data::Bf16Pairs(_) => self.k.div_ceil(2),
            #[cfg(target_arch = "x86_64")]
            Data::Tiles(_) | Data::HalfTiles(_) => self.k,
        }
    }

    /// Panels `panels` (of `width` columns) for the given range of words of k; where they are not words already, in `room`.
    ///
    /// A range shorter than all words takes one panel.
    #[inline(always)]
    pub(super) fn panels<'a>(
        &'a self,
        panels: Range<usize>,
        width: usize,
        k: Range<usize>,
        room: &'a mut AlignedFloats,
    ) -> &'a [f32] {
        debug_assert!(panels.len() == 1 || k == (0..self.words()));
        let start = (panels.start * self.words() + k.start) * width;
        let range = start..start + panels.len() * k.len() * width;
        match &self.data {
            Data::F32(data) | Data::Bf16Pairs(data) => &data[range],
            Data::Bf16(data) => {
                let room = room.at_least(range.len());
                for (to, &from) in room.iter_mut().zip(&data[range]) {
                    *to = bf16::widen(from);
                }
                room
            }
            #[cfg(target_arch = "x86_64")]
            Data::Tiles(_) | Data::HalfTiles(_) => unreachable!("tiles have a driver of their own"),
        }
    }
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedWeights")
            .field("isa", &self.isa)
            .field("n", &self.n)
            .field("k", &self.k)
            .finish_non_exhaustive()
    }
}

/// Rounds a panel and joins the values of consecutive k into words.
struct Pair<'a> {
    /// `[k, width]`.
    from: &'a [f32],
    width: usize,
    /// `[⌈k/2⌉, width]`.
    to: &'a mut [f32],
}

impl Kernel for Pair<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Self { from, width, to } = self;
        for (rows, words) in from.chunks(2 * width).zip(to.chunks_exact_mut(width)) {
            let (first, second) = rows.split_at(width);
            if second.is_empty() {
                for (word, &a) in words.iter_mut().zip(first) {
                    *word = bf16::pair(a, 0.0);
                }
            }
            for ((word, &a), &b) in words.iter_mut().zip(first).zip(second) {
                *word = bf16::pair(a, b);
            }
        }
    }
}

/// Packs columns `first..first + width` of the product.
struct PackPanel<'a> {
    sources: &'a [(WeightSource<'a>, usize)],
    /// Columns of the sources.
    columns: usize,
    transposed: bool,
    first: usize,
    width: usize,
    data: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut start = 0;
        for &(source, rows) in self.sources {
            let rows = start..start + rows;
            start = rows.end;
            match source {
                WeightSource::F32(values) => self.pack(simd, values, rows),
                WeightSource::Bf16(values) => self.pack(simd, values, rows),
                WeightSource::F16(values) => self.pack(simd, values, rows),
            }
        }
    }
}

impl PackPanel<'_> {
    /// Packs what this panel has of a source, whose rows are rows `of` of all.
    #[inline(always)]
    fn pack<S: Simd, T: Stored>(&mut self, simd: S, values: &[T], of: Range<usize>) {
        let Self { width, columns, .. } = *self;
        if self.transposed {
            // A column of the source is one of the panel.
            let count = width.min(columns - self.first);
            let panel = &mut self.data[of.start * width..of.end * width];
            for (to, row) in panel
                .chunks_exact_mut(width)
                .zip(values.chunks_exact(columns))
            {
                for (to, value) in to.iter_mut().zip(&row[self.first..][..count]) {
                    *to = value.to_f32();
                }
            }
            return;
        }
        // The rows of this source that are columns of this panel.
        let from = self.first.max(of.start);
        let to = (self.first + width).min(of.end);
        if from < to {
            let rows = &values[(from - of.start) * columns..(to - of.start) * columns];
            pack_strip(
                simd,
                rows,
                columns,
                to - from,
                self.data,
                width,
                from - self.first,
            );
        }
    }
}
