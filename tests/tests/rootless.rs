//! Everything that can be shown without root, without the eBPF toolchain and without a network beyond loopback.

mod rootless {
    mod admit;
    mod attacks;
    mod bodies;
    mod edge;
    mod policy_files;
    mod token_forms;
}
