//! Everything that can be shown without root, without the eBPF toolchain and without a network beyond loopback.

mod rootless {
    mod configs;
    mod control;
    mod edge;
    mod ledger;
    mod refusals;
}
