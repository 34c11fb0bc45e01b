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
        for &(source, rows) in sources {
            assert_eq!(source.len(), rows * k, "weights are [{rows}, {k}]");
        }
        let n = sources.iter().map(|&(_, rows)| rows).sum();
        let isa = exec.isa();
        let width = panel_width(isa);
        let panels = usize::div_ceil(n, width);
        let mut data = AlignedFloats::zeroed(panels * width * k);
        let pack = |panels: std::ops::Range<usize>, data: &mut [f32]| {
            for (panel, data) in panels.zip(data.chunks_exact_mut(width * k)) {
                isa.run(PackPanel {
                    sources,
                    k,
                    first: panel * width,
                    width,
                    data,
                });
            }
        };
        exec.for_rows(&mut data, width * k, width * k, pack);
        Self { data, isa, n, k }
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
    k: usize,
    first: usize,
    width: usize,
    data: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        let columns = self.first..self.first + self.width;
        let mut start = 0;
        for &(source, rows) in self.sources {
            // The rows of this source that are columns of this panel.
            let from = columns.start.max(start);
            let to = columns.end.min(start + rows);
            if from < to {
                let rows = (from - start) * self.k..(to - start) * self.k;
                let at = from - columns.start;
                match source {
                    WeightSource::F32(values) => self.pack(&values[rows], at),
                    WeightSource::Bf16(values) => self.pack(&values[rows], at),
                    WeightSource::F16(values) => self.pack(&values[rows], at),
                }
            }
            start += rows;
        }
    }
}

impl PackPanel<'_> {
    #[inline(always)]
    fn pack<T: Stored>(&mut self, rows: &[T], at: usize) {
        pack_strip(rows, self.k, rows.len() / self.k, self.data, self.width, at);
    }
}
