//! Tests that need root: real namespaces, the real daemon, real clients. Each test owns its namespaces.

mod system {
    mod data_plane;
    mod packets;
}
