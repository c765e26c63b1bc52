//! The harness that tests, the demo and the benchmarks share.

pub mod contestants;
pub mod edge;
pub mod origin;
pub mod pki;
pub mod tokens;
