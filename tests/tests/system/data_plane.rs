//! Loading, attaching, listing and explaining, on interfaces of a namespace of the test's own.

use std::{process::Command, thread, time::Duration};

use enforcer::{
    clock::{KernelTime, kernel_now},
    config::{self, KernelLimits, Mode, RateLimit, TlsVersion},
    kernel::{Kernel, Protocol},
};
use enforcer_common::{
    ban::{Ban, FOREVER, Listing},
    source::{SourceKey, v6_mask},
};
use enforcer_tests::kernel::plain;
use nix::sched::{CloneFlags, unshare};

fn config(interfaces: &[&str]) -> config::Kernel {
    let limit = |events| Some(RateLimit { events, period: Duration::from_secs(3600), burst: events });
    let plain = plain();
    config::Kernel {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        limits: KernelLimits { packets: limit(100), connections: limit(3), ..plain.limits.clone() },
        ..plain
    }
}

/// Runs a test in a network namespace of its own, which ends with its thread, with the veth pair left and right in it.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let run = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add left type veth peer name right");
        test();
    });
    run.join().unwrap();
}

/// Loads and attaches, as the daemon does.
fn start(config: &config::Kernel) -> anyhow::Result<Kernel> {
    let mut kernel = Kernel::load(config, 16)?;
    kernel.attach()?;
    Ok(kernel)
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has_program(interface: &str) -> bool {
    ip(&format!("link show dev {interface}")).contains("xdp")
}

fn refusal(config: &config::Kernel) -> String {
    let Err(error) = start(config) else { panic!("started") };
    let message = format!("{error:#}");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn attaches_to_all_and_detaches_when_dropped() {
    in_namespace(|| {
        let kernel = start(&config(&["left", "right"])).unwrap();
        let attachments = kernel.view().unwrap().attachments();
        let modes: Vec<_> =
            attachments.iter().map(|one| (one.interface.as_str(), one.mode.as_str())).collect();
        assert_eq!(modes, [("left", "native"), ("right", "native")]);
        assert!(has_program("left") && has_program("right"));
        let (lists, view) = (kernel.lists().unwrap(), kernel.view().unwrap());
        drop(kernel);
        assert!(!has_program("left") && !has_program("right"), "handles keep nothing attached");
        drop((lists, view));
    });
}

#[test]
fn an_interface_that_is_taken_is_named_with_its_holder_and_nothing_stays_behind() {
    in_namespace(|| {
        let holder = start(&config(&["right"])).unwrap();
        let message = refusal(&config(&["left", "right"]));
        assert!(
            message.contains("right already has an XDP program (id ") && message.contains("`enforcer`"),
            "{message}"
        );
        assert!(!has_program("left"));
        drop(holder);
        start(&config(&["left", "right"])).unwrap();
    });
}

#[test]
fn an_interface_that_does_not_exist_is_answered_with_those_that_do() {
    in_namespace(|| {
        let message = refusal(&config(&["left", "middle"]));
        assert!(message.contains("`middle`") && message.contains("left, lo, right"), "{message}");
        assert!(!has_program("left"));
    });
}

#[test]
fn a_driver_without_xdp_is_refused_unless_generic_is_allowed() {
    in_namespace(|| {
        // Loopback is there in every kernel, and its driver knows nothing of XDP.
        let message = refusal(&config(&["left", "lo"]));
        assert!(
            message.contains("lo cannot run XDP in its driver") && message.contains("native-or-generic"),
            "{message}"
        );
        assert!(!has_program("left"));
        let allowed = config::Kernel { mode: Mode::NativeOrGeneric, ..config(&["left", "lo"]) };
        let kernel = start(&allowed).unwrap();
        let modes: Vec<_> = kernel.view().unwrap().attachments().into_iter().map(|one| one.mode).collect();
        assert_eq!(modes, ["native", "generic"]);
    });
}

/// Keeps what the program wrote.
struct Kept(std::sync::Mutex<Vec<String>>);

static KEPT: Kept = Kept(std::sync::Mutex::new(Vec::new()));

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn diagnostics_reach_the_log_and_do_not_flood_it() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut kernel = Kernel::load(&config::Kernel { log: true, ..config(&[]) }, 16).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let diagnostics = kernel.take_diagnostics().unwrap();
    // ARP passes without a limit. One CPU, so that there is one count.
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).unwrap();
    kernel.test_run(&enforcer_tests::packets::ethernet(0x0806, &[0; 28]), 1000).unwrap();
    let expected: Vec<String> =
        (0..10).map(|n| format!("reason 1 counted {} times on this CPU", 1 << n)).collect();
    let seen = || {
        let lines = KEPT.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with("reason 1 ")).cloned().collect::<Vec<_>>()
    };
    runtime.block_on(async {
        let forwarding = tokio::spawn(diagnostics.run());
        let all = async {
            while seen().len() < expected.len() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("the lines never came");
        forwarding.abort();
    });
    assert_eq!(seen(), expected);
}

#[test]
fn what_is_listed_is_explained() {
    let kernel = Kernel::load(&config(&[]), 16).unwrap();
    let (mut lists, view) = (kernel.lists().unwrap(), kernel.view().unwrap());
    let explain = |address: &str, port| {
        view.explain(address.parse().unwrap(), port, Protocol::Tcp, kernel_now()).unwrap()
    };
    let key = |address: &str| SourceKey::of(address.parse().unwrap(), v6_mask(64));

    let clean = explain("198.18.0.7", 443);
    assert_eq!(
        (clean.verdict.as_str(), clean.reason.as_str(), clean.source.as_str()),
        ("pass", "clean", "198.18.0.7")
    );
    let left: Vec<_> =
        clean.limits.iter().map(|limit| (limit.limit.as_str(), limit.limited, limit.remaining)).collect();
    assert_eq!(
        left,
        [
            ("packets", true, 100),
            ("connections", true, 3),
            ("hellos", false, 0),
            ("quic", false, 0),
            ("bytes", false, 0)
        ]
    );

    lists.ban(key("198.18.0.7"), Ban { until: FOREVER }).unwrap();
    lists.ban(key("2001:db8::1"), Ban { until: kernel_now().plus_seconds(60).0 }).unwrap();
    lists.list("198.18.9.0/24".parse().unwrap(), Listing::banned(FOREVER)).unwrap();
    lists.list("2001:db8:9::/48".parse().unwrap(), Listing::ALLOWED).unwrap();
    assert_eq!(explain("198.18.0.7", 443).reason, "banned");
    assert_eq!(explain("198.18.0.7", 22).reason, "management");
    assert_eq!(explain("2001:db8::ffff", 443).reason, "banned", "a source is a /64");
    assert_eq!(explain("2001:db8::ffff", 443).source, "2001:db8::/64");
    assert_eq!(explain("198.18.9.1", 443).reason, "banned_prefix");
    assert_eq!(explain("2001:db8:9::1", 443).reason, "allowed");
    let later = view
        .explain(
            "2001:db8::1".parse().unwrap(),
            443,
            Protocol::Tcp,
            KernelTime(kernel_now().plus_seconds(61).0),
        )
        .unwrap();
    assert_eq!(later.reason, "clean", "a ban ends by itself");

    lists.unban(key("198.18.0.7")).unwrap();
    lists.unban(key("198.18.0.7")).unwrap();
    lists.unlist("198.18.9.0/24".parse().unwrap()).unwrap();
    lists.unlist("198.18.9.0/24".parse().unwrap()).unwrap();
    assert_eq!(explain("198.18.0.7", 443).reason, "clean");
    assert_eq!(explain("198.18.9.1", 443).reason, "clean");
}

#[test]
fn explaining_charges_nobody_and_shows_what_the_program_charged() {
    use enforcer_tests::packets::{SOURCE_V4, SYN, tcp_frame};
    let kernel = Kernel::load(&config(&[]), 16).unwrap();
    let view = kernel.view().unwrap();
    let explain = || view.explain(SOURCE_V4.into(), 443, Protocol::Tcp, kernel_now()).unwrap();
    for _ in 0..10 {
        assert_eq!(explain().limits[1].remaining, 3);
    }
    kernel.test_run(&tcp_frame(SOURCE_V4.into(), 443, SYN, &[]), 2).unwrap();
    assert_eq!((explain().verdict.as_str(), explain().limits[1].remaining), ("pass", 1));
    kernel.test_run(&tcp_frame(SOURCE_V4.into(), 443, SYN, &[]), 5).unwrap();
    let exhausted = explain();
    assert_eq!((exhausted.reason.as_str(), exhausted.limits[1].remaining), ("connection_limit", 0));
    assert!(exhausted.limits[1].wait_ns > 0 && exhausted.limits[0].remaining == 93);
}

#[test]
fn new_settings_take_effect_and_keep_the_lists() {
    use enforcer_tests::packets::{DATA, Hello, SOURCE_V4, tcp_frame};
    let mut kernel = Kernel::load(&config(&[]), 16).unwrap();
    let hello = tcp_frame(SOURCE_V4.into(), 443, DATA, &Hello::legacy(0x0303).bytes());
    const XDP_PASS: u32 = 2;
    assert_eq!(kernel.test_run(&hello, 1).unwrap().action, XDP_PASS);
    kernel.lists().unwrap().list("198.18.44.0/24".parse().unwrap(), Listing::banned(FOREVER)).unwrap();
    let mut new = config(&[]);
    new.minimum_tls = TlsVersion::Tls13;
    kernel.apply(&new).unwrap();
    // Dropped without an answer: no SYN of the connection was seen.
    const XDP_DROP: u32 = 1;
    assert_eq!(kernel.test_run(&hello, 1).unwrap().action, XDP_DROP);
    let view = kernel.view().unwrap();
    assert_eq!(
        view.explain([198, 18, 44, 1].into(), 443, Protocol::Tcp, kernel_now()).unwrap().reason,
        "banned_prefix"
    );
    let tls = enforcer::kernel::Reason::Drop(enforcer_common::reason::DropReason::TlsVersion);
    let counted = view.counters().unwrap().into_iter().find(|count| count.reason == tls);
    assert_eq!(counted.unwrap().counter.packets, 1);
}
