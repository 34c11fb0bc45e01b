//! The sum of a token's embeddings, normalised: the first layer of the BERT family in one pass.

mod forward;
pub(crate) mod reference;
mod training;

pub use forward::embedding_layer_norm;
pub use training::{embedding_backward, embedding_sum};

/// The embedding tables, each of rows of `N` values.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingTables<'a> {
    /// A row for each token of the vocabulary, `[V,N]`.
    pub word: &'a [f32],
    /// A row for each position, if there is such a table.
    pub position: Option<&'a [f32]>,
    /// A row for each token type, if there is such a table.
    pub token_type: Option<&'a [f32]>,
}
