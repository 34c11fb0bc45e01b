//! How well masked tokens are guessed, over any number of batches and ranks.

use serde::{Deserialize, Serialize};

/// Sums over masked tokens, so that the mean is that of all tokens and not of batches' means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenLoss {
    /// The sum of the losses (natural logarithm).
    pub loss: f64,
    /// Right guesses.
    pub correct: u64,
    /// Tokens.
    pub tokens: u64,
}

impl TokenLoss {
    /// Adds a batch: the sum of its losses, its right guesses, its tokens.
    pub fn add(&mut self, loss: f64, correct: u64, tokens: u64) {
        self.loss += loss;
        self.correct += correct;
        self.tokens += tokens;
    }

    /// Adds another one's sums.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.loss, other.correct, other.tokens);
    }

    /// The mean loss; NaN of nothing.
    pub fn mean(&self) -> f64 {
        self.loss / self.tokens as f64
    }

    /// The exponential of the mean loss.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// The part of tokens guessed right; NaN of nothing.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_tokens() {
        let mut sums = TokenLoss::default();
        sums.add(8.0, 1, 1);
        sums.merge(&TokenLoss {
            loss: 0.0,
            correct: 0,
            tokens: 3,
        });
        assert_eq!(sums.mean(), 2.0);
        assert_eq!(sums.accuracy(), 0.25);
        assert!((sums.perplexity() - 2f64.exp()).abs() < 1e-12);
        assert!(TokenLoss::default().mean().is_nan());
    }
}
