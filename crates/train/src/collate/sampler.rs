//! Which examples make which batch, in what order: a function of seed, epoch and lengths alone.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::random::{Permutation, Seed, Stream};

/// How large a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSize {
    /// So many examples, the last batch of a pool fewer.
    Examples(usize),
    /// As many examples as have this many tokens together, at least one.
    Tokens(usize),
}

/// How examples are put into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerOptions {
    /// How large a batch is.
    pub batch: BatchSize,
    /// Whether the order changes from epoch to epoch; otherwise examples come as they are.
    pub shuffle: bool,
    /// Examples (neighbours in the epoch's order) that are sorted by length before they are cut into
    /// batches, so that a batch holds examples of like length; the batches of a pool are shuffled. 0
    /// sorts nothing. Like lengths balance ranks and threads; packed batches need them not.
    pub pool: usize,
    /// Whether a pool's last batch is left out when it is not full. Keeps batches even.
    pub drop_last: bool,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            batch: BatchSize::Examples(32),
            shuffle: true,
            pool: 0,
            drop_last: false,
        }
    }
}

/// Examples of a pool where none is asked for: nothing is sorted then, and only memory depends on it.
const CHUNK: usize = 1 << 16;

/// Where a pass over the data is. Saved, it is all that is needed to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch, from 0.
    pub epoch: u32,
    /// The pool of the epoch.
    pub pool: u64,
    /// The next batch of the pool.
    pub batch: u64,
}

/// Gives batches of example numbers.
///
/// ```
/// use bertha_train::collate::{BatchSize, Cursor, Sampler, SamplerOptions};
/// use bertha_train::random::Seed;
///
/// let options = SamplerOptions { batch: BatchSize::Tokens(100), ..SamplerOptions::default() };
/// let sampler = Sampler::new(vec![40; 10], options, Seed::new(1))?;
/// let mut cursor = Cursor::default();
/// assert_eq!(sampler.next(&mut cursor).len(), 2);
/// assert_eq!(sampler.batches(0), 5);
/// # Ok::<(), bertha_train::TrainError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    lengths: Vec<u32>,
    options: SamplerOptions,
    seed: Seed,
}

impl Sampler {
    /// A sampler over examples of these lengths in tokens.
    ///
    /// # Errors
    /// [`TrainError::Setting`] when there is no example or a batch would be empty.
    pub fn new(lengths: Vec<u32>, options: SamplerOptions, seed: Seed) -> Result<Self, TrainError> {
        let refuse = |setting, found: &str, expected: &str| {
            Err(TrainError::Setting {
                setting,
                found: found.to_owned(),
                expected: expected.to_owned(),
            })
        };
        if lengths.is_empty() {
            return refuse("the number of examples", "0", "at least 1");
        }
        if matches!(options.batch, BatchSize::Examples(0) | BatchSize::Tokens(0)) {
            return refuse("the size of a batch", "0", "at least 1");
        }
        let sampler = Self {
            lengths,
            options,
            seed,
        };
        if options.drop_last && sampler.batches(0) == 0 {
            let found = format!("more than the {} examples fill", sampler.lengths.len());
            return refuse(
                "the size of a batch",
                &found,
                "at most all, or drop_last off",
            );
        }
        Ok(sampler)
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no example; never so.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Number of batches of an epoch. With a budget of tokens it differs a little from epoch to epoch.
    pub fn batches(&self, epoch: u32) -> u64 {
        (0..self.pools())
            .map(|pool| self.pool(epoch, pool).len() as u64)
            .sum()
    }

    /// The batch at the cursor, which is moved past it; after the last batch of an epoch the next one
    /// begins. A cursor from elsewhere that is beyond its pool goes on with the next.
    pub fn next(&self, cursor: &mut Cursor) -> Vec<u32> {
        loop {
            if cursor.pool >= self.pools() {
                *cursor = Cursor {
                    epoch: cursor.epoch.wrapping_add(1),
                    pool: 0,
                    batch: 0,
                };
            }
            let mut batches = self.pool(cursor.epoch, cursor.pool);
            if let Some(batch) = batches.get_mut(cursor.batch as usize) {
                let batch = std::mem::take(batch);
                cursor.batch += 1;
                if cursor.batch as usize >= batches.len() {
                    cursor.pool += 1;
                    cursor.batch = 0;
                }
                return batch;
            }
            cursor.pool += 1;
            cursor.batch = 0;
        }
    }

    /// All batches of an epoch, in order.
    pub fn epoch(&self, epoch: u32) -> impl Iterator<Item = Vec<u32>> {
        (0..self.pools()).flat_map(move |pool| self.pool(epoch, pool))
    }

    /// Number of pools of an epoch.
    pub fn pools(&self) -> u64 {
        self.len().div_ceil(self.pool_size()) as u64
    }

    fn pool_size(&self) -> usize {
        match self.options.pool {
            // Whole batches, so that a fixed size is one throughout.
            0 => match self.options.batch {
                BatchSize::Examples(size) => size.saturating_mul((CHUNK / size).max(1)),
                BatchSize::Tokens(_) => CHUNK,
            },
            size => size,
        }
    }

    /// The batches of one pool of an epoch, in order.
    pub fn pool(&self, epoch: u32, pool: u64) -> Vec<Vec<u32>> {
        let start = (pool as usize)
            .saturating_mul(self.pool_size())
            .min(self.len());
        let end = start.saturating_add(self.pool_size()).min(self.len());
        let order = Permutation::new(self.seed, epoch, self.len() as u64);
        let mut examples: Vec<u32> = (start..end)
            .map(|place| match self.options.shuffle {
                true => order.get(place as u64) as u32,
                false => place as u32,
            })
            .collect();
        if self.options.pool > 0 {
            // The sort is stable: examples of a length stay in the epoch's order.
            examples.sort_by_key(|&example| self.lengths[example as usize]);
        }
        let mut batches = self.cut(&examples);
        if self.options.pool > 0 && self.options.shuffle {
            // Pools are numbered far above the items of other uses of this stream.
            let mut rng = self.seed.rng(Stream::Shuffle, (1 << 63) | pool, epoch);
            rng.shuffle(&mut batches);
        }
        batches
    }

    fn cut(&self, examples: &[u32]) -> Vec<Vec<u32>> {
        let (budget, cost): (usize, fn(u32) -> usize) = match self.options.batch {
            BatchSize::Examples(size) => (size, |_| 1),
            BatchSize::Tokens(tokens) => (tokens, |length| length as usize),
        };
        let mut batches = Vec::new();
        let (mut batch, mut used) = (Vec::new(), 0);
        for &example in examples {
            let cost = cost(self.lengths[example as usize]);
            if !batch.is_empty() && used + cost > budget {
                batches.push(std::mem::take(&mut batch));
                used = 0;
            }
            batch.push(example);
            used += cost;
        }
        let full = match self.options.batch {
            BatchSize::Examples(size) => batch.len() == size,
            // A batch that one more example of its kind would not fit in.
            BatchSize::Tokens(tokens) => batch
                .last()
                .is_some_and(|&last| used + self.lengths[last as usize] as usize > tokens),
        };
        if !batch.is_empty() && (full || !self.options.drop_last) {
            batches.push(batch);
        }
        batches
    }
}

/// Deals the examples of a batch to ranks so that each gets as many (to one) and about as many tokens:
/// sorted by falling length, then back and forth over the ranks. Gives the examples of `rank`.
///
/// # Panics
/// When `rank` is not below `world`.
pub fn deal(batch: &[u32], lengths: &[u32], rank: usize, world: usize) -> Vec<u32> {
    assert!(rank < world, "rank {rank} of {world}");
    let mut sorted = batch.to_vec();
    sorted.sort_by_key(|&example| std::cmp::Reverse(lengths[example as usize]));
    let rows = sorted.chunks(world).enumerate();
    let place = |row: usize| {
        if row.is_multiple_of(2) {
            rank
        } else {
            world - 1 - rank
        }
    };
    rows.filter_map(|(row, examples)| examples.get(place(row)).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<u32> {
        let mut rng = Seed::new(9).rng(Stream::Eval, 0, 0);
        (0..n).map(|_| 5 + rng.below(100) as u32).collect()
    }

    fn sampler(options: SamplerOptions) -> Sampler {
        Sampler::new(lengths(1000), options, Seed::new(4)).unwrap()
    }

    fn kinds() -> Vec<SamplerOptions> {
        let mut kinds = Vec::new();
        for batch in [BatchSize::Examples(7), BatchSize::Tokens(300)] {
            for (shuffle, pool) in [(true, 0), (false, 0), (true, 128), (false, 128)] {
                kinds.push(SamplerOptions {
                    batch,
                    shuffle,
                    pool,
                    drop_last: false,
                });
            }
        }
        kinds
    }

    #[test]
    fn every_example_comes_once_an_epoch() {
        for options in kinds() {
            let sampler = sampler(options);
            let mut all: Vec<u32> = sampler.epoch(3).flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..1000).collect::<Vec<_>>(), "{options:?}");
        }
    }

    #[test]
    fn batches_keep_to_their_size() {
        for options in kinds() {
            let sampler = sampler(options);
            for batch in sampler.epoch(0) {
                match options.batch {
                    BatchSize::Examples(size) => assert!(batch.len() <= size),
                    BatchSize::Tokens(tokens) => {
                        let used: u32 = batch.iter().map(|&i| sampler.lengths[i as usize]).sum();
                        assert!(used as usize <= tokens);
                    }
                }
            }
        }
        let long = SamplerOptions {
            batch: BatchSize::Tokens(10),
            ..SamplerOptions::default()
        };
        let sampler = Sampler::new(vec![50, 3, 4], long, Seed::new(1)).unwrap();
        assert!(sampler.epoch(0).any(|batch| batch == [0]));
    }

    #[test]
    fn a_cursor_resumes_anywhere() {
        for options in kinds() {
            let sampler = sampler(options);
            let whole: Vec<Vec<u32>> = sampler.epoch(0).chain(sampler.epoch(1)).collect();
            let mut cursor = Cursor::default();
            let mut found = Vec::new();
            for _ in 0..whole.len() {
                let json = serde_json::to_string(&cursor).unwrap();
                cursor = serde_json::from_str(&json).unwrap();
                found.push(sampler.next(&mut cursor));
            }
            assert_eq!(found, whole, "{options:?}");
        }
        let mut beyond = Cursor {
            epoch: 2,
            pool: u64::MAX,
            batch: 7,
        };
        sampler(SamplerOptions::default()).next(&mut beyond);
        assert_eq!(beyond.epoch, 3);
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let shuffled = sampler(kinds()[2]);
        let epoch = |epoch| shuffled.epoch(epoch).collect::<Vec<_>>();
        assert_eq!(epoch(0), epoch(0));
        assert_ne!(epoch(0), epoch(1));
        let fixed = sampler(kinds()[1]);
        assert_eq!(fixed.epoch(0).next(), Some((0..7).collect()));
    }

    #[test]
    fn pools_hold_like_lengths() {
        let spread = |options| {
            let sampler = sampler(options);
            let one = |batch: &Vec<u32>| {
                let lengths = batch.iter().map(|&i| sampler.lengths[i as usize]);
                lengths.clone().max().unwrap() - lengths.min().unwrap()
            };
            sampler
                .epoch(0)
                .map(|batch| f64::from(one(&batch)))
                .sum::<f64>()
                / sampler.batches(0) as f64
        };
        let kinds = kinds();
        assert!(spread(kinds[2]) < 0.3 * spread(kinds[0]));
    }

    #[test]
    fn what_is_not_full_can_be_dropped() {
        let options = SamplerOptions {
            batch: BatchSize::Examples(300),
            drop_last: true,
            ..SamplerOptions::default()
        };
        let sizes: Vec<usize> = sampler(options).epoch(0).map(|batch| batch.len()).collect();
        assert_eq!(sizes, [300; 3]);
        assert!(Sampler::new(vec![1; 10], options, Seed::new(0)).is_err());
        assert!(Sampler::new(vec![], SamplerOptions::default(), Seed::new(0)).is_err());
    }

    #[test]
    fn ranks_share_a_batch_evenly() {
        let lengths = lengths(448);
        let batch: Vec<u32> = (0..448).collect();
        let shares: Vec<Vec<u32>> = (0..8).map(|rank| deal(&batch, &lengths, rank, 8)).collect();
        let mut all = shares.concat();
        all.sort_unstable();
        assert_eq!(all, batch);
        let tokens = |share: &Vec<u32>| share.iter().map(|&i| lengths[i as usize]).sum::<u32>();
        let (most, least) = (
            shares.iter().map(tokens).max().unwrap(),
            shares.iter().map(tokens).min().unwrap(),
        );
        assert!(f64::from(most) < 1.01 * f64::from(least), "{most} {least}");
        assert_eq!(deal(&[5], &lengths, 1, 2), [] as [u32; 0]);
    }
}
