//! Shows the whole path at work: `cargo xtask demo` builds what it needs and runs it.

use clap::Parser;

/// The enforcer at work, in two network namespaces, step by step.
#[derive(Parser)]
struct Demo {
    /// Leave everything running at the end, until Ctrl-C, and print how to explore it.
    #[arg(long)]
    keep: bool,
}

fn main() {
    let good = enforcer_tests::demo::run(Demo::parse().keep);
    std::process::exit(i32::from(!good));
}
