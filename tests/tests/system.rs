//! Tests that need root: real namespaces, the real daemon, real clients. Each test owns its namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail on the spot")]

mod system {
    mod answers;
    mod attach;
    mod bans;
    mod behind;
    mod budgets;
    mod cookies;
    mod corpus;
    mod data_plane;
    mod events;
    mod floods;
    mod frames;
    mod handshakes;
    mod harness;
    mod hellos;
    mod life;
    mod limits;
    mod listed;
    mod nginx_limits;
    mod nginx_schedules;
    mod packets;
    mod payload;
    mod pins;
    mod proxy;
    mod reload;
    mod repetitions;
    mod restart;
    mod scanners;
    mod shutdown;
    mod sources;
    mod startup;
    mod tls;
}
