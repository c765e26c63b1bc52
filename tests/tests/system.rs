//! Tests that need root: real namespaces, the real daemon, real clients. Each test owns its namespaces.

mod system {
    mod attach;
    mod bans;
    mod data_plane;
    mod harness;
    mod limits;
    mod packets;
    mod proxy;
    mod reload;
    mod shutdown;
    mod startup;
    mod tls;
}
