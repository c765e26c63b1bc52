//! What follows from attestations: challenges that devices answer, the devices that did, the sessions that they get, and what
//! servers are told of them.
//!
//! `checks::devices` decides; here is what it needs to remember. Nothing here reads a clock or a request.

pub mod challenge;
pub mod device;
pub mod evidence;
pub mod facts;
mod finding;
mod keeping;
mod pace;
pub mod receipts;
pub mod registry;
pub mod session;

pub use challenge::{Bond, Challenges, Purpose};
pub use device::{Blocked, Device, DeviceId, Provider, Standing};
pub use evidence::{Distributed, Evidence, Verdict};
pub use finding::{Page, Wanted};
pub use registry::{Receipt, Registry, Unfit};

/// What outlives every policy of a daemon.
#[derive(Debug)]
pub struct Enrolment {
    /// Challenges that were used.
    pub challenges: Challenges,
    /// Devices.
    pub devices: Registry,
    /// When the process began, seconds since 1970: what was used before may have been lost with the one before it.
    pub began: u64,
}
