//! The merging of byte pair encoding: of all neighbours that may merge, those of the lowest rank do, leftmost first,
//! until none may.
//!
//! Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units",
//! <https://arxiv.org/abs/1508.07909>.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Which pairs of ids merge: into what, and in which order.
#[derive(Debug)]
pub(crate) struct Merges {
    slots: Vec<Slot>,
    shift: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    pair: u64,
    rank: u32,
    id: u32,
}

/// No rank: nothing merges.
const NEVER: u32 = u32::MAX;
const FREE: Slot = Slot {
    pair: u64::MAX,
    rank: NEVER,
    id: 0,
};

impl Merges {
    /// Room for so many pairs.
    pub(crate) fn with_room(pairs: usize) -> Self {
        let bits = (pairs.max(1) * 2).next_power_of_two().trailing_zeros();
        Self {
            slots: vec![FREE; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    #[inline]
    fn pair(left: u32, right: u32) -> u64 {
        u64::from(left) << 32 | u64::from(right)
    }

    #[inline]
    fn slot(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize & mask;
        while self.slots[at].pair != pair && self.slots[at].pair != u64::MAX {
            at = (at + 1) & mask;
        }
        at
    }

    /// Adds a pair of ids below 2^31, or changes what becomes of it.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, id: u32) {
        let pair = Self::pair(left, right);
        let at = self.slot(pair);
        self.slots[at] = Slot { pair, rank, id };
    }

    /// Rank and result of a pair; the rank is the largest number if it does not merge.
    #[inline]
    fn find(&self, left: u32, right: u32) -> (u32, u32) {
        let slot = self.slots[self.slot(Self::pair(left, right))];
        (slot.rank, slot.id)
    }
}

/// A symbol of a word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    pub(crate) id: u32,
    /// Bytes that it stands for.
    pub(crate) len: u32,
    /// What becomes of it and its right neighbour.
    rank: u32,
    merged: u32,
}

impl Symbol {
    pub(crate) fn new(id: u32, len: u32) -> Self {
        Self {
            id,
            len,
            rank: NEVER,
            merged: 0,
        }
    }
}

/// A word's symbols, and what long words need.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) symbols: Vec<Symbol>,
    links: Vec<(u32, u32)>,
    queue: BinaryHeap<Reverse<(u32, u32, u32)>>,
}

/// The longest word whose pairs are searched one by one for the next.
const SHORT: usize = 48;
const NONE: u32 = u32::MAX;

impl Scratch {
    /// Merges the symbols.
    pub(crate) fn merge(&mut self, merges: &Merges) {
        if self.symbols.len() <= SHORT {
            self.merge_short(merges);
        } else {
            self.merge_long(merges);
        }
    }

    fn merge_short(&mut self, merges: &Merges) {
        let symbols = &mut self.symbols;
        for at in 1..symbols.len() {
            let (rank, merged) = merges.find(symbols[at - 1].id, symbols[at].id);
            (symbols[at - 1].rank, symbols[at - 1].merged) = (rank, merged);
        }
        if let Some(last) = symbols.last_mut() {
            last.rank = NEVER;
        }
        loop {
            let (mut at, mut lowest) = (0, NEVER);
            for (here, symbol) in symbols.iter().enumerate() {
                if symbol.rank < lowest {
                    (at, lowest) = (here, symbol.rank);
                }
            }
            if lowest == NEVER {
                return;
            }
            let right = symbols[at + 1];
            symbols[at].id = symbols[at].merged;
            symbols[at].len += right.len;
            symbols.copy_within(at + 2.., at + 1);
            symbols.truncate(symbols.len() - 1);
            let id = symbols[at].id;
            (symbols[at].rank, symbols[at].merged) = match symbols.get(at + 1) {
                Some(next) => merges.find(id, next.id),
                None => (NEVER, 0),
            };
            if at > 0 {
                let (rank, merged) = merges.find(symbols[at - 1].id, id);
                (symbols[at - 1].rank, symbols[at - 1].merged) = (rank, merged);
            }
        }
    }

    /// With a queue of pairs and a list of neighbours.
    fn merge_long(&mut self, merges: &Merges) {
        let Self {
            symbols,
            links,
            queue,
        } = self;
        let count = symbols.len();
        links.clear();
        links.extend((0..count as u32).map(|at| {
            let next = if at as usize + 1 < count {
                at + 1
            } else {
                NONE
            };
            (at.wrapping_sub(1), next)
        }));
        queue.clear();
        let mut waiting = std::mem::take(queue).into_vec();
        for at in 1..count {
            let (rank, id) = merges.find(symbols[at - 1].id, symbols[at].id);
            if rank != NEVER {
                waiting.push(Reverse((rank, at as u32 - 1, id)));
            }
        }
        *queue = BinaryHeap::from(waiting);
        while let Some(Reverse((_, at, id))) = queue.pop() {
            let place = at as usize;
            let next = links[place].1;
            if symbols[place].len == NONE || next == NONE {
                continue;
            }
            let right = symbols[next as usize];
            // Either symbol may have merged with another since.
            let (rank, now) = merges.find(symbols[place].id, right.id);
            if rank == NEVER || now != id {
                continue;
            }
            symbols[place].id = id;
            symbols[place].len += right.len;
            symbols[next as usize].len = NONE;
            let after = links[next as usize].1;
            links[place].1 = after;
            if after != NONE {
                links[after as usize].0 = at;
                let (rank, merged) = merges.find(id, symbols[after as usize].id);
                if rank != NEVER {
                    queue.push(Reverse((rank, at, merged)));
                }
            }
            let before = links[place].0;
            if before != NONE {
                let (rank, merged) = merges.find(symbols[before as usize].id, id);
                if rank != NEVER {
                    queue.push(Reverse((rank, before, merged)));
                }
            }
        }
        symbols.retain(|symbol| symbol.len != NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(ids: &[u32], merges: &Merges, long: bool) -> Vec<(u32, u32)> {
        let mut scratch = Scratch::default();
        scratch
            .symbols
            .extend(ids.iter().map(|&id| Symbol::new(id, 1)));
        if long {
            scratch.merge_long(merges);
        } else {
            scratch.merge_short(merges);
        }
        scratch
            .symbols
            .iter()
            .map(|symbol| (symbol.id, symbol.len))
            .collect()
    }

    #[test]
    fn the_lowest_rank_first_then_the_leftmost() {
        let mut merges = Merges::with_room(3);
        merges.insert(0, 0, 5, 10);
        merges.insert(0, 1, 1, 11);
        merges.insert(10, 11, 9, 12);
        for long in [false, true] {
            assert_eq!(merged(&[0, 0, 0], &merges, long), [(10, 2), (0, 1)]);
            assert_eq!(merged(&[0, 0, 1], &merges, long), [(0, 1), (11, 2)]);
            assert_eq!(merged(&[0, 0, 0, 1], &merges, long), [(12, 4)]);
            assert_eq!(merged(&[], &merges, long), []);
        }
        // The last word on a pair holds.
        merges.insert(0, 0, 0, 13);
        assert_eq!(merged(&[0, 0, 1], &merges, true), [(13, 2), (1, 1)]);
    }

    proptest! {
        /// Both ways give the same where every id stands for a text of its own.
        #[test]
        fn both_ways_agree(pairs in proptest::collection::vec((0_usize..40, 0_usize..40), 0..40),
            word in proptest::collection::vec(0_u32..4, 0..60)) {
            let mut texts: Vec<String> = (0..4).map(|n| n.to_string()).collect();
            let mut merges = Merges::with_room(40);
            for (rank, (a, b)) in pairs.into_iter().enumerate() {
                let (a, b) = (a % texts.len(), b % texts.len());
                let text = format!("{}{}", texts[a], texts[b]);
                if text.len() < 12 {
                    let id = texts.iter().position(|known| *known == text).unwrap_or(texts.len());
                    if id == texts.len() {
                        texts.push(text);
                    }
                    merges.insert(a as u32, b as u32, rank as u32, id as u32);
                }
            }
            prop_assert_eq!(merged(&word, &merges, false), merged(&word, &merges, true));
        }
    }
}
