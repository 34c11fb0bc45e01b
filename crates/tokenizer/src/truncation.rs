//! Cutting token sequences to a length: which tokens stay, and which windows the rest makes.

use std::ops::Range;

use crate::error::TokenizerError;
use crate::options::{Direction, Truncation, TruncationStrategy};

/// Ranges of tokens: first those that stay, then the further windows.
pub(crate) type Windows = Vec<Range<usize>>;

/// The windows of one text or of the two texts of a pair, which have `first` and `second` tokens. `special` is the
/// number of special tokens that the limit must have room for.
pub(crate) fn plan(
    first: usize,
    second: Option<usize>,
    truncation: &Truncation,
    special: usize,
) -> Result<(Windows, Windows), TokenizerError> {
    let &Truncation {
        max_length,
        strategy,
        ..
    } = truncation;
    let room = max_length
        .checked_sub(special)
        .ok_or(TokenizerError::LimitTooSmall {
            max_length,
            special,
        })?;
    let other = second.unwrap_or(0);
    let total = first + other;
    let remove = total.saturating_sub(room);
    let (mut keep_first, mut keep_second) = (first, other);
    if room == 0 {
        (keep_first, keep_second) = (0, 0);
    } else if remove > 0 {
        let shortened = |found: usize, name| {
            let left = found.checked_sub(remove).filter(|&left| left > 0);
            left.ok_or(TokenizerError::TextTooShort {
                strategy: name,
                remove,
                found,
                max_length,
            })
        };
        match (strategy, second) {
            (TruncationStrategy::LongestFirst, None) => keep_first = room,
            (TruncationStrategy::LongestFirst, Some(second)) => {
                (keep_first, keep_second) = share(first, second, room);
            }
            (TruncationStrategy::OnlyFirst, _) => keep_first = shortened(first, "only_first")?,
            (TruncationStrategy::OnlySecond, Some(second)) => {
                keep_second = shortened(second, "only_second")?;
            }
            (TruncationStrategy::OnlySecond, None) => return Err(TokenizerError::NoSecondText),
        }
    }
    Ok((
        windows(first, keep_first, truncation)?,
        windows(other, keep_second, truncation)?,
    ))
}

/// How many tokens of each text stay when both together have more than `room`: the longer one is cut to the length of
/// the shorter, then both share the room.
fn share(first: usize, second: usize, room: usize) -> (usize, usize) {
    let shorter = first.min(second);
    let longer = if shorter > room {
        shorter
    } else {
        shorter.max(room - shorter)
    };
    let (shorter, longer) = if shorter + longer > room {
        (room / 2, room / 2 + room % 2)
    } else {
        (shorter, longer)
    };
    if first > second {
        (longer, shorter)
    } else {
        (shorter, longer)
    }
}

/// The only window of what is not cut.
pub(crate) fn whole(len: usize) -> Windows {
    std::iter::once(0..len).collect()
}

/// The windows of `keep` tokens over `len` tokens, each beginning `keep - stride` after the one before.
fn windows(len: usize, keep: usize, truncation: &Truncation) -> Result<Windows, TokenizerError> {
    let &Truncation {
        max_length,
        stride,
        direction,
        ..
    } = truncation;
    if keep >= len {
        return Ok(whole(len));
    }
    if keep == 0 {
        // Nothing stays; what is cut off is the whole.
        return Ok(vec![0..0, 0..len]);
    }
    if stride >= keep {
        return Err(TokenizerError::StrideTooLarge {
            stride,
            room: keep,
            max_length,
        });
    }
    let step = keep - stride;
    let mut windows = Vec::with_capacity((len - keep).div_ceil(step) + 1);
    match direction {
        Direction::Right => {
            let mut start = 0;
            loop {
                let end = len.min(start + keep);
                windows.push(start..end);
                if end == len {
                    break;
                }
                start += step;
            }
        }
        Direction::Left => {
            let mut end = len;
            loop {
                let start = end.saturating_sub(keep);
                windows.push(start..end);
                if start == 0 {
                    break;
                }
                end -= step;
            }
        }
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(max_length: usize) -> Truncation {
        Truncation::new(max_length)
    }

    #[test]
    fn windows_overlap_by_the_stride() {
        let truncation = cut(6).stride(1);
        let (windows, _) = plan(10, None, &truncation, 2).unwrap();
        assert_eq!(windows, [0..4, 3..7, 6..10]);
        let (windows, _) = plan(10, None, &truncation.direction(Direction::Left), 2).unwrap();
        assert_eq!(windows, [6..10, 3..7, 0..4]);
        let (windows, _) = plan(9, None, &cut(4).direction(Direction::Left), 0).unwrap();
        assert_eq!(windows, [5..9, 1..5, 0..1]);
        let (windows, _) = plan(4, None, &truncation, 2).unwrap();
        assert_eq!(windows, std::slice::from_ref(&(0..4)));
    }

    #[test]
    fn the_longer_text_gives_way_first() {
        assert_eq!(share(3, 20, 12), (3, 9));
        assert_eq!(share(20, 3, 12), (9, 3));
        assert_eq!(share(8, 20, 13), (6, 7));
        assert_eq!(share(20, 8, 13), (7, 6));
        assert_eq!(share(20, 20, 13), (6, 7));
        assert_eq!(share(0, 20, 1), (0, 1));
        assert_eq!(share(5, 20, 1), (0, 1));
    }

    #[test]
    fn no_room_leaves_nothing() {
        let (first, second) = plan(5, Some(2), &cut(3), 3).unwrap();
        assert_eq!((first, second), (vec![0..0, 0..5], vec![0..0, 0..2]));
        let error = plan(5, None, &cut(1), 2).unwrap_err();
        assert!(matches!(
            error,
            TokenizerError::LimitTooSmall {
                max_length: 1,
                special: 2
            }
        ));
    }

    #[test]
    fn one_text_may_be_protected() {
        let only_second = cut(10).strategy(TruncationStrategy::OnlySecond);
        let (first, second) = plan(4, Some(9), &only_second, 3).unwrap();
        assert_eq!(first, std::slice::from_ref(&(0..4)));
        assert_eq!(second, [0..3, 3..6, 6..9]);
        let error = plan(7, Some(9), &only_second, 3).unwrap_err();
        assert!(
            matches!(
                error,
                TokenizerError::TextTooShort {
                    remove: 9,
                    found: 9,
                    ..
                }
            ),
            "{error}"
        );
        assert!(matches!(
            plan(20, None, &only_second, 2),
            Err(TokenizerError::NoSecondText)
        ));
        assert!(plan(8, None, &only_second, 2).is_ok());
    }

    #[test]
    fn a_window_moves() {
        let error = plan(10, None, &cut(6).stride(4), 2).unwrap_err();
        assert!(matches!(
            error,
            TokenizerError::StrideTooLarge {
                stride: 4,
                room: 4,
                max_length: 6
            }
        ));
        assert!(plan(4, None, &cut(6).stride(4), 2).is_ok());
    }
}
