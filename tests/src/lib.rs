//! The harness that tests, the demo and the benchmarks share.

pub mod bare;
pub mod cases;
pub mod packets;
pub mod tables;
