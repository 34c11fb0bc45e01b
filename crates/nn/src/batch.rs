//! A ragged batch of token sequences, packed end to end.

use bertha_tensor::{DType, Tensor};

use crate::NnError;

/// `B` sequences of `T` tokens together: ids, positions and types in one row, and where each
/// sequence starts (`cu_seqlens`, B+1 offsets). There is no padding in it.
#[derive(Clone, Debug)]
pub struct Batch {
    input_ids: Vec<u32>,
    positions: Vec<u32>,
    type_ids: Option<Vec<u32>>,
    cu_seqlens: Vec<u32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// A batch of no sequences, to be filled by [`Batch::push`].
    pub fn new() -> Self {
        Self {
            input_ids: Vec::new(),
            positions: Vec::new(),
            type_ids: None,
            cu_seqlens: vec![0],
        }
    }

    /// A batch of sequences of token ids, all of type 0.
    ///
    /// # Errors
    /// When a sequence is empty.
    pub fn from_sequences<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self, NnError> {
        let mut batch = Self::new();
        for sequence in sequences {
            batch.push(sequence.as_ref(), None)?;
        }
        Ok(batch)
    }

    /// Appends a sequence; `type_ids` absent means type 0.
    ///
    /// # Errors
    /// When the sequence is empty or the types are not as many as the ids.
    pub fn push(&mut self, ids: &[u32], type_ids: Option<&[u32]>) -> Result<(), NnError> {
        let index = self.len();
        if ids.is_empty() {
            return Err(NnError::Batch(format!(
                "sequence {index} is empty: a sequence needs at least one token"
            )));
        }
        if let Some(types) = type_ids
            && types.len() != ids.len()
        {
            return Err(NnError::Batch(format!(
                "sequence {index} has {} token types for {} ids",
                types.len(),
                ids.len()
            )));
        }
        let end = u32::try_from(self.input_ids.len() + ids.len()).map_err(|_| {
            NnError::Batch("a batch holds at most 4,294,967,295 tokens: split it".into())
        })?;
        let before = self.input_ids.len();
        self.input_ids.extend_from_slice(ids);
        self.positions.extend(0..ids.len() as u32);
        if let Some(types) = type_ids {
            self.type_ids
                .get_or_insert_with(|| vec![0; before])
                .extend_from_slice(types);
        } else if let Some(all) = &mut self.type_ids {
            all.resize(end as usize, 0);
        }
        self.cu_seqlens.push(end);
        Ok(())
    }

    /// Packs padded tensors as `transformers` takes them: `input_ids`, and where present
    /// `attention_mask` (1 = real, 0 = padding) and `token_type_ids`, all `[B,S]` of an integer dtype.
    /// A token keeps its column as its position. [`Batch::pad`] undoes it.
    ///
    /// # Errors
    /// When the shapes disagree, a mask has other values than 0 and 1, an id is negative, or a
    /// sequence has no real token.
    pub fn from_padded(
        input_ids: &Tensor,
        attention_mask: Option<&Tensor>,
        token_type_ids: Option<&Tensor>,
    ) -> Result<Self, NnError> {
        let &[rows, columns] = input_ids.shape() else {
            return Err(NnError::Batch(format!(
                "input_ids has shape {:?}, expected two dimensions [batch, length]",
                input_ids.shape()
            )));
        };
        let ids = integers("input_ids", input_ids, input_ids.shape())?;
        let mask = attention_mask
            .map(|mask| integers("attention_mask", mask, input_ids.shape()))
            .transpose()?;
        let types = token_type_ids
            .map(|types| integers("token_type_ids", types, input_ids.shape()))
            .transpose()?;

        let mut batch = Self::new();
        batch.type_ids = types.as_ref().map(|_| Vec::new());
        for row in 0..rows {
            for column in 0..columns {
                let at = row * columns + column;
                match mask.as_ref().map_or(1, |mask| mask[at]) {
                    0 => continue,
                    1 => {}
                    other => {
                        return Err(NnError::Batch(format!(
                            "attention_mask[{row}, {column}] is {other}, expected 0 or 1"
                        )));
                    }
                }
                batch
                    .input_ids
                    .push(index("input_ids", ids[at], row, column)?);
                batch.positions.push(column as u32);
                if let (Some(all), Some(types)) = (&mut batch.type_ids, &types) {
                    all.push(index("token_type_ids", types[at], row, column)?);
                }
            }
            let end = batch.input_ids.len() as u32;
            if batch.cu_seqlens.last() == Some(&end) {
                return Err(NnError::Batch(format!(
                    "sequence {row} has no real token: attention_mask[{row}, :] needs at least one 1"
                )));
            }
            batch.cu_seqlens.push(end);
        }
        Ok(batch)
    }

    /// The values of padded integers `[B,S]` at the batch's tokens, `[T]`: labels, say, as `transformers` takes them.
    ///
    /// # Errors
    /// When `padded` is not of an integer dtype or not as wide as the batch's positions.
    pub fn pack(&self, padded: &Tensor) -> Result<Vec<i64>, NnError> {
        let columns = padded.shape().last().copied().unwrap_or(0);
        let values = integers("the padded tensor", padded, &[self.len(), columns])?;
        let mut packed = Vec::with_capacity(self.tokens());
        for (row, ends) in self.cu_seqlens.windows(2).enumerate() {
            for &position in &self.positions[ends[0] as usize..ends[1] as usize] {
                if position as usize >= columns {
                    return Err(NnError::Batch(format!(
                        "sequence {row} has a token at position {position}, outside {columns} columns"
                    )));
                }
                packed.push(values[row * columns + position as usize]);
            }
        }
        Ok(packed)
    }

    /// Spreads packed f32 rows `[T, …]` over `[B, S, …]`, zero where there is no token; `S` is
    /// `columns`. The tokens go to the columns that are their positions.
    ///
    /// # Errors
    /// When `packed` has not one row a token, or a position is outside the columns.
    pub fn pad(&self, packed: &Tensor, columns: usize) -> Result<Tensor, NnError> {
        let shape = packed.shape();
        if shape.first() != Some(&self.tokens()) {
            return Err(NnError::Batch(format!(
                "a tensor of shape {shape:?} cannot be padded: the batch has {} tokens",
                self.tokens()
            )));
        }
        let width: usize = shape[1..].iter().product();
        let mut padded = vec![0.0f32; self.len() * columns * width];
        let values = packed.as_slice::<f32>()?;
        for (row, ends) in self.cu_seqlens.windows(2).enumerate() {
            for token in ends[0] as usize..ends[1] as usize {
                let column = self.positions[token] as usize;
                if column >= columns {
                    return Err(NnError::Batch(format!(
                        "sequence {row} has a token at position {column}, outside {columns} columns"
                    )));
                }
                let at = (row * columns + column) * width;
                padded[at..at + width].copy_from_slice(&values[token * width..][..width]);
            }
        }
        let mut padded_shape = vec![self.len(), columns];
        padded_shape.extend_from_slice(&shape[1..]);
        Ok(Tensor::from_vec(padded, &padded_shape)?)
    }

    /// Number of sequences (B).
    pub fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens (T).
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Token ids, `[T]`.
    pub fn input_ids(&self) -> &[u32] {
        &self.input_ids
    }

    /// Positions within the sequences, `[T]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Token types, `[T]`; absent means 0 everywhere.
    pub fn type_ids(&self) -> Option<&[u32]> {
        self.type_ids.as_deref()
    }

    /// Where the sequences start, and last where they end: B+1 offsets.
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.cu_seqlens
    }

    /// The packed row of each sequence's first token, `[B]`.
    pub fn first_tokens(&self) -> &[u32] {
        &self.cu_seqlens[..self.len()]
    }

    /// The batch with other token types, `[T]`.
    ///
    /// # Errors
    /// When they are not as many as the tokens.
    pub fn with_type_ids(mut self, type_ids: Vec<u32>) -> Result<Self, NnError> {
        if type_ids.len() != self.tokens() {
            return Err(NnError::Batch(format!(
                "{} token types for {} tokens",
                type_ids.len(),
                self.tokens()
            )));
        }
        self.type_ids = Some(type_ids);
        Ok(self)
    }

    /// Tokens of the longest sequence; 0 in a batch of none.
    pub fn longest(&self) -> usize {
        let lengths = self.cu_seqlens.windows(2).map(|ends| ends[1] - ends[0]);
        lengths.max().unwrap_or(0) as usize
    }

    /// Some of the sequences as a batch of their own.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn sequences(&self, range: std::ops::Range<usize>) -> Self {
        let ends = &self.cu_seqlens[range.start..=range.end];
        let first = ends[0];
        let tokens = first as usize..ends[ends.len() - 1] as usize;
        Self {
            input_ids: self.input_ids[tokens.clone()].to_vec(),
            positions: self.positions[tokens.clone()].to_vec(),
            type_ids: self.type_ids.as_ref().map(|types| types[tokens].to_vec()),
            cu_seqlens: ends.iter().map(|end| end - first).collect(),
        }
    }

    /// The rows of sequence `i`.
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.cu_seqlens[i] as usize..self.cu_seqlens[i + 1] as usize
    }
}

fn integers(name: &str, tensor: &Tensor, shape: &[usize]) -> Result<Vec<i64>, NnError> {
    if tensor.shape() != shape {
        return Err(NnError::Batch(format!(
            "{name} has shape {:?}, expected {shape:?} as input_ids",
            tensor.shape()
        )));
    }
    match tensor.dtype() {
        DType::I64 | DType::I32 | DType::U8 | DType::I8 | DType::Bool => {
            Ok(tensor.to_dtype(DType::I64)?.to_vec::<i64>()?)
        }
        other => Err(NnError::Batch(format!(
            "{name} has dtype {other}, expected an integer dtype (i64)"
        ))),
    }
}

fn index(name: &str, value: i64, row: usize, column: usize) -> Result<u32, NnError> {
    u32::try_from(value).map_err(|_| {
        NnError::Batch(format!(
            "{name}[{row}, {column}] is {value}, expected a number from 0 to 4294967295"
        ))
    })
}
