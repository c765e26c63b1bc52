//! The harness that tests, the demo and the benchmarks share.

pub mod pki;
pub mod tokens;
