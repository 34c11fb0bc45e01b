//! Weights, packed once for the product.

use super::pack::{Stored, pack_strip};
use super::tile::panel_width;
use crate::Exec;
use crate::buffer::AlignedFloats;
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

/// The weight `W[N,K]` of a product `X·Wᵀ`, f32, in the layout that one instruction set wants.
///
/// Panels of as many columns of `Wᵀ` as a register tile has, one after the other; in a panel, the
/// values of one k lie side by side. The last panel is filled up with zeros. The portable tier
/// keeps the rows as they are.
pub struct PackedWeights {
    data: AlignedFloats,
    isa: Isa,
    n: usize,
    k: usize,
}

impl PackedWeights {
    /// Packs `W[n,k]`.
    ///
    /// # Panics
    /// When `source` has not `n·k` values.
    pub fn pack(exec: &Exec, source: WeightSource<'_>, n: usize, k: usize) -> Self {
        Self::pack_stacked(exec, &[(source, n)], k)
    }

    /// Packs matrices of `k` columns stacked on top of each other, each with its number of rows: their
    /// products with one input then are one product.
    ///
    /// # Panics
    /// When a source has another number of values than its rows times `k`.
    pub fn pack_stacked(exec: &Exec, sources: &[(WeightSource<'_>, usize)], k: usize) -> Self {
        let n = sources.iter().map(|&(_, rows)| rows).sum();
        let mut weights = Self::room(exec.isa(), n, k);
        weights.repack(exec, sources);
        weights
    }

    /// Packs the transpose `W[rows,k]ᵀ` of stacked matrices of `k` columns: [`gemm`](super::gemm) then computes
    /// `dX[T,k] = dY[T,rows]·W`, the gradient of the input of a product with `W`. N is `k`, and K all rows.
    ///
    /// # Panics
    /// When a source has another number of values than its rows times `k`.
    pub fn pack_transposed(exec: &Exec, sources: &[(WeightSource<'_>, usize)], k: usize) -> Self {
        let rows = sources.iter().map(|&(_, rows)| rows).sum();
        let mut weights = Self::room(exec.isa(), k, rows);
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
    fn room(isa: Isa, n: usize, k: usize) -> Self {
        let width = panel_width(isa);
        let data = AlignedFloats::zeroed(usize::div_ceil(n, width) * width * k);
        Self { data, isa, n, k }
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
        let width = panel_width(isa);
        let pack = |panels: std::ops::Range<usize>, data: &mut [f32]| {
            for (panel, data) in panels.zip(data.chunks_exact_mut(width * k)) {
                isa.run(PackPanel {
                    sources,
                    columns,
                    transposed,
                    first: panel * width,
                    width,
                    data,
                });
            }
        };
        exec.for_rows(&mut self.data, width * k, width * k, pack);
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
        size_of_val(&*self.data)
    }

    /// The instruction set they were packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// All values, in the layout of the instruction set.
    pub(super) fn data(&self) -> &[f32] {
        &self.data
    }

    /// Panel `panel` (of `width` columns) for the given range of k.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize, width: usize, k: std::ops::Range<usize>) -> &[f32] {
        &self.data[(panel * self.k + k.start) * width..(panel * self.k + k.end) * width]
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
    fn run<S: Simd>(mut self, _simd: S) {
        let mut start = 0;
        for &(source, rows) in self.sources {
            let rows = start..start + rows;
            start = rows.end;
            match source {
                WeightSource::F32(values) => self.pack(values, rows),
                WeightSource::Bf16(values) => self.pack(values, rows),
                WeightSource::F16(values) => self.pack(values, rows),
            }
        }
    }
}

impl PackPanel<'_> {
    /// Packs what this panel has of a source, whose rows are rows `of` of all.
    #[inline(always)]
    fn pack<T: Stored>(&mut self, values: &[T], of: std::ops::Range<usize>) {
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
