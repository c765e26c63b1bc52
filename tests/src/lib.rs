//! The harness that tests, the demo and the benchmarks share.

<<<<<<< HEAD
<<<<<<< HEAD
=======
pub mod cleanup;
pub mod clients;
>>>>>>> h-demo
pub mod contestants;
pub mod daemon;
pub mod demo;
pub mod edge;
pub mod flood;
pub mod netns;
pub mod origin;
pub mod pki;
pub mod poll;
pub mod process;
pub mod scene;
pub mod scrape;
pub mod site;
pub mod tokens;
<<<<<<< HEAD
=======
pub mod bare;
pub mod cases;
pub mod packets;
pub mod tables;
>>>>>>> h-kernel
=======
pub mod upstream;
>>>>>>> h-demo
