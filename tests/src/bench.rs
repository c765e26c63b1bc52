//! What the benchmarks share: measuring, comparing with a bar, and printing.
//!
//! Called by the benchmark binaries. Figures compare programs on one machine in one run; they never stand alone.

pub mod bans;
pub mod connections;
mod designs;
pub mod edge;
pub mod flood;
pub mod measure;
pub mod packet;
pub mod report;
mod xdp_filter;
