//! Batches by token budget: sequences of like length run together, and nothing is ever padded.
//!
//! Batches are packed end to end, so a batch costs the sum of its lengths. Sorting by length still
//! pays: sequences of one batch then finish their attention at about the same time.

/// Cuts sequences of the given lengths into batches of at most `budget` tokens, longest first.
///
/// Every index comes up exactly once. A sequence longer than the budget makes a batch of its own.
pub(crate) fn plan(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[i] <= budget => batch.push(i),
            _ => {
                batches.push(vec![i]);
                tokens = 0;
            }
        }
        tokens += lengths[i];
    }
    batches
}

/// Cuts texts, by their sizes in bytes, into windows that are tokenized at a time, so that tokens of
/// a long input need not all be held. A window has about `tokens` tokens and at least one text.
pub(crate) fn windows(bytes: impl Iterator<Item = usize>, tokens: usize) -> Vec<usize> {
    // A token of English is some four bytes, and each text brings special tokens.
    let estimate = |bytes: usize| bytes / 4 + 2;
    let mut ends = Vec::new();
    let (mut end, mut held) = (0, 0usize);
    for size in bytes {
        let more = estimate(size);
        if held > 0 && held.saturating_add(more) > tokens {
            ends.push(end);
            held = 0;
        }
        held = held.saturating_add(more);
        end += 1;
    }
    if held > 0 {
        ends.push(end);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_budget_and_lose_nothing() {
        let lengths = [5, 1, 9, 3, 3, 12, 2, 1];
        for budget in [1, 4, 6, 10, 100] {
            let batches = plan(&lengths, budget);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                assert!(
                    tokens <= budget || batch.len() == 1,
                    "{batch:?} at {budget}"
                );
            }
            let lengths_seen: Vec<_> = seen.iter().map(|&i| lengths[i]).collect();
            assert!(lengths_seen.is_sorted_by(|a, b| a >= b), "longest first");
            seen.sort_unstable();
            assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn equal_lengths_keep_their_order_and_fill_the_budget() {
        assert_eq!(plan(&[4, 4, 4, 4], 8), [[0, 1], [2, 3]]);
        assert!(plan(&[], 8).is_empty());
    }

    #[test]
    fn windows_hold_about_the_tokens_asked_for() {
        assert_eq!(windows([8, 8, 8, 8, 8].into_iter(), 8), [2, 4, 5]);
        assert_eq!(windows([4000, 4000].into_iter(), 8), [1, 2]);
        assert!(windows([].into_iter(), 8).is_empty());
    }
}
