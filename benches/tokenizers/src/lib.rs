//! Nothing but benches: see `benches/encode.rs`.
