//! What operations on windows of images share: which values a window covers.

use std::ops::Range;

/// One axis of an image under a window that moves over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Values along the image.
    pub(super) size: usize,
    /// Values of the window.
    pub(super) kernel: usize,
    /// Steps of the window.
    pub(super) stride: usize,
    /// Places before and behind the image that count as part of it.
    pub(super) padding: usize,
    /// Distance of the values of the window.
    pub(super) dilation: usize,
    /// Places of the window.
    pub(super) places: usize,
}

impl Axis {
    /// `None` where the window is empty, does not fit, or a number is 0 that must not be, or too large.
    pub(super) fn new(
        size: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        dilation: usize,
    ) -> Option<Self> {
        if kernel == 0 || stride == 0 || dilation == 0 {
            return None;
        }
        let padded = padding.checked_mul(2)?.checked_add(size)?;
        let span = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
        let places = padded.checked_sub(span)? / stride + 1;
        // Positions are computed with signs.
        isize::try_from(padded).ok()?;
        Some(Self {
            size,
            kernel,
            stride,
            padding,
            dilation,
            places,
        })
    }

    /// Where value `k` of the window lies when the window is at `place`, if inside the image.
    #[inline(always)]
    pub(super) fn position(&self, place: usize, k: usize) -> Option<usize> {
        let position = (place * self.stride + k * self.dilation).checked_sub(self.padding)?;
        (position < self.size).then_some(position)
    }

    /// The part of the image that a window without dilation covers at `place`.
    #[inline(always)]
    pub(super) fn covered(&self, place: usize) -> Range<usize> {
        let start = place * self.stride;
        start.saturating_sub(self.padding)
            ..(start + self.kernel)
                .saturating_sub(self.padding)
                .min(self.size)
    }

    /// The places at which value `k` of the window lies inside the image.
    pub(super) fn inside(&self, k: usize) -> Range<usize> {
        let ahead = k * self.dilation;
        let first = self.padding.saturating_sub(ahead).div_ceil(self.stride);
        let end = (self.padding + self.size)
            .saturating_sub(ahead)
            .div_ceil(self.stride);
        first.min(self.places)..end.clamp(first.min(self.places), self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_inside_are_those_with_a_position() {
        for size in 1..7 {
            for kernel in 1..4 {
                for (stride, padding, dilation) in [(1, 0, 1), (2, 1, 1), (3, 2, 2), (1, 3, 3)] {
                    let Some(axis) = Axis::new(size, kernel, stride, padding, dilation) else {
                        continue;
                    };
                    for k in 0..kernel {
                        let found: Vec<usize> = axis.inside(k).collect();
                        let expected: Vec<usize> = (0..axis.places)
                            .filter(|&place| axis.position(place, k).is_some())
                            .collect();
                        assert_eq!(found, expected, "{axis:?} value {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        assert!(Axis::new(2, 3, 1, 0, 1).is_none());
        assert!(Axis::new(3, 2, 1, 0, 3).is_none());
        assert!(Axis::new(2, 3, 0, 1, 1).is_none());
        assert!(Axis::new(1, 1, 1, usize::MAX, 1).is_none());
        assert_eq!(Axis::new(5, 3, 2, 1, 1).unwrap().places, 3);
    }
}
