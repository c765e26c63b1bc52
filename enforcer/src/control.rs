//! How operators talk to the running daemon: requests over a Unix socket, one JSON object per line.
//!
//! [`wire`] is the language, [`socket`] who may speak, `places` how many at once, [`server`] reads and answers, [`answer`] knows what to say,
//! [`client`] is the command line's end. Nothing here decides about a packet or a request.

pub mod answer;
pub mod bulk;
pub mod client;
pub mod devices;
pub mod endpoint;
pub mod pins;
mod places;
pub mod revocation;
pub mod rows;
pub mod server;
pub mod socket;
pub mod span;
pub mod watch;
pub mod wire;
