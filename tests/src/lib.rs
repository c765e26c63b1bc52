//! The harness that tests, the demo and the benchmarks share.

pub mod bench;
pub mod bpf;
pub mod bpffs;
pub mod cases;
pub mod cleanup;
pub mod clients;
pub mod contestants;
pub mod daemon;
pub mod demo;
pub mod edge;
pub mod flood;
pub mod kernel;
pub mod memory;
pub mod netns;
pub mod origin;
pub mod packets;
pub mod pki;
pub mod poll;
pub mod process;
pub mod scene;
pub mod scrape;
pub mod site;
pub mod tables;
pub mod tap;
pub mod tokens;
pub mod upstream;
