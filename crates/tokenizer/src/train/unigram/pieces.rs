//! Pieces with their scores, in lexicographic order, and the trie that finds them.

use super::corpus::NO_CHAR;

/// Pieces as numbers of characters, in lexicographic order, with natural logarithms of probabilities.
#[derive(Default)]
pub(super) struct Pieces {
    chars: Vec<u32>,
    ends: Vec<usize>,
    pub(super) scores: Vec<f64>,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: &[u32], score: f64) {
        self.chars.extend_from_slice(piece);
        self.ends.push(self.chars.len());
        self.scores.push(score);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u32] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.chars[start..self.ends[at]]
    }

    /// The pieces that `score` keeps, with the scores it gives.
    pub(super) fn filtered(&self, mut score: impl FnMut(usize) -> Option<f64>) -> Self {
        let mut kept = Self::default();
        for at in 0..self.len() {
            if let Some(score) = score(at) {
                kept.push(self.get(at), score);
            }
        }
        kept
    }
}

/// What no piece has as its number.
pub(super) const NO_PIECE: u32 = u32::MAX;

/// A node of the trie: its children are neighbours.
#[derive(Clone, Copy)]
struct Node {
    children: u32,
    count: u32,
    piece: u32,
}

/// Finds the pieces that a text begins with.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// The character that leads to each node.
    labels: Vec<u32>,
    /// The child of the root for each character.
    roots: Vec<u32>,
}

impl Trie {
    pub(super) fn new(pieces: &Pieces, alphabet: usize) -> Self {
        let mut trie = Self {
            nodes: vec![Node {
                children: 0,
                count: 0,
                piece: NO_PIECE,
            }],
            labels: vec![NO_CHAR],
            roots: vec![0; alphabet],
        };
        // Nodes in the order of their depth; each stands for a range of pieces that begin alike.
        let mut ranges = vec![(0, pieces.len(), 0)];
        let mut at = 0;
        while at < ranges.len() {
            let (mut start, end, depth) = ranges[at];
            if start < end && pieces.get(start).len() == depth {
                trie.nodes[at].piece = start as u32;
                start += 1;
            }
            trie.nodes[at].children = ranges.len() as u32;
            while start < end {
                let label = pieces.get(start)[depth];
                let mut next = start + 1;
                while next < end && pieces.get(next)[depth] == label {
                    next += 1;
                }
                if at == 0 {
                    trie.roots[label as usize] = ranges.len() as u32;
                }
                trie.nodes[at].count += 1;
                ranges.push((start, next, depth + 1));
                trie.labels.push(label);
                trie.nodes.push(Node {
                    children: 0,
                    count: 0,
                    piece: NO_PIECE,
                });
                start = next;
            }
            at += 1;
        }
        trie
    }

    /// Calls `emit` with the length and number of every piece that `text` begins with, by length.
    #[inline]
    pub(super) fn prefixes(&self, text: &[u32], mut emit: impl FnMut(usize, u32)) {
        let Some(&first) = text.first() else {
            return;
        };
        let mut node = self.roots[first as usize] as usize;
        let mut length = 1;
        while node != 0 {
            let Node {
                children,
                count,
                piece,
            } = self.nodes[node];
            if piece != NO_PIECE {
                emit(length, piece);
            }
            let Some(&next) = text.get(length) else {
                return;
            };
            let children = children as usize;
            let labels = &self.labels[children..children + count as usize];
            node = match labels.binary_search(&next) {
                Ok(child) => children + child,
                Err(_) => 0,
            };
            length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_are_found() {
        let mut pieces = Pieces::default();
        let list: [&[u32]; 6] = [&[0], &[0, 0, 1], &[0, 1], &[0, 1, 2, 3], &[1, 2], &[3]];
        for piece in list {
            pieces.push(piece, 0.0);
        }
        let trie = Trie::new(&pieces, 4);
        let found = |text: &[u32]| {
            let mut found = Vec::new();
            trie.prefixes(text, |length, piece| found.push((length, piece)));
            found
        };
        assert_eq!(found(&[0, 1, 2, 3, 3]), [(1, 0), (2, 2), (4, 3)]);
        assert_eq!(found(&[0, 0, 1]), [(1, 0), (3, 1)]);
        assert_eq!(found(&[1, 3]), []);
        assert_eq!(found(&[2]), []);
        assert_eq!(found(&[]), []);
    }
}
