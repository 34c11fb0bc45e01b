//! The sum of token, position and type embeddings, normalised: the first layer of the BERT family.

use bertha_autograd::{Parameter, Session, Var, ops};

use crate::initializer::Initial;
use crate::{Batch, LayerNorm, NnError, Weights};

/// Rows of the embedding tables, and their width.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingSizes {
    /// Tokens in the vocabulary (V).
    pub vocabulary: usize,
    /// Positions in the table.
    pub positions: usize,
    /// Token types; 0 means no such table.
    pub types: usize,
    /// Width (N).
    pub hidden: usize,
}

/// `LayerNorm(word[id] + position[p] + type[t])`. The tables stay in the file's own mapped pages when
/// they are f32 there.
pub struct Embeddings {
    word: Parameter,
    position: Parameter,
    token_type: Option<Parameter>,
    norm: LayerNorm,
    sizes: EmbeddingSizes,
}

impl Embeddings {
    /// Loads `word_embeddings`, `position_embeddings`, `token_type_embeddings` and `LayerNorm`.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(weights: &Weights<'_>, sizes: EmbeddingSizes, eps: f32) -> Result<Self, NnError> {
        let n = sizes.hidden;
        let table = |name: &str, rows: usize| {
            weights
                .at(name)
                .parameter(&["weight"], &[rows, n], Initial::Normal)
        };
        Ok(Self {
            word: table("word_embeddings", sizes.vocabulary)?,
            position: table("position_embeddings", sizes.positions)?,
            token_type: match sizes.types {
                0 => None,
                rows => Some(table("token_type_embeddings", rows)?),
            },
            norm: LayerNorm::load(&weights.at("LayerNorm"), n, eps)?,
            sizes,
        })
    }

    /// The embeddings of a batch's `T` tokens, `[T,N]` f32; `positions` are their rows in the position table.
    ///
    /// # Errors
    /// When an id, a position or a type is outside its table.
    pub fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        positions: &[u32],
    ) -> Result<Var, NnError> {
        let (word, position) = (self.word.var(), self.position.var());
        let token_type = self.token_type.as_ref().map(Parameter::var);
        let tables = ops::Tables {
            word: &word,
            position: Some(&position),
            token_type: token_type.as_ref(),
        };
        let inputs = ops::EmbeddingInputs {
            ids: batch.input_ids(),
            positions,
            type_ids: token_type.as_ref().and(batch.type_ids()),
        };
        Ok(ops::embedding_layer_norm(
            session,
            tables,
            inputs,
            &self.norm.gamma(),
            &self.norm.beta(),
            self.norm.eps(),
        )?)
    }

    /// The word table `[V,N]`, which a tied decoder shares.
    pub fn word_table(&self) -> &Parameter {
        &self.word
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let rows = self.sizes.vocabulary + self.sizes.positions + self.sizes.types;
        rows * self.sizes.hidden + self.norm.parameters()
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        self.parameters() * 4
    }
}
