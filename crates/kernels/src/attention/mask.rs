//! Which keys a query sees.

use std::sync::Arc;

/// Which keys a query sees within its sequence. A mask is a rule, never a matrix: its memory is at most linear in the
/// length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mask {
    /// All keys of the query's own sequence.
    #[default]
    Full,
    /// Keys from `left` tokens before the query to `right` after it, both included.
    Window {
        /// Tokens before the query.
        left: usize,
        /// Tokens after the query.
        right: usize,
    },
    /// The keys of a window and the global tokens, each once (Longformer, Beltagy et al. 2020,
    /// <https://arxiv.org/abs/2004.05150>). The rows of the global tokens themselves follow the same rule: what they see
    /// through projections of their own is another attention.
    Global {
        /// Tokens before the query.
        left: usize,
        /// Tokens after the query.
        right: usize,
        /// For each sequence the places of its global tokens in it, ascending, each once.
        tokens: Arc<[Vec<u32>]>,
    },
    /// Whole blocks of keys (BigBird, Zaheer et al. 2020, <https://arxiv.org/abs/2007.14062>); a plan for each sequence.
    Blocks(Arc<[Arc<BlockPlan>]>),
}

/// The blocks of keys that each block of queries sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    /// Tokens in a block; a sequence's last block may have fewer.
    pub block: usize,
    /// `[head][block of queries]`: blocks of keys, one that is named twice counting twice in the softmax. One head stands
    /// for all. Blocks that lie beyond the sequence's end have no keys.
    pub heads: Vec<Vec<Vec<u32>>>,
}

impl BlockPlan {
    /// BigBird's plan over `blocks` blocks, at least 5: the first and last see all and are seen by all; the others see
    /// themselves, both neighbours and `random[head][b − 1]` for block b from 1 to `blocks` − 2.
    pub fn first_last_random(block: usize, blocks: usize, random: &[Vec<Vec<u32>>]) -> Self {
        let last = blocks.saturating_sub(1) as u32;
        let row = |b: u32, random: &[Vec<u32>]| -> Vec<u32> {
            if b == 0 || b == last {
                return (0..=last).collect();
            }
            let mut keys = vec![0, last];
            let near = [b - 1, b, b + 1];
            keys.extend(near.into_iter().filter(|&near| near != 0 && near != last));
            if let Some(random) = random.get(b as usize - 1) {
                keys.extend(random);
            }
            keys
        };
        let heads = random
            .iter()
            .map(|random| (0..blocks as u32).map(|b| row(b, random)).collect())
            .collect();
        Self { block, heads }
    }

    /// The blocks of keys of a block of queries.
    pub(super) fn keys(&self, head: usize, block: usize) -> &[u32] {
        let head = if self.heads.len() == 1 { 0 } else { head };
        &self.heads[head][block]
    }
}

impl Mask {
    /// Whether the mask fits sequences of these offsets; else what is wrong.
    ///
    /// # Errors
    /// When there is not one set of global tokens or one plan for each sequence, or one of them does not fit.
    pub fn check(&self, cu_seqlens: &[u32], heads: usize) -> Result<(), String> {
        let lengths: Vec<usize> = cu_seqlens
            .windows(2)
            .map(|ends| ends[1].saturating_sub(ends[0]) as usize)
            .collect();
        let number = |found: usize, of: &str| match found == lengths.len() {
            true => Ok(()),
            false => Err(format!("{found} {of} for {} sequences", lengths.len())),
        };
        match self {
            Self::Full | Self::Window { .. } => Ok(()),
            Self::Global { tokens, .. } => {
                number(tokens.len(), "sets of global tokens")?;
                for (i, (tokens, &len)) in tokens.iter().zip(&lengths).enumerate() {
                    if !tokens.windows(2).all(|pair| pair[0] < pair[1]) {
                        return Err(format!("global tokens of sequence {i} do not ascend"));
                    }
                    if let Some(&last) = tokens.last().filter(|&&last| last as usize >= len) {
                        return Err(format!("global token {last} in a sequence of {len}"));
                    }
                }
                Ok(())
            }
            Self::Blocks(plans) => {
                number(plans.len(), "block plans")?;
                for (plan, &len) in plans.iter().zip(&lengths) {
                    if plan.block == 0 || ![1, heads].contains(&plan.heads.len()) {
                        return Err(format!(
                            "a plan of blocks of {} for {} heads, where there are {heads}",
                            plan.block,
                            plan.heads.len()
                        ));
                    }
                    let blocks = len.div_ceil(plan.block);
                    if let Some(short) = plan.heads.iter().find(|rows| rows.len() < blocks) {
                        let found = short.len();
                        return Err(format!("a plan of {found} blocks for {blocks} blocks"));
                    }
                }
                Ok(())
            }
        }
    }

    /// The places of the keys that a query sees in its sequence of `len` keys, as often as it sees them.
    pub(super) fn visible(
        &self,
        sequence: usize,
        head: usize,
        query: usize,
        len: usize,
    ) -> Vec<usize> {
        let window = |left: usize, right: usize| {
            query.saturating_sub(left)..query.saturating_add(right).saturating_add(1).min(len)
        };
        match self {
            Self::Full => (0..len).collect(),
            &Self::Window { left, right } => window(left, right).collect(),
            Self::Global {
                left,
                right,
                tokens,
            } => {
                let tokens = &tokens[sequence];
                let near = window(*left, *right);
                let near = near.filter(|&key| tokens.binary_search(&(key as u32)).is_err());
                tokens
                    .iter()
                    .map(|&token| token as usize)
                    .chain(near)
                    .collect()
            }
            Self::Blocks(plans) => {
                let plan = &plans[sequence];
                let blocks = plan.keys(head, query / plan.block).iter();
                blocks
                    .flat_map(|&block| {
                        let first = block as usize * plan.block;
                        first..len.min(first + plan.block)
                    })
                    .collect()
            }
        }
    }
}

/// What is added to scores, by head and distance: `values[h][clamp(key − query, −reach, reach) + reach]`. Buckets of
/// distances (T5, MPNet) are a lookup that fills it; its gradient is one number for each value.
#[derive(Clone, Copy, Debug)]
pub struct RelativeBias<'a, F = f32> {
    /// `[H, 2·reach + 1]`.
    pub values: &'a [F],
    /// The distance from which on all are the same.
    pub reach: usize,
}

impl<F> RelativeBias<'_, F> {
    /// Where the value of a query and a key is.
    #[inline(always)]
    pub(super) fn at(&self, head: usize, query: usize, key: usize) -> usize {
        let reach = self.reach as isize;
        let distance = (key as isize - query as isize).clamp(-reach, reach) + reach;
        head * (2 * self.reach + 1) + distance as usize
    }
}
