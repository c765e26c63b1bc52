//! Tests that need no root, no network and no eBPF toolchain.

mod rootless {
    mod packets;
}
