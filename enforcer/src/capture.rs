//! Frames as people see them: who sends what to whom, which ClientHello it is, and capture files.
//!
//! `enforcer events` and `enforcer explain` show packets by it. It reads bytes that anybody may have sent, judges none of
//! them, and knows no verdict.

pub mod file;
pub mod hello;
pub mod moment;
pub mod sight;
pub mod writer;
