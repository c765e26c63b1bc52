//! Which system tests a guest runs: those whose result a kernel can change. Called by `vm`.
//!
//! A guest's CPUs are emulated, and some twenty times slower. What sends thousands of requests within a time limit, or needs a server
//! or a scanner that guests do not have, is shown on the machine at hand; so is what only the daemon decides.

/// What is run: modules of the system tests, and single tests of other modules.
const IN_GUESTS: [&str; 26] = [
    "answers::",
    "attach::",
    "bans::",
    "budgets::",
    "cookies::",
    "corpus::",
    "data_plane::",
    "events::",
    "floods::",
    "frames::",
    "harness::",
    "hellos::",
    "life::",
    "limits::",
    "listed::",
    "packets::",
    "pins::",
    "proxy::a_request_arrives_as_it_was_sent_over_both_versions_and_families",
    "reload::settings_of_the_kernel_change_too",
    "repetitions::",
    "sources::",
    "startup::an_interface_that_does_not_exist",
    "startup::an_interface_that_somebody_else_holds_and_nothing_stays_half_attached",
    "startup::no_privilege",
    "shutdown::",
    "tls::",
];
/// Modules of which nothing is run: servers and scanners that guests do not have, and load on the request path.
#[cfg(test)]
const LEFT_OUT: [&str; 9] = [
    "asserted",
    "behind",
    "handshakes",
    "nginx_limits",
    "nginx_schedules",
    "payload",
    "play",
    "restart",
    "scanners",
];
/// What `--quick` keeps.
const QUICK: [&str; 4] = ["packets::", "data_plane::", "attach::", "tls::"];

/// The choice as filters of the test program; `only` is one for a single look.
pub(super) fn filters(quick: bool, only: Option<&str>) -> String {
    if let Some(only) = only {
        return only.to_owned();
    }
    let chosen: &[&str] = if quick { &QUICK } else { &IN_GUESTS };
    chosen.iter().map(|name| format!("system::{name}")).collect::<Vec<_>>().join(" ")
}

/// How many tests the test program says that it left out.
pub(super) fn left_out<'a>(lines: impl IntoIterator<Item = &'a String>) -> u64 {
    let read = |line: &String| {
        let (before, _) = line.strip_prefix("test result: ")?.split_once(" filtered out")?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    };
    lines.into_iter().filter_map(read).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::process::root;

    /// A new module is chosen or left out, and what is named is there.
    #[test]
    fn every_module_of_the_system_tests_is_decided_about() {
        let folder = root().join("tests/tests");
        let list = fs::read_to_string(folder.join("system.rs")).unwrap();
        let modules: Vec<&str> =
            list.lines().filter_map(|line| line.strip_prefix("    mod ")?.strip_suffix(';')).collect();
        let chosen = |module: &str| IN_GUESTS.iter().any(|name| name.split("::").next() == Some(module));
        for module in &modules {
            assert!(chosen(module) != LEFT_OUT.contains(module), "{module}: name it in vm/choice.rs, once");
        }
        for name in IN_GUESTS.iter().chain(&QUICK) {
            let (module, test) = name.split_once("::").unwrap();
            assert!(modules.contains(&module), "there is no {module}");
            let text = fs::read_to_string(folder.join("system").join(format!("{module}.rs"))).unwrap();
            assert!(test.is_empty() || text.contains(&format!("fn {test}(")), "there is no {name}");
        }
        assert!(LEFT_OUT.iter().all(|module| modules.contains(module)));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let lines = [
            "test result: ok. 97 passed; 0 failed; 0 ignored; 0 measured; 27 filtered out; finished in 9.00s"
                .to_owned(),
            "27 filtered out".to_owned(),
        ];
        assert_eq!(left_out(&lines), 27);
        assert!(filters(true, None).starts_with("system::packets:: system::"));
        assert_eq!(filters(false, Some("bans")), "bans");
    }
}
