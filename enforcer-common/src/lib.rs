//! The contract between kernel and user space, and every decision about a packet.
//!
//! The XDP program, the daemon and the tests call the same functions. Everything here is pure: time and tables
//! are arguments, nothing allocates, logs or reads a clock.
#![cfg_attr(not(test), no_std)]

pub mod packet;

pub mod flow;
pub mod headers;
pub mod hello;
pub mod quic;
pub mod verdict;

pub mod answer;

pub mod ban;
pub mod budget;
pub mod gcra;
pub mod limiter;
pub mod listed;
pub mod source;

pub mod event;
pub mod feature;
pub mod maps;
pub mod port;
pub mod reason;
pub mod settings;
