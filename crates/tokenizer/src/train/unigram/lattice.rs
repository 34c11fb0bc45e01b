//! All segmentations of a word: the probable number of every piece, and the best segmentation.
//!
//! Kudo, "Subword Regularization" (2018), <https://arxiv.org/abs/1804.10959>, section 3.2.

use super::pieces::{NO_PIECE, Pieces, Trie};

/// How much less probable than the least probable piece a character is that has none.
const UNKNOWN: f64 = 10.0;

/// Pieces with their trie, ready to segment words.
pub(super) struct Model<'a> {
    pub(super) pieces: &'a Pieces,
    trie: Trie,
    /// The score of a character without a piece.
    unknown: f64,
}

/// A piece in a word: it begins after `start` characters and ends after `end`.
#[derive(Clone, Copy)]
struct Edge {
    start: u32,
    end: u32,
    /// [`NO_PIECE`] for a character without one.
    piece: u32,
    score: f64,
}

/// Room to work in.
#[derive(Default)]
pub(super) struct Scratch {
    edges: Vec<Edge>,
    /// The best score up to each place, and the edge it ends with.
    best: Vec<(f64, u32)>,
    weights: Vec<f64>,
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl<'a> Model<'a> {
    pub(super) fn new(pieces: &'a Pieces, alphabet: usize) -> Self {
        let least = pieces.scores.iter().copied().fold(0.0, f64::min);
        Self {
            trie: Trie::new(pieces, alphabet),
            pieces,
            unknown: least - UNKNOWN,
        }
    }

    /// Finds every piece in the word but `except`, and the best way to each place.
    fn fill(&self, word: &[u32], except: u32, scratch: &mut Scratch) {
        let Scratch { edges, best, .. } = scratch;
        edges.clear();
        best.clear();
        best.resize(word.len() + 1, (f64::NEG_INFINITY, NO_PIECE));
        best[0].0 = 0.0;
        for start in 0..word.len() {
            let so_far = best[start].0;
            let mut take = |length: usize, piece: u32, score: f64| {
                let end = start + length;
                // Of equally good ways the first stays: the one whose last piece is longer.
                if so_far + score > best[end].0 {
                    best[end] = (so_far + score, edges.len() as u32);
                }
                edges.push(Edge {
                    start: start as u32,
                    end: end as u32,
                    piece,
                    score,
                });
            };
            let mut single = false;
            self.trie.prefixes(&word[start..], |length, piece| {
                if piece != except {
                    single |= length == 1;
                    take(length, piece, self.pieces.scores[piece as usize]);
                }
            });
            if !single {
                take(1, NO_PIECE, self.unknown);
            }
        }
    }

    /// Adds to `expected` how often each piece stands in the word, over all its segmentations by their probability,
    /// times `count`. Returns the logarithm of the word's probability.
    pub(super) fn expect(
        &self,
        word: &[u32],
        count: f64,
        expected: &mut [f64],
        scratch: &mut Scratch,
    ) -> f64 {
        self.fill(word, NO_PIECE, scratch);
        let Scratch {
            edges,
            best,
            weights,
            forward,
            backward,
        } = scratch;
        // Every place relative to the best way to it: the sums lie between 1 and the number of segmentations.
        let places = word.len() + 1;
        forward.clear();
        forward.resize(places, 0.0);
        forward[0] = 1.0;
        weights.clear();
        for edge in edges.iter() {
            let (start, end) = (edge.start as usize, edge.end as usize);
            let weight = (best[start].0 + edge.score - best[end].0).exp();
            weights.push(weight);
            forward[end] += forward[start] * weight;
        }
        backward.clear();
        backward.resize(places, 0.0);
        backward[word.len()] = 1.0;
        let all = forward[word.len()];
        for (edge, weight) in edges.iter().zip(weights.iter()).rev() {
            let (start, end) = (edge.start as usize, edge.end as usize);
            let through = weight * backward[end];
            backward[start] += through;
            if edge.piece != NO_PIECE {
                expected[edge.piece as usize] += count * (forward[start] * through / all);
            }
        }
        best[word.len()].0 + all.ln()
    }

    /// Calls `emit` with the pieces of the best segmentation that does without the piece `except`, last first;
    /// [`NO_PIECE`] stands for a character without a piece.
    pub(super) fn best(
        &self,
        word: &[u32],
        except: u32,
        scratch: &mut Scratch,
        mut emit: impl FnMut(u32),
    ) {
        self.fill(word, except, scratch);
        let mut end = word.len();
        while end > 0 {
            let edge = scratch.edges[scratch.best[end].1 as usize];
            emit(edge.piece);
            end = edge.start as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every segmentation of a word with its score.
    fn all(pieces: &Pieces, word: &[u32]) -> Vec<(Vec<usize>, f64)> {
        if word.is_empty() {
            return vec![(Vec::new(), 0.0)];
        }
        let mut found = Vec::new();
        for piece in 0..pieces.len() {
            if let Some(rest) = word.strip_prefix(pieces.get(piece)) {
                for (mut ids, score) in all(pieces, rest) {
                    ids.insert(0, piece);
                    found.push((ids, score + pieces.scores[piece]));
                }
            }
        }
        found
    }

    #[test]
    fn sums_and_bests_are_those_of_all_segmentations() {
        let mut pieces = Pieces::default();
        let list: [(&[u32], f64); 7] = [
            (&[0], 0.2),
            (&[0, 0], 0.1),
            (&[0, 1], 0.3),
            (&[0, 1, 0], 0.05),
            (&[1], 0.15),
            (&[1, 0], 0.1),
            (&[1, 1, 0], 0.1),
        ];
        for (piece, probability) in list {
            pieces.push(piece, f64::ln(probability));
        }
        let model = Model::new(&pieces, 2);
        let mut scratch = Scratch::default();
        for code in 0..64u32 {
            let word: Vec<u32> = (0..6).map(|bit| code >> bit & 1).collect();
            let segmentations = all(&pieces, &word);
            let z: f64 = segmentations.iter().map(|(_, score)| score.exp()).sum();
            let mut wanted = [0.0; 7];
            for (ids, score) in &segmentations {
                for &id in ids {
                    wanted[id] += 3.0 * score.exp() / z;
                }
            }
            let mut expected = [0.0; 7];
            let log = model.expect(&word, 3.0, &mut expected, &mut scratch);
            assert!((log - z.ln()).abs() < 1e-12);
            for (found, wanted) in expected.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-12, "{word:?}");
            }
            for except in [1, 2, 3, 5, 6, NO_PIECE] {
                let allowed = |ids: &Vec<usize>| !ids.contains(&(except as usize));
                let best = segmentations
                    .iter()
                    .filter(|(ids, _)| allowed(ids))
                    .map(|(_, score)| *score)
                    .fold(f64::NEG_INFINITY, f64::max);
                let mut score = 0.0;
                model.best(&word, except, &mut scratch, |piece| {
                    assert_ne!(piece, except);
                    score += pieces.scores[piece as usize];
                });
                assert!((score - best).abs() < 1e-12, "{word:?} without {except}");
            }
        }
    }

    #[test]
    fn characters_without_a_piece_are_unknown() {
        let mut pieces = Pieces::default();
        pieces.push(&[0], -1.0);
        pieces.push(&[1, 2], -2.0);
        let model = Model::new(&pieces, 3);
        let (mut scratch, mut expected) = (Scratch::default(), [0.0; 2]);
        let log = model.expect(&[0, 1], 2.0, &mut expected, &mut scratch);
        assert!((log + 13.0).abs() < 1e-12);
        assert_eq!(expected, [2.0, 0.0]);
        let mut found = Vec::new();
        model.best(&[0, 1, 1, 2], NO_PIECE, &mut scratch, |piece| {
            found.push(piece)
        });
        assert_eq!(found, [1, NO_PIECE, 0]);
    }

    #[test]
    fn the_longest_word_stays_finite() {
        let mut pieces = Pieces::default();
        let run = [0; 16];
        for length in 1..=16 {
            // Every segmentation is equally probable: the most there can be.
            pieces.push(&run[..length], -(length as f64));
        }
        let model = Model::new(&pieces, 1);
        let (mut scratch, mut expected) = (Scratch::default(), [0.0; 16]);
        let log = model.expect(&[0; 1000], 1.0, &mut expected, &mut scratch);
        assert!(log.is_finite());
        let covered: f64 = expected
            .iter()
            .zip(1..)
            .map(|(n, length)| n * f64::from(length))
            .sum();
        assert!((covered - 1000.0).abs() < 1e-6, "{covered}");
    }
}
