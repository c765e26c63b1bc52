//! The enforcer daemon, its command line, and everything in user space between a client's packet and the upstream.
//!
//! Modules are listed in the order in which data flows.

pub mod clock;
pub mod decimal;
pub mod fault;
pub mod random;
pub mod secret;
pub mod strict_json;

pub mod config;
pub mod denial;
pub mod pins;
pub mod prefix;

pub mod attestation;
pub mod enrolment;
pub mod policy;
pub mod revoked;

pub mod access_log;
pub mod ingress;

pub mod checks;

pub mod upstream;

pub mod bans;
pub mod device;
pub mod kernel;
pub mod keys;
pub mod metrics;
pub mod replay;
pub mod store;

pub mod agreement;
pub mod capture;

pub mod cli;
pub mod control;
pub mod daemon;
pub mod log;
