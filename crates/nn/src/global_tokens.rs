//! The tokens of a batch that see all of their sequence, and are seen by all of it.

use std::sync::Arc;

use crate::{Batch, NnError};

/// Global tokens (Beltagy et al. 2020, <https://arxiv.org/abs/2004.05150>).
#[derive(Clone, Debug)]
pub struct GlobalTokens {
    places: Arc<[Vec<u32>]>,
    rows: Vec<u32>,
    cu_seqlens: Vec<u32>,
}

impl GlobalTokens {
    /// From the places of each sequence's global tokens in it, in any order; a place that comes twice counts once.
    ///
    /// # Errors
    /// When there is not one list for each sequence, or a place lies beyond its sequence's end.
    pub fn new(batch: &Batch, mut places: Vec<Vec<u32>>) -> Result<Self, NnError> {
        if places.len() != batch.len() {
            return Err(NnError::Batch(format!(
                "global tokens of {} sequences for a batch of {}",
                places.len(),
                batch.len()
            )));
        }
        let (mut rows, mut cu_seqlens) = (Vec::new(), vec![0]);
        for (i, places) in places.iter_mut().enumerate() {
            places.sort_unstable();
            places.dedup();
            let range = batch.range(i);
            if let Some(&last) = places.last().filter(|&&last| last as usize >= range.len()) {
                return Err(NnError::Batch(format!(
                    "token {last} of sequence {i} cannot be global: the sequence has {} tokens",
                    range.len()
                )));
            }
            rows.extend(places.iter().map(|place| range.start as u32 + place));
            cu_seqlens.push(rows.len() as u32);
        }
        Ok(Self {
            places: places.into(),
            rows,
            cu_seqlens,
        })
    }

    /// For each sequence the places of its global tokens, ascending.
    pub fn places(&self) -> &Arc<[Vec<u32>]> {
        &self.places
    }

    /// The global tokens' rows in the batch.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Where each sequence's global tokens start among `rows`, and where the last's end: B+1 offsets.
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.cu_seqlens
    }
}
