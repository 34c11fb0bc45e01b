//! Multi-head attention over packed sequences, softmax streamed
//! (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).

mod backward;
mod dropout;
mod forward;
mod layout;
mod mask;
#[cfg(test)]
mod pattern_tests;
pub(crate) mod reference;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;

pub use backward::{
    AttentionGradients, AttentionKept, attention_backward, masked_attention_backward,
};
pub use dropout::AttentionDropout;
pub use forward::attention;
pub use mask::{BlockPlan, Mask, RelativeBias};

use crate::RotaryTable;

/// Rows of values inside a wider buffer: row `t` starts at `t · stride`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, F = f32> {
    /// The buffer, from the first row's first value on.
    pub data: &'a [F],
    /// Values from one row to the next.
    pub stride: usize,
}

/// Sequences packed end to end.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// Where the sequences start, and last where they end: B+1 offsets from 0 to T, ascending.
    pub cu_seqlens: &'a [u32],
}

impl Segments<'_> {
    /// Number of tokens (T).
    pub fn tokens(&self) -> usize {
        self.cu_seqlens.last().map_or(0, |&end| end as usize)
    }

    /// The rows of each sequence.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let pairs = self.cu_seqlens.windows(2);
        pairs.map(|ends| ends[0] as usize..ends[1] as usize)
    }
}

/// The heads of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Number of heads (H).
    pub heads: usize,
    /// Width of a head (D).
    pub head_dim: usize,
    /// What a query's product with a key is multiplied by, commonly `1/√D`.
    pub scale: f32,
}

/// What an attention reads.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a, F = f32> {
    /// Tq rows of queries, head h from column `h·D` on.
    pub q: Strided<'a, F>,
    /// Tk rows of keys.
    pub k: Strided<'a, F>,
    /// Tk rows of values.
    pub v: Strided<'a, F>,
    /// Whose queries see whose keys: as many sequences as `keys` has.
    pub queries: Segments<'a>,
    /// The sequences of keys and values. A query's place counts only where both are the same: under other masks than
    /// [`Mask::Full`] they must be, and with a bias.
    pub keys: Segments<'a>,
    /// Which keys of its sequence a query sees.
    pub mask: &'a Mask,
    /// What is added to scores.
    pub bias: Option<RelativeBias<'a, F>>,
    /// By what queries and keys are turned for their places (RoPE), as they are read.
    pub rotary: Option<&'a RotaryTable>,
    /// The heads.
    pub shape: AttentionShape,
}

impl<'a, F> AttentionInputs<'a, F> {
    /// Sequences that attend to themselves, without a bias and not turned.
    pub fn of_sequences(
        [q, k, v]: [Strided<'a, F>; 3],
        segments: Segments<'a>,
        mask: &'a Mask,
        shape: AttentionShape,
    ) -> Self {
        Self {
            q,
            k,
            v,
            queries: segments,
            keys: segments,
            mask,
            bias: None,
            rotary: None,
            shape,
        }
    }

    /// Whether each query sees all keys of its own sequence, with nothing added.
    fn is_dense(&self) -> bool {
        *self.mask == Mask::Full
            && self.bias.is_none()
            && self.queries.cu_seqlens == self.keys.cu_seqlens
    }

    /// # Panics
    /// When a buffer is shorter than the sequences say, offsets do not ascend, the scale is not above 0, or the mask, bias or table
    /// of turns does not fit.
    fn check(&self)
    where
        F: Copy,
    {
        let Self { q, k, v, shape, .. } = *self;
        let width = shape.heads * shape.head_dim;
        check(self.queries, &[("q", q)], width);
        check(self.keys, &[("k", k), ("v", v)], width);
        assert!(shape.scale > 0.0, "a scale above 0");
        let (queries, keys) = (self.queries.cu_seqlens, self.keys.cu_seqlens);
        assert_eq!(
            queries.len(),
            keys.len(),
            "queries and keys of as many sequences"
        );
        assert!(
            queries == keys
                || (*self.mask == Mask::Full && self.bias.is_none() && self.rotary.is_none()),
            "queries without a place among the keys see all of them"
        );
        if let Err(wrong) = self.mask.check(keys, shape.heads) {
            panic!("{wrong}");
        }
        if let Some(bias) = &self.bias {
            let len = shape.heads * (2 * bias.reach + 1);
            assert_eq!(bias.values.len(), len, "the bias is [H, 2·reach + 1]");
        }
        if let Some(table) = self.rotary {
            assert_eq!(table.head_dim(), shape.head_dim, "turns of the heads");
            let longest = self.keys.ranges().map(|range| range.len()).max();
            let longest = longest.unwrap_or(0);
            assert!(longest <= table.places(), "turns for {longest} places");
        }
    }
}

/// Row `t` from `column` on, and all that follows.
#[inline(always)]
fn row<'a>(of: Strided<'a>, column: usize, t: usize) -> &'a [f32] {
    &of.data[t * of.stride + column..]
}

/// # Panics
/// When offsets do not ascend, or a buffer lacks rows.
fn check<F>(segments: Segments<'_>, inputs: &[(&str, Strided<'_, F>)], width: usize) {
    assert!(segments.cu_seqlens.is_sorted(), "offsets ascend");
    let tokens = segments.tokens();
    if tokens == 0 || width == 0 {
        return;
    }
    for (name, rows) in inputs {
        let least = (tokens - 1) * rows.stride + width;
        assert!(
            rows.stride >= width && rows.data.len() >= least,
            "{name} has {tokens} rows"
        );
    }
}
