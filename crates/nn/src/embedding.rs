//! The sum of token, position and type embeddings, normalised: the first layer of the BERT family.

use bertha_autograd::{Parameter, Session, Var, ops};

use crate::initializer::Initial;
use crate::{Batch, Bias, LayerNorm, NnError, Weights};

/// Rows of the embedding tables, and their width.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingSizes {
    /// Tokens in the vocabulary (V).
    pub vocabulary: usize,
    /// Positions in the table; 0 means no such table.
    pub positions: usize,
    /// Token types; 0 means no such table.
    pub types: usize,
    /// Width (N).
    pub hidden: usize,
}

/// Where the tables and the norm are.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingNames {
    /// The word table.
    pub word: &'static str,
    /// The position table.
    pub position: &'static str,
    /// The table of token types.
    pub token_type: &'static str,
    /// The norm.
    pub norm: &'static str,
}

impl EmbeddingNames {
    /// BERT's.
    pub const BERT: Self = Self {
        word: "embeddings.word_embeddings",
        position: "embeddings.position_embeddings",
        token_type: "embeddings.token_type_embeddings",
        norm: "embeddings.LayerNorm",
    };
}

/// `LayerNorm(word[id] + position[p] + type[t])`. The tables stay in the file's own mapped pages when
/// they are f32 there.
pub struct Embeddings {
    word: Parameter,
    position: Option<Parameter>,
    token_type: Option<Parameter>,
    norm: LayerNorm,
    sizes: EmbeddingSizes,
    /// What word vectors are multiplied by.
    scale: f32,
    /// Probability that a value of the sum is dropped in training, before the norm.
    dropout: f32,
}

impl Embeddings {
    /// Loads the tables that there are, and the norm, with a shift or without one.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn load(
        weights: &Weights<'_>,
        names: &EmbeddingNames,
        sizes: EmbeddingSizes,
        eps: f32,
        norm_bias: Bias,
    ) -> Result<Self, NnError> {
        let n = sizes.hidden;
        let table = |name: &str, rows: usize| {
            let table = weights.at(name);
            table.parameter(&["weight"], &[rows, n], Initial::Normal)
        };
        let optional = |name: &str, rows: usize| match rows {
            0 => Ok(None),
            rows => table(name, rows).map(Some),
        };
        Ok(Self {
            word: table(names.word, sizes.vocabulary)?,
            position: optional(names.position, sizes.positions)?,
            token_type: optional(names.token_type, sizes.types)?,
            norm: LayerNorm::load_with(&weights.at(names.norm), n, eps, norm_bias)?,
            sizes,
            scale: 1.0,
            dropout: 0.0,
        })
    }

    /// Sets what word vectors are multiplied by, and the probability of dropping values of the sum, before the norm, in
    /// training.
    #[must_use]
    pub fn with_scale_and_dropout(mut self, scale: f32, dropout: f32) -> Self {
        (self.scale, self.dropout) = (scale, dropout);
        self
    }

    /// The embeddings of a batch's `T` tokens, `[T,N]` f32; `positions` are their rows in the position
    /// table, if there is one.
    ///
    /// # Errors
    /// When an id, a position or a type is outside its table.
    pub fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        positions: &[u32],
    ) -> Result<Var, NnError> {
        let word = self.word.var();
        let position = self.position.as_ref().map(Parameter::var);
        let token_type = self.token_type.as_ref().map(Parameter::var);
        if self.scale != 1.0 || (self.dropout > 0.0 && session.is_training()) {
            // In steps: the fused sum has no room between itself and the norm.
            let ids = batch.input_ids();
            let mut sum = ops::embedding(session, &word, ids)?;
            if self.scale != 1.0 {
                sum = ops::mul_scalar(session, &sum, f64::from(self.scale))?;
            }
            if let Some(table) = &position {
                let rows = ops::embedding(session, table, positions)?;
                sum = ops::add(session, &sum, &rows)?;
            }
            if let Some(table) = &token_type {
                let zeros;
                let types = match batch.type_ids() {
                    Some(types) => types,
                    None => {
                        zeros = vec![0; ids.len()];
                        &zeros
                    }
                };
                let rows = ops::embedding(session, table, types)?;
                sum = ops::add(session, &sum, &rows)?;
            }
            let sum = ops::dropout(session, sum, self.dropout)?;
            return self.norm.forward(session, sum);
        }
        let tables = ops::Tables {
            word: &word,
            position: position.as_ref(),
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
