//! The harness that tests, the demo and the benchmarks share.

<<<<<<< HEAD
pub mod contestants;
pub mod edge;
pub mod origin;
pub mod pki;
pub mod tokens;
=======
pub mod bare;
pub mod cases;
pub mod packets;
pub mod tables;
>>>>>>> h-kernel
