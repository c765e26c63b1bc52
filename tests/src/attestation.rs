//! Players of what shows devices and apps to be genuine: authorities of a test's own, devices under them, and what these send. Nothing
//! here checks anything, so that a test can say exactly what an attacker would send.

pub mod apple;
pub mod cbor;
pub mod der;
pub mod google;
