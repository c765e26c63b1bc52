//! The control socket and the ban task behind it, over a kernel that is a table in memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod tiers;

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use arc_swap::ArcSwap;
use enforcer::{
    bans::{
        Reporter,
        ledger::{Input, Ledger, Settings},
        projection::Place,
        task,
    },
    clock::{self, KernelTime},
    config::Bans,
    control::{
        answer::{Context, Facts},
        bulk::{Order, parts},
        client::{self, ClientError, Conversation},
        server,
        socket::Socket,
        wire::{
            Answer, Body, Command, Failure, FailureKind, MAX_REQUEST, Many, PersistenceRow, Reloaded,
            Response,
        },
    },
    denial::Denial,
    kernel::{Attachment, Count, Counters, Explanation, Protocol, Reason, SourceLists, View},
    metrics::{self, Metrics},
    policy::Policy,
    prefix::Prefix,
};
use enforcer_common::{
    ban::{Ban, Listing},
    maps::Counter,
    reason::DropReason,
    source::SourceKey,
};
use enforcer_tests::poll;
use tokio::sync::mpsc;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tables that refuse to be written while `broken`.
#[derive(Clone, Default)]
struct Tables {
    held: Arc<Mutex<HashMap<Place, Listing>>>,
    broken: Arc<AtomicBool>,
}

impl Tables {
    fn write(&self, place: Place, listing: Option<Listing>) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            bail!("no space left in the map");
        }
        let mut held = self.held.lock().unwrap();
        match listing {
            Some(listing) => drop(held.insert(place, listing)),
            None => drop(held.remove(&place)),
        }
        Ok(())
    }

    fn holds(&self, text: &str) -> bool {
        let address: IpAddr = text.parse().unwrap();
        self.held.lock().unwrap().contains_key(&Place::Source(SourceKey::of(address, u64::MAX)))
    }
}

impl SourceLists for Tables {
    fn ban(&mut self, source: SourceKey, ban: Ban) -> Result<()> {
        self.write(Place::Source(source), Some(Listing::banned(ban.until)))
    }
    fn unban(&mut self, source: SourceKey) -> Result<()> {
        self.write(Place::Source(source), None)
    }
    fn list(&mut self, prefix: Prefix, listing: Listing) -> Result<()> {
        self.write(Place::Prefix(prefix), Some(listing))
    }
    fn unlist(&mut self, prefix: Prefix) -> Result<()> {
        self.write(Place::Prefix(prefix), None)
    }
}

/// A data plane of which one interface is attached.
struct OneInterface(Tables);

impl View for OneInterface {
    fn attachments(&self) -> Vec<Attachment> {
        vec![Attachment { interface: "veth0".into(), index: 7, mode: "native".into() }]
    }
    fn counters(&self) -> Result<Counters> {
        let counter = Counter { packets: 3, bytes: 180 };
        Ok(vec![Count { interface: "veth0".into(), reason: Reason::Drop(DropReason::Banned), counter }])
    }
    fn explain(&self, address: IpAddr, _: u16, _: Protocol, _: KernelTime) -> Result<Explanation> {
        let (verdict, reason) =
            if self.0.holds(&address.to_string()) { ("drop", "banned") } else { ("pass", "clean") };
        Ok(Explanation {
            verdict: verdict.into(),
            reason: reason.into(),
            description: String::new(),
            rule: String::new(),
            would_drop: Vec::new(),
            source: address.to_string(),
            tier: String::new(),
            limits: Vec::new(),
        })
    }
}

/// A ban task and a control socket that serves it.
struct Daemon {
    runtime: tokio::runtime::Runtime,
    tables: Tables,
    reporter: Reporter,
    metrics: Metrics,
    bans: task::Handle,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (folder, tables, metrics) =
            (tempfile::tempdir().unwrap(), Tables::default(), Metrics::new().unwrap());
        let socket = folder.path().join("run/control.sock");
        let (reporter, offences) = Reporter::new(64, metrics.offences_lost.clone());
        let bans = Bans {
            threshold: 20,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
            max_duration: Duration::from_secs(3600),
            max_entries: 1000,
            dry_run: false,
            store: None,
        };
        let _entered = runtime.enter();
        let (ledger, banned) = (Ledger::new(bans.clone()), Arc::clone(reporter.banned()));
        let (handle, _) =
            task::spawn(ledger, Box::new(tables.clone()), offences, metrics.clone(), None, banned);
        let allow = vec!["198.18.9.0/24".parse().unwrap()];
        let (marks, upstreams) = (BTreeMap::new(), Vec::new());
        let settings =
            Settings { bans, allow, marks, tiers: vec!["large".into()], ipv6_prefix: 64, upstreams };
        runtime.block_on(handle.change(Input::Reconfigure(settings))).unwrap();
        let facts = Facts {
            kernel_mode: "native",
            persistence: PersistenceRow { store: Some("bans.redb".into()), ..PersistenceRow::default() },
            listeners: vec!["[::]:443".into()],
            metrics: None,
            max_connections: 100,
            port: 443,
            tokens: Vec::new(),
            rehearsed: Vec::new(),
            listed: Vec::new(),
            samples: None,
            draining: false,
            last_reload: None,
            files: None,
        };
        let (reloads, mut requests) = mpsc::channel::<enforcer::control::answer::ReloadRequest>(1);
        runtime.spawn(async move {
            while let Some(request) = requests.recv().await {
                let _ = request.send(Ok(Reloaded { needs_restart: vec!["kernel.mode".into()] }));
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let policy = Policy::load(&enforcer_tests::edge::Site::new(nowhere).unwrap().config).unwrap();
        let context = Context {
            bans: handle.clone(),
            view: Arc::new(OneInterface(tables.clone())),
            metrics: metrics.clone(),
            samples: None,
            facts: Arc::new(ArcSwap::from_pointee(facts)),
            policy: policy.share(),
            started: clock::instant_now(),
            reloads,
            switches: mpsc::channel(1).0,
        };
        let bound = Socket::bind(&socket, None).unwrap();
        runtime.spawn(server::serve(bound, Arc::new(context)));
        drop(_entered);
        Self { runtime, tables, reporter, metrics, bans: handle, socket, folder }
    }

    fn ask(&self, command: Command) -> Result<Answer, ClientError> {
        client::ask(&self.socket, command)
    }

    fn ban(&self, prefix: &str) -> Result<Answer, ClientError> {
        self.ask(Command::BanAdd {
            prefix: prefix.parse().unwrap(),
            seconds: Some(600),
            forever: false,
            reason: "scraper".into(),
            force: false,
            own_address: None,
        })
    }
}

/// What comes back for `bytes`, line by line, until the daemon closes or one answer is there.
fn exchange(socket: &Path, bytes: &[u8]) -> Response {
    let mut stream = connect(socket);
    // The daemon may stop reading in the middle of a line that is too long.
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read(stream: &mut UnixStream) -> Response {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn error(response: Response) -> Failure {
    match response.body {
        Body::Error(failure) => failure,
        Body::Answer(answer) => panic!("{answer:?}"),
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    poll::until(what, PATIENCE, || Ok(holds().then_some(()))).unwrap();
}

#[test]
fn offences_become_a_ban_in_the_tables_and_in_every_answer() {
    let daemon = Daemon::start();
    let source: IpAddr = "198.18.0.2".parse().unwrap();
    for _ in 0..4 {
        daemon.reporter.report(source, Denial::TokenMissing);
    }
    eventually("the ban reaches the tables", || daemon.tables.holds("198.18.0.2"));
    let Ok(Answer::Bans(rows)) = daemon.ask(Command::BanList) else { panic!() };
    assert_eq!(
        (rows.len(), rows[0].origin.as_str(), rows[0].cause.as_str()),
        (1, "offence", "token_missing")
    );
    let Ok(Answer::Why(why)) =
        daemon.ask(Command::Why { address: source, port: None, protocol: Protocol::Tcp })
    else {
        panic!()
    };
    assert!(why.sentence.starts_with("198.18.0.2 is banned for "), "{}", why.sentence);
    assert!(why.sentence.ends_with("its packets are dropped (banned)"), "{}", why.sentence);
    assert_eq!((why.port, why.counter.unwrap().packets, why.score.unwrap().bans), (443, 3, 1));
    let Ok(Answer::Status(status)) = daemon.ask(Command::Status) else { panic!() };
    assert_eq!((status.bans[0].name.as_str(), status.bans[0].count), ("offence", 1));
    assert_eq!((status.list_entries, status.pending_writes, status.drops[0].packets), (2, 0, 3));
    assert!(status.resident_bytes > 0 && status.pid == std::process::id());
    let text = metrics::http::text(&daemon.metrics.registry).unwrap();
    assert!(text.contains(r#"enforcer_bans_total{cause="token_missing"} 1"#), "{text}");
    assert!(text.contains(r#"enforcer_bans_active{origin="offence"} 1"#), "{text}");
    let Ok(Answer::Done(done)) = daemon.ask(Command::BanDel { prefix: Prefix::host(source) }) else {
        panic!()
    };
    assert_eq!(done.message, "the ban of 198.18.0.2 is lifted");
    assert!(!daemon.tables.holds("198.18.0.2"));
}

#[test]
fn what_the_kernel_refuses_is_said_and_tried_again_until_it_holds() {
    let daemon = Daemon::start();
    daemon.tables.broken.store(true, Ordering::SeqCst);
    let Ok(Answer::Done(done)) = daemon.ban("198.18.0.2") else { panic!() };
    // The lists name whom it was about; the task adds nothing to that.
    let says = "the kernel refused it so far, trying again every second: no space left in the map";
    assert_eq!(done.remarks, [says]);
    let Ok(Answer::Done(_)) = daemon.ban("198.18.0.3") else { panic!() };
    let Ok(Answer::Status(status)) = daemon.ask(Command::Status) else { panic!() };
    assert_eq!(status.pending_writes, 2);
    let Ok(Answer::Done(_)) = daemon.ask(Command::BanDel { prefix: "198.18.0.3".parse().unwrap() }) else {
        panic!()
    };
    assert!(daemon.metrics.kernel_write_errors.get() >= 3);
    daemon.tables.broken.store(false, Ordering::SeqCst);
    eventually("the tables converge", || {
        daemon.tables.holds("198.18.0.2") && daemon.metrics.kernel_writes_pending.get() == 0
    });
    assert!(!daemon.tables.holds("198.18.0.3"), "lifted meanwhile");
}

#[test]
fn a_ban_that_has_no_effect_says_so() {
    let daemon = Daemon::start();
    let Ok(Answer::Done(done)) = daemon.ban("198.18.9.7") else { panic!() };
    assert_eq!(done.remarks, ["it has no effect while 198.18.9.0/24 is allowed"]);
    assert!(!daemon.tables.holds("198.18.9.7"));
    let Ok(Answer::Bans(rows)) = daemon.ask(Command::BanList) else { panic!() };
    assert_eq!(rows[0].shadowed_by, Some("198.18.9.0/24".parse().unwrap()));
    let Ok(Answer::Done(done)) = daemon.ban("2001:db8::7") else { panic!() };
    assert_eq!(done.remarks, ["an IPv6 client has more addresses than that: consider 2001:db8::/64"]);
    let Err(ClientError::Failed(failure)) = daemon.ban("0.0.0.0/0") else { panic!() };
    assert_eq!(failure.kind, FailureKind::Refused);
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_daemon() {
    let daemon = Daemon::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.socket), 0o660);
    assert_eq!(mode(daemon.socket.parent().unwrap()), 0o755);
    let folder = std::fs::read_dir(daemon.socket.parent().unwrap()).unwrap();
    assert_eq!(folder.count(), 1, "nothing but the socket");
    let second = daemon.runtime.block_on(async { Socket::bind(&daemon.socket, None) }).unwrap_err();
    assert!(second.to_string().contains("another daemon answers on"), "{second}");
    let Daemon { runtime, socket, folder, .. } = daemon;
    drop(runtime);
    assert!(!socket.exists());
    drop(folder);
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file behind");
    // Of a process that was killed while it started; no process has so high a number.
    let left = folder.path().join(".socket.99999999");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("s"), "").unwrap();
    runtime.block_on(async { Socket::bind(&path, None) }).unwrap();
    assert!(!left.exists(), "leftovers stay");
    std::fs::write(&path, "precious").unwrap();
    let error = runtime.block_on(async { Socket::bind(&path, None) }).unwrap_err();
    assert!(error.to_string().contains("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let error = runtime.block_on(async { Socket::bind(&path, Some("no-such-group")) }).unwrap_err();
    assert!(error.to_string().contains("groupadd --system no-such-group"), "{error}");
}

#[test]
fn garbage_gets_an_error_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut stream = connect(&daemon.socket);
    for (line, says) in [
        ("garbage", "not a request"),
        ("", "not a request"),
        ("[]", "not a request"),
        ("\u{0}", "not a request"),
        (r#"{"command":"status"}"#, "missing field `version`"),
        (r#"{"version":1}"#, "missing field `command`"),
        (r#"{"version":1,"command":"stop"}"#, "unknown variant `stop`"),
        (r#"{"version":1,"command":{"ban_del":{"prefix":"198.18.0.1/24"}}}"#, "did you mean 198.18.0.0/24"),
        (r#"{"version":1,"command":{"ban_del":{"prefix":"198.18.0.1","sudo":1}}}"#, "unknown field `sudo`"),
        (
            r#"{"version":1,"command":{"ban_add":{"prefix":"198.18.0.1","seconds":1,"forever":true}}}"#,
            "either",
        ),
    ] {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let failure = error(read(&mut stream));
        assert_eq!(failure.kind, FailureKind::Malformed, "{line}");
        assert!(failure.message.contains(says), "{line}: {}", failure.message);
    }
    stream.write_all(b"{\"version\":2,\"command\":\"from the future\"}\n").unwrap();
    assert_eq!(error(read(&mut stream)).kind, FailureKind::Version);
    stream.write_all(b"{\"version\":1,\"command\":\"ban_list\"}\n").unwrap();
    assert!(matches!(read(&mut stream).body, Body::Answer(Answer::Bans(rows)) if rows.is_empty()));
}

#[test]
fn a_request_without_end_is_cut_off() {
    let daemon = Daemon::start();
    let failure = error(exchange(&daemon.socket, &vec![b' '; MAX_REQUEST + 1]));
    assert_eq!(failure.message, format!("the request is longer than {MAX_REQUEST} bytes"));
    let mut stream = connect(&daemon.socket);
    stream.write_all(b"{\"version\":1,").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("not a request"), "half a request is none: {rest}");
}

#[test]
fn too_many_clients_are_told_and_idle_ones_give_way() {
    let daemon = Daemon::start();
    // Each of these has been answered once, so it holds its place and says nothing more.
    let silent: Vec<UnixStream> = (0..16)
        .map(|_| {
            let mut stream = connect(&daemon.socket);
            stream.write_all(b"{\"version\":1,\"command\":\"ban_list\"}\n").unwrap();
            assert!(matches!(read(&mut stream).body, Body::Answer(_)));
            stream
        })
        .collect();
    let Err(ClientError::Failed(failure)) = daemon.ask(Command::Status) else {
        panic!("a seventeenth was served")
    };
    assert_eq!(failure.kind, FailureKind::Busy);
    // They stay open, but whoever asks nothing while places are scarce loses his.
    eventually("places are free again", || daemon.ask(Command::Status).is_ok());
    drop(silent);
}

#[test]
fn reload_says_what_needs_a_restart_and_metrics_are_told() {
    let daemon = Daemon::start();
    let Ok(Answer::Reloaded(reloaded)) = daemon.ask(Command::Reload) else { panic!() };
    assert_eq!(reloaded.needs_restart, ["kernel.mode"]);
    let Ok(Answer::Metrics(text)) = daemon.ask(Command::Metrics) else { panic!() };
    assert!(text.contains("enforcer_kernel_write_errors_total 0"), "{text}");
    let pending = daemon.runtime.block_on(daemon.bans.look(|_, moment| moment.pending)).unwrap();
    assert_eq!(pending, 0);
}

#[test]
fn nobody_there_is_another_exit_than_no() {
    let folder = tempfile::tempdir().unwrap();
    let error = client::ask(&folder.path().join("control.sock"), Command::Status).unwrap_err();
    assert!(error.to_string().contains("no daemon answers on"), "{error}");
    assert_eq!(enforcer::cli::exit::Exit::from(&error), enforcer::cli::exit::UNREACHABLE);
    for (kind, code) in
        [(FailureKind::Refused, 1), (FailureKind::Permission, 77), (FailureKind::Configuration, 78)]
    {
        let error = ClientError::Failed(Failure::new(kind, ""));
        assert_eq!(enforcer::cli::exit::Exit::from(&error).0, code);
    }
}

#[test]
fn a_list_comes_in_parts_and_what_the_kernel_refuses_reaches_it_later() {
    let daemon = Daemon::start();
    let prefixes: Vec<Prefix> =
        (0..900u32).map(|n| Prefix::host(Ipv4Addr::from(0xc612_0000 + n).into())).collect();
    let order = |seconds| Order::Ban {
        seconds,
        forever: false,
        reason: "list".into(),
        force: false,
        own_address: None,
    };
    daemon.tables.broken.store(true, Ordering::SeqCst);
    let mut conversation = Conversation::begin(&daemon.socket).unwrap();
    let mut sum = Many::default();
    for command in prefixes.chunks(300).flat_map(|part| parts(part, &order(Some(60))).collect::<Vec<_>>()) {
        conversation.tell(command);
        let Answer::Many(part) = conversation.hear().unwrap() else { panic!("something else") };
        sum.add(part);
    }
    assert_eq!((sum.banned, sum.replaced, sum.refusals()), (900, 0, 0));
    assert!(
        sum.remarks.iter().any(|remark| remark.contains("no space left in the map")),
        "{:?}",
        sum.remarks
    );
    assert!(!daemon.tables.holds("198.18.0.7"));
    daemon.tables.broken.store(false, Ordering::SeqCst);
    poll::until("the bans to reach the kernel", PATIENCE, || {
        let pending = daemon.runtime.block_on(daemon.bans.look(|_, moment| moment.pending))?;
        Ok((pending == 0).then_some(()))
    })
    .unwrap();
    assert!(daemon.tables.holds("198.18.0.7") && daemon.tables.holds("198.18.3.131"));
    for command in parts(&prefixes, &Order::Lift) {
        conversation.tell(command);
        let Answer::Many(part) = conversation.hear().unwrap() else { panic!("something else") };
        assert_eq!((part.lifted, part.not_banned), (900, 0));
    }
    assert!(!daemon.tables.holds("198.18.0.7"));
    let forever = Order::Ban {
        forever: true,
        seconds: Some(1),
        reason: String::new(),
        force: false,
        own_address: None,
    };
    for command in parts(&prefixes[..1], &forever).chain(parts(&prefixes[..1], &order(Some(0)))) {
        let error = daemon.ask(command).unwrap_err();
        assert!(matches!(error, ClientError::Failed(_)), "{error}");
    }
}
