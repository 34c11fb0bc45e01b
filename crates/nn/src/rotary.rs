//! Rotary position embedding: the table that layers of one base share.

use std::sync::{Arc, PoisonError, RwLock};

use bertha_kernels::RotaryTable;

use crate::NnError;

/// Angles `p·theta^(−2t/D)` for heads of a width and a base, as many places as the longest sequence so far needed
/// (Su et al. 2021, <https://arxiv.org/abs/2104.09864>).
#[derive(Debug)]
pub struct Rotary {
    head_dim: usize,
    theta: f64,
    table: RwLock<Arc<RotaryTable>>,
}

impl Rotary {
    /// For heads of width `head_dim`.
    ///
    /// # Errors
    /// When the width is odd.
    pub fn new(head_dim: usize, theta: f64) -> Result<Self, NnError> {
        if !head_dim.is_multiple_of(2) {
            return Err(NnError::Batch(format!(
                "rotary positions turn pairs of values, and a head has {head_dim}"
            )));
        }
        Ok(Self {
            head_dim,
            theta,
            table: RwLock::new(Arc::new(RotaryTable::new(0, head_dim, theta))),
        })
    }

    /// The base of the angles.
    pub fn theta(&self) -> f64 {
        self.theta
    }

    /// A table for sequences of up to `places` tokens.
    pub fn table(&self, places: usize) -> Arc<RotaryTable> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if table.places() >= places {
            return Arc::clone(&table);
        }
        drop(table);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.places() < places {
            let places = places.next_power_of_two().max(64);
            *table = Arc::new(RotaryTable::new(places, self.head_dim, self.theta));
        }
        Arc::clone(&table)
    }
}
