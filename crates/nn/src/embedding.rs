//! The sum of token, position and type embeddings, normalised: the first layer of the BERT family.

use bertha_autograd::{Parameter, Session, Var, ops};
use bertha_tensor::{DType, Tensor};

use crate::initializer::Initial;
use crate::{
    Batch, Bias, Binarization, LayerNorm, Linear, NnError, QuantizedMatrix, Weights, estimators,
};

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
    word: Table,
    position: Option<Table>,
    token_type: Option<Table>,
    norm: LayerNorm,
    sizes: EmbeddingSizes,
    /// What word vectors are multiplied by.
    scale: f32,
    /// Probability that a value of the sum is dropped in training, before the norm.
    dropout: f32,
}

/// A table of vectors.
enum Table {
    Values(Parameter),
    /// Trained as what is binarized.
    Binarized(Parameter, Binarization),
    Quantized {
        matrix: Box<QuantizedMatrix>,
        /// What errors call it.
        name: &'static str,
    },
}

impl Table {
    /// The table and the rows of it that `ids` name; of a quantized one only these rows, one after the other.
    fn look_up(&self, session: &Session, ids: &[u32]) -> Result<(Var, Option<Vec<u32>>), NnError> {
        let (matrix, name) = match self {
            Self::Values(table) => return Ok((table.var(), None)),
            Self::Binarized(table, Binarization::Bit { .. }) => {
                let rows = estimators::binarize_table(session, &table.var(), ids)?;
                return Ok((rows, Some((0..ids.len() as u32).collect())));
            }
            Self::Binarized(table, _) => {
                let rows = ops::embedding(session, &table.var(), ids)?;
                let rows = estimators::binarize_rows(session, &rows)?;
                return Ok((rows, Some((0..ids.len() as u32).collect())));
            }
            Self::Quantized { matrix, name } => (matrix, name),
        };
        let (rows, width) = matrix.shape();
        let mut values = Tensor::scratch_in(session.pool(), DType::F32, &[ids.len(), width])?;
        let out = values.as_mut_slice::<f32>()?;
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width.max(1))) {
            if id as usize >= rows {
                return Err(NnError::Batch(format!(
                    "{name} {id} is outside of its table of {rows} rows"
                )));
            }
            matrix.decode_row(id as usize, out)?;
        }
        let places = (0..ids.len() as u32).collect();
        Ok((Var::constant(values), Some(places)))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Values(table) | Self::Binarized(table, _) => {
                table.shape().iter().product::<usize>() * size_of::<f32>()
            }
            Self::Quantized { matrix, .. } => matrix.bytes(),
        }
    }
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
        let table = |name: &str, rows: usize, kind: &'static str| {
            let table = match kind {
                "token" => weights.binarized().at(name),
                _ => weights.at(name),
            };
            if let Some(matrix) = table.quantized("weight", [rows, n], true)? {
                let matrix = Box::new(matrix);
                return Ok(Table::Quantized { matrix, name: kind });
            }
            let values = table.parameter(&["weight"], &[rows, n], Initial::Normal)?;
            Ok::<_, NnError>(Table::Values(values))
        };
        let binarized = weights.binarized().binarization();
        let binarized = binarized.filter(|_| weights.is_trainable());
        let optional = |name: &str, rows: usize, kind| match rows {
            0 => Ok(None),
            rows => table(name, rows, kind).map(Some),
        };
        Ok(Self {
            word: match (table(names.word, sizes.vocabulary, "token")?, binarized) {
                (Table::Values(word), Some(binarized)) => Table::Binarized(word, binarized),
                (word, _) => word,
            },
            position: optional(names.position, sizes.positions, "position")?,
            token_type: optional(names.token_type, sizes.types, "token type")?,
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

    /// The embeddings of a batch's `T` tokens, `[T,N]` f32; `given_positions` are their rows in the position
    /// table, if there is one.
    ///
    /// # Errors
    /// When an id, a position or a type is outside its table.
    pub fn forward(
        &self,
        session: &Session,
        batch: &Batch,
        given_positions: &[u32],
    ) -> Result<Var, NnError> {
        let zeros;
        let types = match (&self.token_type, batch.type_ids()) {
            (_, Some(types)) => types,
            (None, None) => &[],
            (Some(_), None) => {
                zeros = vec![0; batch.input_ids().len()];
                &zeros
            }
        };
        let look_up = |table: &Table, ids| table.look_up(session, ids);
        let (word, ids) = look_up(&self.word, batch.input_ids())?;
        let ids = ids.as_deref().unwrap_or(batch.input_ids());
        let position = self
            .position
            .as_ref()
            .map(|table| look_up(table, given_positions));
        let (position, places) = position.transpose()?.unzip();
        let positions = places.flatten();
        let positions = positions.as_deref().unwrap_or(given_positions);
        let token_type = self.token_type.as_ref().map(|table| look_up(table, types));
        let (token_type, places) = token_type.transpose()?.unzip();
        let type_places = places.flatten();
        if self.scale != 1.0 || (self.dropout > 0.0 && session.is_training()) {
            // In steps: the fused sum has no room between itself and the norm.
            let mut sum = ops::embedding(session, &word, ids)?;
            if self.scale != 1.0 {
                sum = ops::mul_scalar(session, &sum, f64::from(self.scale))?;
            }
            if let Some(table) = &position {
                let rows = ops::embedding(session, table, positions)?;
                sum = ops::add(session, &sum, &rows)?;
            }
            if let Some(table) = &token_type {
                let types = type_places.as_deref().unwrap_or(types);
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
        let types = type_places.as_deref().or(batch.type_ids());
        let inputs = ops::EmbeddingInputs {
            ids,
            positions,
            type_ids: token_type.as_ref().and(types),
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

    /// A layer whose weight is the word table `[V,N]`, as decoders of masked LMs are.
    ///
    /// # Errors
    /// When the bias does not fit.
    pub fn tied_linear(
        &self,
        session: &Session,
        bias: Option<&Parameter>,
    ) -> Result<Linear, NnError> {
        match &self.word {
            Table::Values(table) | Table::Binarized(table, _) => {
                Linear::from_parameters(session, table, bias)
            }
            Table::Quantized { matrix, .. } => {
                Linear::from_quantized(session, matrix, bias.map(Parameter::value))
            }
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let rows = self.sizes.vocabulary + self.sizes.positions + self.sizes.types;
        rows * self.sizes.hidden + self.norm.parameters()
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        let tables = [
            Some(&self.word),
            self.position.as_ref(),
            self.token_type.as_ref(),
        ];
        let tables: usize = tables.into_iter().flatten().map(Table::bytes).sum();
        tables + self.norm.parameters() * size_of::<f32>()
    }
}
