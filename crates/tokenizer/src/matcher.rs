//! Finding many strings in a text at once, in time linear in the text.
//!
//! Aho and Corasick's automaton (<https://doi.org/10.1145/360825.360855>), run from the end of the text to its
//! beginning over the reversed strings: at every position it then knows the longest string that *begins* there, and
//! choosing leftmost-longest matches is one more walk. However the strings overlap, no byte is read twice.

use std::collections::VecDeque;

/// The root, and the end of a list of edges (no edge leads to the root).
const ROOT: u32 = 0;

/// A set of strings to find.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    /// The automaton's nodes; the first is the root.
    nodes: Vec<Node>,
    /// Edges by node and byte, in one table of open addressing.
    edges: Vec<Edge>,
    /// Whether a string ends in this byte.
    last: [bool; 256],
    /// The byte that all strings end in, if it is one.
    only_last: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// The node of the longest proper suffix.
    fall_back: u32,
    /// The longest string that is a suffix of this node's text, and its length (0: none).
    pattern: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    /// Node and byte.
    key: u64,
    to: u32,
}

/// No node has the number 2^56 - 1.
const FREE: Edge = Edge {
    key: u64::MAX,
    to: ROOT,
};

/// A string found: where, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) pattern: u32,
}

impl Matcher {
    /// A matcher of strings; `None` if there are none. Empty strings are never found; of equal ones the first is.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let patterns: Vec<&[u8]> = patterns.into_iter().map(str::as_bytes).collect();
        let bytes: usize = patterns.iter().map(|pattern| pattern.len()).sum();
        if bytes == 0 {
            return None;
        }
        let mut matcher = Self {
            nodes: vec![Node {
                fall_back: ROOT,
                pattern: 0,
                len: 0,
            }],
            edges: vec![FREE; (bytes * 2).next_power_of_two()],
            last: [false; 256],
            only_last: None,
        };
        // The children of each node, as (parent, byte, child) in the order of creation.
        let mut children: Vec<(u32, u8, u32)> = Vec::new();
        for (pattern, index) in patterns.iter().zip(0..) {
            let Some(&last) = pattern.last() else {
                continue;
            };
            matcher.last[last as usize] = true;
            let mut node = ROOT;
            for &byte in pattern.iter().rev() {
                node = matcher.edge(node, byte).unwrap_or_else(|| {
                    let child = matcher.nodes.len() as u32;
                    matcher.nodes.push(Node {
                        fall_back: ROOT,
                        pattern: 0,
                        len: 0,
                    });
                    matcher.add_edge(node, byte, child);
                    children.push((node, byte, child));
                    child
                });
            }
            let node = &mut matcher.nodes[node as usize];
            if node.len == 0 {
                (node.pattern, node.len) = (index, pattern.len() as u32);
            }
        }
        matcher.link(&mut children);
        let mut lasts = (0..=u8::MAX).filter(|&byte| matcher.last[byte as usize]);
        matcher.only_last = lasts.next().filter(|_| lasts.next().is_none());
        Some(matcher)
    }

    /// Sets where each node falls back to, parents first.
    fn link(&mut self, children: &mut [(u32, u8, u32)]) {
        children.sort_unstable_by_key(|child| child.0);
        let of = |node: u32| {
            let start = children.partition_point(|child| child.0 < node);
            let end = children.partition_point(|child| child.0 <= node);
            &children[start..end]
        };
        let mut queue = VecDeque::from([ROOT]);
        while let Some(parent) = queue.pop_front() {
            for &(_, byte, child) in of(parent) {
                queue.push_back(child);
                let fall_back = match parent {
                    ROOT => ROOT,
                    _ => self.step(self.nodes[parent as usize].fall_back, byte),
                };
                let shorter = self.nodes[fall_back as usize];
                let node = &mut self.nodes[child as usize];
                node.fall_back = fall_back;
                if node.len == 0 {
                    (node.pattern, node.len) = (shorter.pattern, shorter.len);
                }
            }
        }
    }

    /// All matches: of those that begin leftmost the longest, then on behind it.
    pub(crate) fn find_all(&self, text: &str) -> Vec<Match> {
        let mut matches = self.longest_at_each(text.as_bytes());
        matches.reverse();
        let mut end = 0;
        matches.retain(|found| {
            let keep = found.start >= end;
            if keep {
                end = found.end;
            }
            keep
        });
        matches
    }

    /// The longest string at every position that one begins at, from the last position to the first.
    fn longest_at_each(&self, bytes: &[u8]) -> Vec<Match> {
        let mut found = Vec::new();
        let mut node = ROOT;
        let mut at = bytes.len();
        loop {
            if node == ROOT {
                // To the next byte that a string may end in.
                let before = &bytes[..at];
                let next = match self.only_last {
                    Some(last) => rposition(before, last),
                    None => before.iter().rposition(|&byte| self.last[byte as usize]),
                };
                match next {
                    Some(next) => at = next + 1,
                    None => return found,
                }
            } else if at == 0 {
                return found;
            }
            at -= 1;
            node = self.step(node, bytes[at]);
            let Node { pattern, len, .. } = self.nodes[node as usize];
            if len > 0 {
                found.push(Match {
                    start: at,
                    end: at + len as usize,
                    pattern,
                });
            }
        }
    }

    /// The node after one more byte.
    fn step(&self, mut node: u32, byte: u8) -> u32 {
        loop {
            match self.edge(node, byte) {
                Some(to) => return to,
                None if node == ROOT => return ROOT,
                None => node = self.nodes[node as usize].fall_back,
            }
        }
    }

    fn slot(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (hash >> 32) as usize & (self.edges.len() - 1)
    }

    fn edge(&self, node: u32, byte: u8) -> Option<u32> {
        let key = u64::from(node) << 8 | u64::from(byte);
        let mut at = self.slot(key);
        loop {
            match self.edges[at] {
                edge if edge.key == key => return Some(edge.to),
                edge if edge.key == FREE.key => return None,
                _ => at = (at + 1) & (self.edges.len() - 1),
            }
        }
    }

    fn add_edge(&mut self, node: u32, byte: u8, to: u32) {
        let key = u64::from(node) << 8 | u64::from(byte);
        let mut at = self.slot(key);
        while self.edges[at].key != FREE.key {
            at = (at + 1) & (self.edges.len() - 1);
        }
        self.edges[at] = Edge { key, to };
    }
}

/// The last place of a byte.
fn rposition(bytes: &[u8], wanted: u8) -> Option<usize> {
    const STEP: usize = 32;
    let (rest, chunks) = bytes.as_rchunks::<STEP>();
    // A whole chunk at a time, without a branch per byte, so that it vectorizes.
    let has = |chunk: &[u8; STEP]| {
        chunk
            .iter()
            .fold(false, |any, &byte| any | (byte == wanted))
    };
    let at = chunks.iter().rposition(has);
    match at {
        Some(chunk) => {
            let inside = chunks[chunk].iter().rposition(|&byte| byte == wanted)?;
            Some(rest.len() + chunk * STEP + inside)
        }
        None => rest.iter().rposition(|&byte| byte == wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Trying every string at every position.
    fn naive(patterns: &[&str], text: &str) -> Vec<Match> {
        let mut found = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let mut best: Option<Match> = None;
            for (pattern, index) in patterns.iter().zip(0..) {
                let end = start + pattern.len();
                let longer = best.is_none_or(|best| end > best.end);
                if !pattern.is_empty()
                    && longer
                    && text.as_bytes()[start..].starts_with(pattern.as_bytes())
                {
                    best = Some(Match {
                        start,
                        end,
                        pattern: index,
                    });
                }
            }
            found.extend(best);
            start = best.map_or(start + 1, |best| best.end);
        }
        found
    }

    #[test]
    fn leftmost_longest() {
        let patterns = ["bc", "abcd", "ab", "", "c", "ab"];
        let matcher = Matcher::new(patterns).unwrap();
        for text in ["abcd", "abce", "xbcc", "", "abab", "cabc"] {
            assert_eq!(matcher.find_all(text), naive(&patterns, text), "{text}");
        }
        assert!(Matcher::new([]).is_none());
        assert!(Matcher::new([""]).is_none());
    }

    #[test]
    fn finds_one_last_byte_anywhere() {
        for len in 0..100 {
            let mut bytes = vec![b'.'; len];
            assert_eq!(rposition(&bytes, b']'), None);
            for at in 0..len {
                bytes[at] = b']';
                assert_eq!(rposition(&bytes, b']'), Some(at));
            }
        }
    }

    #[test]
    fn strings_that_overlap_themselves_stay_linear() {
        // Tried position by position this would be 10^11 steps.
        let long = "a".repeat(100_000) + "b";
        let matcher = Matcher::new(["a", &long]).unwrap();
        let text = "a".repeat(1_000_000);
        assert_eq!(matcher.find_all(&text).len(), 1_000_000);
        let text = "a".repeat(150_000) + "b";
        assert_eq!(matcher.find_all(&text).len(), 50_001);
    }

    proptest! {
        #[test]
        fn as_the_naive_search(patterns in proptest::collection::vec("[abé]{0,4}", 0..6), text in "[abé]{0,40}") {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let found = Matcher::new(patterns.iter().copied()).map_or(Vec::new(), |matcher| matcher.find_all(&text));
            prop_assert_eq!(found, naive(&patterns, &text));
        }
    }
}
