//! The number formats that the references take.

/// f32 or f64: what a scalar reference reads and writes. All references compute in f64, so that with f64
/// operands a finite difference of one checks the derivative that another gives.
pub trait Float: Copy + Default + Send + Sync + private::Sealed + 'static {
    /// Its value.
    fn to_f64(self) -> f64;
    /// The nearest value of the format.
    fn from_f64(value: f64) -> Self;
}

impl Float for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Float for f64 {
    fn to_f64(self) -> f64 {
        self
    }

    fn from_f64(value: f64) -> Self {
        value
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}
