//! BigBird's attention by blocks (Zaheer et al. 2020, <https://arxiv.org/abs/2007.14062>): the first and last block, both
//! neighbours, and random ones, drawn as `transformers` draws them.

use std::ops::Range;
use std::sync::Arc;

use bertha_kernels::{BlockPlan, Mask};

use crate::Batch;
use crate::mt19937::Mt19937;

/// Lengths, in tokens, whose random blocks are drawn as the paper's checkpoints had them.
const PAPER_LENGTHS: [usize; 3] = [1024, 3072, 4096];

/// Those checkpoints look no further than this many tokens for random blocks.
const PAPER_REACH: usize = 1024;

/// Which blocks the queries of a layer see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPattern {
    /// Tokens in a block.
    pub block: usize,
    /// Random blocks of a block of queries.
    pub random: usize,
    /// The longest sequence of the model, in tokens.
    pub max_tokens: usize,
    /// What the random blocks are a function of: the layer's number.
    pub seed: u32,
}

impl BlockPattern {
    /// The mask of a batch. A sequence of `(5 + 2·random)` blocks or fewer sees all of itself; what others see does not
    /// depend on what else is in the batch.
    ///
    /// Outside of training the random blocks are all the first one, which then counts `1 + random` times, as in
    /// `transformers`; in training they are drawn, the same ones each time.
    pub fn mask(&self, batch: &Batch, heads: usize, training: bool) -> Mask {
        let lengths = || {
            batch
                .cu_seqlens()
                .windows(2)
                .map(|ends| (ends[1] - ends[0]) as usize)
        };
        if lengths().all(|len| self.is_full(len)) {
            return Mask::Full;
        }
        let plan = |len: usize| {
            let blocks = len.div_ceil(self.block);
            if self.is_full(len) {
                let all: Vec<u32> = (0..blocks as u32).collect();
                return Arc::new(BlockPlan {
                    block: self.block,
                    heads: vec![vec![all; blocks]],
                });
            }
            let random = match training {
                true => self.drawn(blocks, heads),
                false => vec![vec![vec![0; self.random]; blocks - 2]],
            };
            Arc::new(BlockPlan::first_last_random(self.block, blocks, &random))
        };
        Mask::Blocks(lengths().map(plan).collect())
    }

    fn is_full(&self, len: usize) -> bool {
        len <= (5 + 2 * self.random) * self.block
    }

    /// The random blocks of each head, for the second to the last block of queries but one.
    fn drawn(&self, blocks: usize, heads: usize) -> Vec<Vec<Vec<u32>>> {
        let mut random = Mt19937::new(self.seed);
        if PAPER_LENGTHS.contains(&(blocks * self.block)) {
            let head = |_| {
                let mut rows = self.drawn_for_longest(&mut random);
                rows.truncate(blocks - 2);
                rows
            };
            return (0..heads).map(head).collect();
        }
        // From the first blocks alone, row by row, and head by head within a row.
        let among = (5 + 2 * self.random) as u32;
        let mut all = vec![Vec::with_capacity(blocks - 1); heads];
        for row in 1..blocks as u32 {
            for rows in &mut all {
                let mut order: Vec<u32> = (0..among).collect();
                random.shuffle(&mut order);
                let seen = |&key: &u32| {
                    key.abs_diff(row) <= 1
                        || key == 0
                        || key == among - 1
                        || (row == 1 && key == among - 2)
                        || (row == among - 2 && key == 1)
                };
                order.retain(|key| !seen(key));
                order.truncate(self.random);
                rows.push(order);
            }
        }
        // The last row is drawn, and sees all anyway.
        all.iter_mut().for_each(|rows| rows.truncate(blocks - 2));
        all
    }

    /// One head's rows for the model's longest sequence, of which shorter ones take the first.
    fn drawn_for_longest(&self, random: &mut Mt19937) -> Vec<Vec<u32>> {
        let blocks = self.max_tokens / self.block;
        let middle: Vec<u32> = (1..blocks.saturating_sub(1) as u32).collect();
        let last = match PAPER_REACH > 2 * self.block {
            true => PAPER_REACH / self.block - 1,
            false => blocks - 1,
        };
        let part = |range: Range<usize>| {
            let end = range.end.min(middle.len());
            &middle[range.start.min(end)..end]
        };
        let mut row = |i: usize| {
            let start = i.saturating_sub(2);
            let mut order = match i {
                1 => part(2..last).to_vec(),
                2 => part(3..last).to_vec(),
                _ if i + 3 == blocks || i + 2 == blocks || start > last => part(0..last).to_vec(),
                _ if i + 1 == last => part(0..start).to_vec(),
                _ => [part(0..start), part(i + 1..last)].concat(),
            };
            random.shuffle(&mut order);
            order.truncate(self.random);
            order
        };
        (1..blocks.saturating_sub(1)).map(&mut row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(random: usize, max_tokens: usize) -> BlockPattern {
        BlockPattern {
            block: 64,
            random,
            max_tokens,
            seed: 0,
        }
    }

    #[test]
    fn random_blocks_are_those_of_transformers() {
        // BigBirdBlockSparseAttention of `transformers` in training mode, layer 0.
        let long = pattern(3, 4096).drawn(16, 1);
        let expected = [
            [9, 14, 7],
            [9, 6, 7],
            [10, 5, 14],
            [6, 8, 12],
            [2, 13, 1],
            [4, 11, 3],
            [1, 10, 5],
            [2, 3, 15],
            [13, 11, 14],
            [15, 13, 8],
            [9, 7, 4],
            [1, 2, 5],
            [8, 9, 7],
            [2, 6, 5],
        ];
        assert_eq!(long[0], expected);
        let short = pattern(3, 4096).drawn(12, 2);
        let first = [
            [4, 6, 7],
            [6, 7, 9],
            [8, 9, 5],
            [2, 6, 7],
            [8, 1, 2],
            [3, 8, 9],
            [1, 4, 5],
            [1, 4, 5],
            [4, 7, 6],
            [7, 2, 6],
        ];
        let second = [
            [3, 5, 4],
            [7, 6, 9],
            [1, 7, 8],
            [7, 6, 8],
            [2, 3, 9],
            [9, 4, 3],
            [5, 9, 3],
            [1, 4, 2],
            [6, 2, 7],
            [2, 1, 3],
        ];
        assert_eq!(short[0], first);
        assert_eq!(short[1], second);
    }

    #[test]
    fn a_sequence_is_dense_up_to_its_length_and_on_its_own() {
        let pattern = pattern(3, 4096);
        let batch = |lengths: &[usize]| {
            let ids: Vec<Vec<u32>> = lengths.iter().map(|&len| vec![0; len]).collect();
            Batch::from_sequences(&ids).unwrap()
        };
        assert_eq!(pattern.mask(&batch(&[704, 5]), 2, true), Mask::Full);
        let Mask::Blocks(both) = pattern.mask(&batch(&[705, 5]), 2, true) else {
            panic!("705 tokens are sparse");
        };
        let Mask::Blocks(alone) = pattern.mask(&batch(&[705]), 2, true) else {
            panic!("705 tokens are sparse");
        };
        assert_eq!(both[0], alone[0]);
        assert_eq!(both[1].heads, [[[0]]]);
        // Outside of training the first block counts four times.
        let Mask::Blocks(still) = pattern.mask(&batch(&[705]), 2, false) else {
            panic!("705 tokens are sparse");
        };
        let counted = still[0].heads[0][5].iter().filter(|&&key| key == 0);
        assert_eq!(counted.count(), 4);
    }
}
