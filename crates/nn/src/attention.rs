//! Multi-head self-attention: one product for queries, keys and values, attention, one product out.

use std::sync::Arc;

use bertha_autograd::ops::{self, Projections};
use bertha_autograd::{Precision, Session, Var};
use bertha_kernels::{AttentionShape, Mask};

use crate::binary_attention::{BinaryAttention, BinaryHeads};
use crate::disentangled::{Disentangled, Heads};
use crate::{Batch, BlockPattern, GlobalTokens, Linear, NnError, Rotary, Weights};

/// What attention reads beside the tokens' vectors.
#[derive(Clone, Copy)]
pub struct AttentionContext<'a> {
    /// Which rows belong together.
    pub batch: &'a Batch,
    /// What is added to scores by head and distance, `[H, 2·reach + 1]`.
    pub bias: Option<&'a Var>,
    /// The vectors of distances, `[2·span, N]`, of disentangled layers.
    pub distances: Option<&'a Var>,
    /// The global tokens, of layers that see windows.
    pub globals: Option<&'a GlobalTokens>,
}

/// The projections by which global tokens see all of their sequence (Beltagy et al. 2020,
/// <https://arxiv.org/abs/2004.05150>).
pub struct GlobalProjections {
    /// `[T,N]` to `[T,H·D]`.
    pub query: Linear,
    /// Keys and values side by side, `[T,N]` to `[T,2·H·D]`.
    pub key_value: Linear,
}

/// Which keys of its sequence a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// All.
    #[default]
    Full,
    /// So many tokens to either side, and global tokens where there are some.
    Window(usize),
    /// Blocks.
    Blocks(BlockPattern),
}

/// Scaled dot-product self-attention over each sequence of a batch
/// (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
pub struct SelfAttention {
    qkv: Linear,
    output: Linear,
    heads: usize,
    head_dim: usize,
    pattern: Pattern,
    rotary: Option<Arc<Rotary>>,
    global: Option<GlobalProjections>,
    disentangled: Option<Disentangled>,
    binary: Option<BinaryAttention>,
    /// Probability that an attention weight is dropped in training.
    weight_dropout: f32,
    /// Probability that a value of the output is dropped in training.
    dropout: f32,
}

impl SelfAttention {
    /// From a layer that gives queries, keys and values side by side (`[T,N]` to `[T,3·H·D]`) and the
    /// layer that mixes the heads (`[T,H·D]` to `[T,N]`).
    ///
    /// # Errors
    /// When the layers' widths are not those of `heads` heads.
    pub fn new(qkv: Linear, output: Linear, heads: usize) -> Result<Self, NnError> {
        let hidden = output.inputs();
        if heads == 0 || !hidden.is_multiple_of(heads) || qkv.outputs() != 3 * hidden {
            return Err(NnError::Batch(format!(
                "attention of {heads} heads over width {hidden} cannot take queries, keys and \
                 values of width {} together",
                qkv.outputs()
            )));
        }
        Ok(Self {
            head_dim: hidden / heads,
            qkv,
            output,
            heads,
            pattern: Pattern::Full,
            rotary: None,
            global: None,
            disentangled: None,
            binary: None,
            weight_dropout: 0.0,
            dropout: 0.0,
        })
    }

    /// Sets the probabilities of dropping attention weights, and values of the output, in training.
    #[must_use]
    pub fn with_dropout(mut self, weights: f32, output: f32) -> Self {
        (self.weight_dropout, self.dropout) = (weights, output);
        self
    }

    /// Sets which keys a query sees; without, all of its sequence.
    #[must_use]
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// Sets how queries and keys are turned by their places (RoPE); without, they are not.
    #[must_use]
    pub fn with_rotary(mut self, rotary: Arc<Rotary>) -> Self {
        self.rotary = Some(rotary);
        self
    }

    /// Sets the projections of global tokens; without, these see what their window has, as the others do.
    #[must_use]
    pub fn with_global(mut self, projections: GlobalProjections) -> Self {
        self.global = Some(projections);
        self
    }

    /// Makes attention disentangled, of contents and distances.
    #[must_use]
    pub fn with_disentangled(mut self, disentangled: Disentangled) -> Self {
        self.disentangled = Some(disentangled);
        self
    }

    /// Binarizes attention itself as the model of `weights` is; without, it is as usual.
    ///
    /// # Errors
    /// When what it learned of its levels is missing.
    pub fn binarized_as(mut self, weights: &Weights<'_>) -> Result<Self, NnError> {
        self.binary = BinaryAttention::load(weights)?;
        Ok(self)
    }

    /// `x[T,N]` to `residual[T,N] + dropout(attention(x))`, f32.
    ///
    /// # Errors
    /// When `x` has another width than the layer or another length than the batch, or the bias is not of this layer's heads.
    pub fn forward(
        &self,
        session: &Session,
        x: &Var,
        context: AttentionContext<'_>,
        residual: &Var,
    ) -> Result<Var, NnError> {
        let cu_seqlens = context.batch.cu_seqlens();
        let mut qkv = self.qkv.forward(session, x)?;
        let mut turns = (self.rotary.as_ref()).map(|rotary| rotary.table(context.batch.longest()));
        // Queries and keys are turned as attention reads them, unless somebody else reads them too.
        if (self.binary.is_some() || session.is_observed())
            && let Some(table) = turns.take()
        {
            qkv = ops::rope(session, qkv, cu_seqlens, 2 * self.heads, &table)?;
        }
        session.tap(&qkv);
        if let Some(binary) = &self.binary {
            if self.pattern != Pattern::Full
                || context.bias.is_some()
                || self.disentangled.is_some()
            {
                return Err(NnError::Batch(
                    "a model whose attention sees windows or blocks, or knows distances, cannot be binarized: \
                     attention of bits sees whole sequences, and signs alone"
                        .into(),
                ));
            }
            let heads = BinaryHeads {
                heads: self.heads,
                head_dim: self.head_dim,
                dropout: self.weight_dropout,
            };
            let seen = binary.forward(session, &qkv, cu_seqlens, heads)?;
            drop(qkv);
            return self
                .output
                .forward_dropout_add(session, &seen, self.dropout, residual);
        }
        if let Some(disentangled) = &self.disentangled {
            let table = context.distances.ok_or_else(|| {
                NnError::Batch("disentangled attention without vectors of distances".into())
            })?;
            let heads = Heads {
                qkv: &self.qkv,
                heads: self.heads,
                head_dim: self.head_dim,
                dropout: self.weight_dropout,
            };
            let seen = disentangled.forward(session, &qkv, table, cu_seqlens, &heads)?;
            drop(qkv);
            return self
                .output
                .forward_dropout_add(session, &seen, self.dropout, residual);
        }
        let globals = context.globals.filter(|globals| !globals.rows().is_empty());
        let mask = match (self.pattern, globals) {
            (Pattern::Full, _) => Mask::Full,
            (Pattern::Window(side), None) => Mask::Window {
                left: side,
                right: side,
            },
            (Pattern::Window(side), Some(globals)) => Mask::Global {
                left: side,
                right: side,
                tokens: Arc::clone(globals.places()),
            },
            (Pattern::Blocks(blocks), _) => {
                blocks.mask(context.batch, self.heads, session.is_training())
            }
        };
        let shape = self.shape();
        // As in `transformers`, weights over blocks are not dropped.
        let dropout = match mask {
            Mask::Blocks(_) => 0.0,
            _ => self.weight_dropout,
        };
        let mut seen = match context.bias {
            None => {
                let mask = (mask, turns.as_ref());
                ops::attention(session, &qkv, cu_seqlens, mask, shape, dropout)?
            }
            bias => {
                if let Some(table) = turns {
                    qkv = ops::rope(session, qkv, cu_seqlens, 2 * self.heads, &table)?;
                }
                let qkv = Projections::Together(&qkv);
                ops::masked_attention(session, qkv, cu_seqlens, mask, bias, shape, dropout)?
            }
        };
        drop(qkv);
        if let (Some(projections), Some(globals)) = (&self.global, globals) {
            let rows = self.of_globals(session, x, cu_seqlens, projections, globals)?;
            seen = ops::replace_rows(session, seen, globals.rows(), &rows)?;
        }
        self.output
            .forward_dropout_add(session, &seen, self.dropout, residual)
    }

    /// What global tokens see of their whole sequences, `[G,H·D]`.
    fn of_globals(
        &self,
        session: &Session,
        x: &Var,
        cu_seqlens: &[u32],
        projections: &GlobalProjections,
        globals: &GlobalTokens,
    ) -> Result<Var, NnError> {
        let read = ops::gather_rows(session, x, globals.rows())?;
        let crossed = Projections::Crossed {
            queries: &projections.query.forward(session, &read)?,
            cu_queries: globals.cu_seqlens(),
            keys_values: &projections.key_value.forward(session, x)?,
        };
        let (shape, dropout) = (self.shape(), self.weight_dropout);
        let mask = Mask::Full;
        let seen = ops::masked_attention(session, crossed, cu_seqlens, mask, None, shape, dropout)?;
        Ok(seen)
    }

    fn shape(&self) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
        }
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let global = self.global.iter();
        let global = global.flat_map(|global| [&global.query, &global.key_value]);
        let distances = self.disentangled.iter().flat_map(Disentangled::linears);
        [&self.qkv, &self.output]
            .into_iter()
            .chain(global)
            .chain(distances)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.linears().map(Linear::parameters).sum()
    }

    /// Bytes of the weights, in passes of a precision.
    pub fn bytes(&self, precision: Precision) -> usize {
        self.linears().map(|linear| linear.bytes(precision)).sum()
    }
}
