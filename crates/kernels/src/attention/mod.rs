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
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;

pub use backward::{AttentionGradients, attention_backward, masked_attention_backward};
pub use dropout::AttentionDropout;
pub use forward::{AttentionInputs, attention, attention_in, attention_keeping, masked_attention};
pub use mask::{BlockPlan, Mask, RelativeBias};

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

/// Row `t` from `column` on, and all that follows.
#[inline(always)]
fn row<'a>(of: Strided<'a>, column: usize, t: usize) -> &'a [f32] {
    &of.data[t * of.stride + column..]
}

/// # Panics
/// When offsets do not ascend, or a buffer lacks rows.
fn check(segments: Segments<'_>, inputs: [(&str, Strided<'_>); 3], width: usize) {
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
