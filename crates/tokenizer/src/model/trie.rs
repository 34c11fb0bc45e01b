//! A trie of strings as a double array: a step along a byte is one look-up.
//!
//! Aoe, "An Efficient Digital Search Algorithm by Using a Double-Array Structure",
//! <https://doi.org/10.1109/32.31365>, with children found by exclusive or.

/// A set of strings with values.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// A child is at this, exclusive or its byte.
    base: u32,
    parent: u32,
    /// The value of the string that ends here.
    value: u32,
}

const NONE: u32 = u32::MAX;
const FREE: Node = Node {
    base: 0,
    parent: NONE,
    value: NONE,
};
const BLOCK: usize = 256;
/// How many blocks are searched for room; the ones before are nearly full.
const OPEN_BLOCKS: usize = 16;

impl Trie {
    /// Builds the trie of strings, none of them twice, with values below 2^32 - 1.
    pub(crate) fn new(mut strings: Vec<(&[u8], u32)>) -> Self {
        strings.sort_unstable();
        let mut builder = Builder {
            nodes: vec![FREE; BLOCK],
            free: vec![BLOCK as u32 - 1],
            full: 0,
        };
        // The root is no child of anything, itself least.
        builder.nodes[0].parent = NONE - 1;
        let mut waiting = vec![(0_usize, 0..strings.len(), 0_usize)];
        let mut children: Vec<(u8, std::ops::Range<usize>)> = Vec::new();
        while let Some((node, range, depth)) = waiting.pop() {
            let mut at = range.start;
            if at < range.end && strings[at].0.len() == depth {
                builder.nodes[node].value = strings[at].1;
                at += 1;
            }
            children.clear();
            while at < range.end {
                let byte = strings[at].0[depth];
                let rest = &strings[at..range.end];
                let end = at + rest.partition_point(|(string, _)| string[depth] == byte);
                children.push((byte, at..end));
                at = end;
            }
            if children.is_empty() {
                continue;
            }
            let base = builder.place(&children);
            builder.nodes[node].base = base as u32;
            for (byte, range) in children.drain(..) {
                let child = base ^ byte as usize;
                builder.take(child, node);
                waiting.push((child, range, depth + 1));
            }
        }
        Self {
            nodes: builder.nodes,
        }
    }

    /// Calls `found` with the length and the value of every string that `text` begins with, shortest first.
    #[inline]
    pub(crate) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut at = 0;
        for (len, &byte) in text.iter().enumerate() {
            let next = (self.nodes[at].base ^ u32::from(byte)) as usize;
            let node = self.nodes[next];
            if node.parent != at as u32 {
                return;
            }
            at = next;
            if node.value != NONE {
                found(len + 1, node.value);
            }
        }
    }
}

struct Builder {
    nodes: Vec<Node>,
    /// Free nodes of each block.
    free: Vec<u32>,
    /// Blocks before this are not searched any more.
    full: usize,
}

impl Builder {
    /// A base for which all children are free.
    fn place(&mut self, children: &[(u8, std::ops::Range<usize>)]) -> usize {
        let Some((first, others)) = children.split_first() else {
            return 0;
        };
        self.full = self.full.max(self.free.len().saturating_sub(OPEN_BLOCKS));
        while self.free.get(self.full) == Some(&0) {
            self.full += 1;
        }
        for block in self.full..self.free.len() {
            if (self.free[block] as usize) < children.len() {
                continue;
            }
            for slot in block * BLOCK..(block + 1) * BLOCK {
                let base = slot ^ first.0 as usize;
                if self.nodes[slot].parent == NONE
                    && others
                        .iter()
                        .all(|child| self.nodes[base ^ child.0 as usize].parent == NONE)
                {
                    return base;
                }
            }
        }
        let base = self.nodes.len();
        self.nodes.resize(base + BLOCK, FREE);
        self.free.push(BLOCK as u32);
        base
    }

    fn take(&mut self, node: usize, parent: usize) {
        self.nodes[node].parent = parent as u32;
        self.free[node / BLOCK] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixes(trie: &Trie, text: &[u8]) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        trie.prefixes(text, |len, value| found.push((len, value)));
        found
    }

    #[test]
    fn an_empty_trie_finds_nothing() {
        for strings in [vec![], vec![(&b""[..], 5)]] {
            let trie = Trie::new(strings);
            for text in [&b""[..], b"\0", b"a", b"\xFF\0"] {
                assert_eq!(prefixes(&trie, text), []);
            }
        }
    }

    proptest! {
        #[test]
        fn finds_all_prefixes_and_nothing_else(
            strings in proptest::collection::btree_set(proptest::collection::vec(0_u8..4, 1..6), 0..120),
            wide in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..3), 0..300),
            texts in proptest::collection::vec(proptest::collection::vec(0_u8..5, 0..8), 0..30),
        ) {
            let all: std::collections::BTreeSet<&[u8]> = strings.iter().chain(&wide).map(Vec::as_slice).collect();
            let trie = Trie::new(all.iter().copied().zip(0..all.len() as u32).rev().collect());
            let texts = texts.iter().map(Vec::as_slice).chain(all.iter().copied());
            for text in texts {
                let expected: Vec<(usize, u32)> = (1..=text.len())
                    .filter_map(|len| Some((len, all.iter().position(|string| *string == &text[..len])? as u32)))
                    .collect();
                prop_assert_eq!(prefixes(&trie, text), expected);
            }
        }
    }
}
