//! The folders of configuration files: each valid one loads, each invalid one is refused with exactly the errors in
//! the `.expected` file beside it. `ENFORCER_BLESS=1` writes those files anew, to be read in the diff.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use enforcer::config::{
    self, AccessFormat, AccessLog, AllowedPort, Answers, Bans, ByteLimit, Certificate, Clients, Config,
    Control, Destination, Ejection, Everybody, HealthCheck, Http, Kernel, KernelLimits, KeyExchange, Limit,
    LimitSet, Listener, Log, LogFormat, Metrics, Mode, Query, RateLimit, Refusal, Refusals, Route, SubjectAs,
    Suite, Tls, TlsVersion, TokenAlgorithm, TokenType, Treatment, UnknownName, Unparsed, Unrouted, Upstream,
    UpstreamProtocol, UpstreamTls, VerifyChecksums, WhenExpired, WhenFull,
};
use enforcer_tests::edge;
use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files
}

/// Parses under the bare file name, so that messages name no folder.
fn parse(file: &Path) -> Result<Config, config::Errors> {
    config::parse(&fs::read_to_string(file).unwrap(), Path::new(file.file_name().unwrap()))
}

#[test]
fn valid_files_load() {
    let files = files("valid");
    for file in files {
        if let Err(errors) = parse(&file) {
            panic!("{}\n{errors}", file.display());
        }
    }
}

#[test]
fn invalid_files_are_refused_with_the_expected_errors() {
    let files = files("invalid");
    let bless = std::env::var_os("ENFORCER_BLESS").is_some() && files.len() >= 30;
    let mut wrong = Vec::new();
    for file in files {
        let errors = match parse(&file) {
            Ok(_) => panic!("{} loads", file.display()),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = file.with_extension("expected");
        if bless {
            fs::write(&expected, &errors).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != errors {
            wrong.push(format!("{}:\n{errors}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn valid(name: &str) -> Config {
    parse(&folder("valid").join(name)).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The documented defaults, all of them: a changed default must be changed here and in the documentation.
#[test]
fn the_smallest_file_gives_every_documented_default() {
    let rate = |events, burst| Some(RateLimit { events, period: seconds(1), burst });
    let expected = Config {
        kernel: Kernel {
            mode: Mode::Native,
            interfaces: vec!["eth0".to_owned()],
            allow: vec![],
            allow_ports: vec![],
            management_ports: vec![22],
            management_from: vec![],
            tiers: BTreeMap::new(),
            groups: BTreeMap::new(),
            everybody: Everybody { limits: LimitSet::OFF, shares: 100 },
            protected_ports: vec![443],
            ipv6_prefix: 64,
            minimum_tls: TlsVersion::Tls12,
            refusal: Refusal::Alert,
            hellos: config::Hellos::default(),
            verify_checksums: VerifyChecksums::Auto,
            answers: Answers::Auto,
            strict_connections: false,
            quic_ports: vec![],
            quic_versions: vec![1, 0x6b33_43cf],
            syn_cookies: rate(10_000, 20_000),
            unparsed: Unparsed { not_ip: Treatment::Pass, passed: vec![] },
            limits: KernelLimits {
                packets: rate(50_000, 100_000),
                connections: rate(200, 1_000),
                hellos: rate(200, 1_000),
                quic: rate(200, 1_000),
                bytes: None,
                ipv6_56: 0,
                ipv6_48: 0,
                when_full: WhenFull::Share,
                max_sources: 262_144,
            },
            dry_run: vec![],
            events: rate(100, 200),
            log: false,
            persist: true,
            pin_directory: "/sys/fs/bpf/enforcer".into(),
            lease: None,
            lease_expired: WhenExpired::Pass,
        },
        listeners: vec![Listener {
            address: "[::]:443".parse().unwrap(),
            certificates: vec![Certificate {
                chain: "/etc/enforcer/tls/api.pem".into(),
                key: "/etc/enforcer/tls/api.key".into(),
                ocsp: None,
            }],
            unknown_name: UnknownName::Default,
            clients: None,
            handshake_timeout: seconds(10),
            proxy_protocol_from: vec![],
            early_data: false,
        }],
        pins: config::Pins { switches: "/var/lib/enforcer/pin-switches".into(), ..config::Pins::default() },
        tls: Tls {
            suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
            key_exchange: vec![KeyExchange::X25519Mlkem768, KeyExchange::X25519, KeyExchange::P256],
            ticket_keys: None,
            ticket_lifetime: Some(seconds(12 * 3600)),
            early_data_sessions: 65_536,
        },
        upstreams: BTreeMap::from([(
            "api".to_owned(),
            Upstream {
                servers: vec!["http://127.0.0.1:9000".parse().unwrap()],
                connect_timeout: seconds(2),
                response_timeout: seconds(30),
                idle_timeout: seconds(4),
                tls: UpstreamTls {
                    authorities: None,
                    server_name: None,
                    certificate: None,
                    alpn: vec![UpstreamProtocol::Http2, UpstreamProtocol::Http1],
                },
                stream_timeout: seconds(30),
                total_timeout: None,
                upgrade_timeout: seconds(300),
                max_connections: 1_000,
                max_pending: 1_000,
                ejection: Ejection { failures: 5, rest: seconds(5) },
                health: None,
            },
        )]),
        tokens: BTreeMap::from([(
            "main".to_owned(),
            edge::token("https://id.example.com/", "/etc/enforcer/jwks.json".into()),
        )]),
        dpop: edge::dpop(),
        signatures: BTreeMap::new(),
        payloads: BTreeMap::new(),
        replay: config::Replay {
            max_entries: 1_000_000,
            store: Some("/var/lib/enforcer/replay.redb".into()),
        },
        attestation: None,
        routes: vec![Route {
            limits: vec![Limit::by_address(RateLimit { events: 5, period: seconds(1), burst: 10 })],
            ..edge::route("/api/v1/", Some("main"), &["read"])
        }],
        http: Http {
            strict_transport_security: Some("max-age=31536000".to_owned()),
            response_headers: BTreeMap::from([
                (
                    "content-security-policy".to_owned(),
                    "default-src 'none'; frame-ancestors 'none'".to_owned(),
                ),
                ("x-content-type-options".to_owned(), "nosniff".to_owned()),
            ]),
            redirect: vec![],
            max_connections: 20_000,
            max_connections_per_source: 1000,
            max_header_bytes: 32 * 1024,
            max_header_fields: 100,
            trusted_proxies: vec![],
            body_timeout: seconds(30),
            min_body_rate: 64,
            write_timeout: seconds(60),
            forwarded_by: config::ForwardedBy::XForwardedFor,
            forwarded_origin: false,
            control_frames: rate(100, 1000),
            max_body_bytes: 10 * 1024 * 1024,
            max_held_bytes: 256 << 20,
            header_timeout: seconds(15),
            idle_timeout: seconds(75),
            drain_timeout: seconds(20),
            max_sources: 65_536,
            max_delayed: 1_000,
            ratelimit_headers: true,
            tokens_in_query: false,
            unrouted: Unrouted::NotFound,
            token_cache: 65_536,
            workers: 0,
        },
        bans: Bans {
            threshold: 100,
            window: seconds(60),
            duration: seconds(600),
            max_duration: seconds(24 * 3600),
            max_entries: 1_100_000,
            dry_run: false,
            store: Some("/var/lib/enforcer/bans.redb".into()),
        },
        revocation: config::Revocation::default(),
        metrics: Metrics { address: Some("127.0.0.1:9464".parse().unwrap()) },
        control: Control { socket: "/run/enforcer/control.sock".into(), group: None },
        log: Log { level: "info".to_owned(), format: LogFormat::Text },
        access_log: AccessLog {
            destination: Destination::Off,
            format: AccessFormat::Json,
            sample: 1,
            refusals: Refusals::All,
            query: Query::Drop,
            subject: SubjectAs::Hash,
            queue: 8_192,
        },
    };
    assert_eq!(valid("smallest.toml"), expected);
}

/// The reference shows every key at its default; what it shows must be what the smallest file gives.
#[test]
fn the_reference_shows_the_defaults() {
    let text = fs::read_to_string(folder("../../docs/configuration.md")).unwrap();
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: String = blocks.collect();
    assert_eq!(config::parse(&blocks, Path::new("configuration.toml")), Ok(valid("smallest.toml")));
}

#[test]
fn the_packaged_example_loads() {
    let text = fs::read_to_string(folder("../../enforcer/dist/enforcer.toml")).unwrap();
    let config = config::parse(&text, Path::new("/etc/enforcer/enforcer.toml")).unwrap();
    assert_eq!(config.tokens["main"].keys.file(), Some(Path::new("/etc/enforcer/jwks.json")));
}

#[test]
fn what_is_written_is_what_holds() {
    let config = valid("every_key.toml");
    assert_eq!(config.kernel.mode, Mode::NativeOrGeneric);
    assert_eq!(config.kernel.limits.connections.unwrap().burst, 100, "one period's worth without a burst");
    assert_eq!(config.kernel.limits.hellos, None);
    assert_eq!((config.kernel.persist, config.kernel.lease), (false, Some(seconds(90))));
    assert_eq!(config.kernel.lease_expired, WhenExpired::Bans);
    assert_eq!(config.kernel.pin_directory, Path::new("/run/bpf/edge"));
    assert_eq!(config.bans.store, Some("state/bans.redb".into()));
    assert_eq!(config.kernel.limits.max_sources, 131_072, "rounded up");
    assert_eq!(config.kernel.protected_ports, [443, 8443]);
    assert_eq!((&config.kernel.quic_versions[..], config.kernel.syn_cookies), (&[1][..], None));
    assert_eq!((config.kernel.unparsed.not_ip, config.kernel.unparsed.passed.len()), (Treatment::Drop, 7));
    let kernel = &config.kernel;
    let pair = AllowedPort { source: "198.51.101.0/24".parse().unwrap(), port: 8443 };
    assert_eq!((kernel.allow.len(), &kernel.allow_ports[..]), (3, &[pair][..]));
    assert_eq!(kernel.management_from.len(), 2);
    let partners = &kernel.tiers["partners"];
    assert_eq!((partners.prefixes.len(), partners.limits.connections), (2, None));
    assert_eq!(
        partners.limits.packets,
        Some(RateLimit { events: 200_000, period: seconds(1), burst: 400_000 })
    );
    assert_eq!(kernel.tiers["suspects"].limits, kernel.limits.set(), "as everybody's");
    assert_eq!(kernel.limits.bytes, Some(ByteLimit { rate: 20 << 20, burst: 64 << 20 }));
    assert_eq!((kernel.limits.ipv6_56, kernel.limits.ipv6_48), (0, 64));
    let group = &kernel.groups["dns"];
    assert_eq!(group.ports, [53, 853]);
    let own = LimitSet {
        packets: Some(RateLimit { events: 100, period: seconds(1), burst: 100 }),
        ..LimitSet::OFF
    };
    assert_eq!(group.limits, own);
    assert_eq!((kernel.everybody.shares, kernel.everybody.limits.hellos.unwrap().burst), (50, 9_000));
    let listener = &config.listeners[0];
    assert_eq!(listener.unknown_name, UnknownName::Refuse);
    assert_eq!(listener.certificates[0].ocsp.as_deref(), Some(Path::new("tls/api.ocsp")));
    let (authorities, crls) = ("tls/devices.pem".into(), vec!["tls/devices.crl".into()]);
    assert_eq!(listener.clients, Some(Clients { required: true, authorities, crls }));
    assert!(config.listeners[1].clients.as_ref().is_some_and(|clients| !clients.required));
    assert_eq!(config.tls.suites, [Suite::Aes128Gcm, Suite::Aes256Gcm]);
    assert_eq!((&config.tls.key_exchange[..], config.tls.ticket_lifetime), (&[KeyExchange::P256][..], None));
    let headers: Vec<&str> = config.http.response_headers.keys().map(String::as_str).collect();
    assert_eq!(headers, ["content-security-policy", "referrer-policy"], "an empty value removes a default");
    assert_eq!(config.http.redirect.len(), 2);
    assert_eq!(config.tokens["main"].algorithms, [TokenAlgorithm::Es256]);
    assert_eq!((config.tokens["main"].kind, config.http.token_cache), (TokenType::AccessToken, 0));
    assert_eq!(config.routes[0].tokens, ["main", "partner"]);
    let demands = &config.routes[0].demands;
    assert_eq!(demands.method_scopes["POST"], ["write"]);
    assert_eq!((demands.any_scope.len(), demands.acr.len()), (2, 1));
    assert_eq!(demands.claims["tier"], [serde_json::json!("gold"), serde_json::json!(1)]);
    assert_eq!(demands.max_auth_age, Some(seconds(600)));
    assert!(config.routes[1].tokens.is_empty());
    let http = &config.http;
    assert_eq!((http.max_header_bytes, http.max_header_fields, http.max_body_bytes), (16 * 1024, 50, 0));
    let api = &config.upstreams["api"];
    assert_eq!((api.connect_timeout, api.total_timeout), (Duration::from_millis(500), Some(seconds(60))));
    assert_eq!((api.stream_timeout, api.upgrade_timeout), (seconds(20), seconds(3600)));
    assert_eq!((api.max_connections, api.max_pending), (64, 0));
    assert_eq!(api.ejection, Ejection { failures: 3, rest: seconds(30) });
    let health = api.health.as_ref().unwrap();
    assert_eq!(
        (health.path.as_str(), health.interval, health.timeout),
        ("/healthz", seconds(1), Duration::from_millis(500))
    );
    assert_eq!((health.healthy, health.unhealthy), (3, 1));
    assert_eq!(api.tls.alpn, [UpstreamProtocol::Http2]);
    assert_eq!(api.tls.server_name.as_deref(), Some("api.internal"));
    assert_eq!(valid("every_key.toml").files().iter().filter(|path| path.starts_with("behind")).count(), 3);
    assert_eq!(config.upstreams["site"].health, Some(HealthCheck::of("/".to_owned())));
    assert_eq!(valid("inline_tables.toml").http.strict_transport_security, None);
    assert_eq!(valid("development.toml").metrics.address, None);
    assert_eq!(valid("sixteen_listener_ports.toml").kernel.protected_ports.len(), 16);
    assert_eq!(valid("limits_off.toml").kernel.limits.packets, None);
}

#[test]
fn files_that_cannot_be_read_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let absent = config::load(&folder.path().join("absent.toml")).unwrap_err().to_string();
    assert!(absent.contains("cannot be read") && absent.lines().count() == 1, "{absent}");
    assert!(config::load(folder.path()).is_err());
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, b"[kernel]\n\xff\xfe").unwrap();
    let said = config::load(&binary).unwrap_err().to_string();
    assert!(said.contains("binary.toml:2: is not UTF-8"), "{said}");
}

/// A file full of errors costs no more than a good one of its size, and says no more than people read.
#[test]
fn many_errors_are_cut_short() {
    let entries = "\"a/b\", ".repeat(100_000);
    let errors =
        config::parse(&format!("kernel.interfaces = [{entries}]"), Path::new("many.toml")).unwrap_err();
    assert_eq!(errors.0.len(), 100);
    let errors = config::parse(&"] = [\n".repeat(100_000), Path::new("many.toml")).unwrap_err();
    assert_eq!(errors.0.len(), 1, "what follows a mistake in the grammar is its echo");
    let unknown: String = (0..3_000).map(|i| format!("key{i} = 1\n")).collect();
    assert_eq!(config::parse(&unknown, Path::new("many.toml")).unwrap_err().0.len(), 100);
}

#[test]
fn a_list_of_allowances_that_the_tables_could_not_hold_is_refused() {
    let text = std::fs::read_to_string(folder("valid").join("every_key.toml")).unwrap();
    let (before, after) = text.split_once("\nallow = [").unwrap();
    let allow = |count: usize| {
        let entries: Vec<String> =
            (0..count).map(|n| format!("\"198.18.{}.{}\"", n / 256, n % 256)).collect();
        let rest = after.split_once(']').unwrap().1;
        config::parse(&format!("{before}\nallow = [{}]{rest}", entries.join(", ")), Path::new("x.toml"))
    };
    // The file names four other prefixes.
    let most = config::MAX_ALLOW - 4;
    assert_eq!(allow(most).unwrap().kernel.allow.len(), most);
    let errors = allow(most + 1).unwrap_err();
    assert!(
        errors.to_string().contains("4093 entries of 4097 prefixes in [kernel]; list 4096 at most"),
        "{errors}"
    );
}

#[test]
fn a_reload_takes_over_what_it_can_and_names_the_rest() {
    let old = valid("smallest.toml");
    assert_eq!(config::settle(&old, old.clone()), (old.clone(), Vec::new()));
    let mut live = old.clone();
    live.routes.clear();
    live.kernel.limits.packets = None;
    live.listeners[0].handshake_timeout = seconds(3);
    live.tls.ticket_lifetime = None;
    live.http.response_headers.clear();
    live.bans.threshold = 5;
    assert_eq!(config::settle(&old, live.clone()), (live.clone(), Vec::new()));
    let mut new = live.clone();
    new.kernel.interfaces.push("eth1".to_owned());
    new.kernel.limits.max_sources *= 2;
    new.metrics.address = None;
    new.http.redirect.push("[::]:80".parse().unwrap());
    new.http.workers = 3;
    new.control.group = Some("ops".to_owned());
    let expected = [
        "kernel.interfaces",
        "kernel.limits.max_sources",
        "http.redirect",
        "http.workers",
        "metrics.address",
        "control.group",
    ];
    let (settled, pending) = config::settle(&old, new);
    assert_eq!(pending, expected);
    assert_eq!(settled, live, "what is fixed stays as it was");
    let mut moved = old.clone();
    moved.listeners[0].address = "[::]:8443".parse().unwrap();
    let (settled, pending) = config::settle(&old, moved);
    assert_eq!((settled, pending), (old, vec!["listener.address".to_owned()]));
}

/// Files that load and are probably not meant so: exactly the expected warnings, and no other valid file has one.
#[test]
fn files_that_are_probably_not_meant_are_warned_of() {
    let bless = std::env::var_os("ENFORCER_BLESS").is_some();
    let warned = files("warned");
    assert!(warned.len() >= 4);
    let mut wrong = Vec::new();
    for file in warned {
        let text = fs::read_to_string(&file).unwrap();
        let seen = config::inspect_text(&text, Path::new(file.file_name().unwrap()), None);
        assert_eq!(seen.errors, [], "{}", file.display());
        let warnings: String = seen.warnings.iter().map(|one| format!("{}\n", one.warning())).collect();
        let expected = file.with_extension("expected");
        if bless {
            fs::write(&expected, &warnings).unwrap();
        }
        if warnings.is_empty() || fs::read_to_string(&expected).unwrap_or_default() != warnings {
            wrong.push(format!("{}:\n{warnings}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for file in &files("valid") {
        let text = fs::read_to_string(file).unwrap();
        if !text.contains("path = ") {
            continue;
        }
        let warnings = config::inspect_text(&text, file, None).warnings;
        assert_eq!(warnings, [], "{}", file.display());
    }
}

/// The text of one valid file, for mutation.
fn any_valid_text() -> impl Strategy<Value = String> {
    let texts: Vec<String> = files("valid").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    proptest::sample::select(texts)
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = config::parse(&text, Path::new("any.toml"));
    }

    #[test]
    fn no_text_of_toml_tokens_makes_it_panic(text in "([a-z]{1,3}|[\\[\\]{}=.,\"'\n#0-9 -]|\\[\\[route\\]\\]\n|\\[kernel\\]\n){0,60}") {
        let _ = config::parse(&text, Path::new("any.toml"));
    }

    /// Mutated files load, or are refused with errors that stand inside the file.
    #[test]
    fn mutated_files_are_refused_in_place(
        text in any_valid_text(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), "[a-z0-9\\[\\]{}=\"., \n-]{0,4}", 0usize..6), 1..6),
    ) {
        let mut characters: Vec<char> = text.chars().collect();
        for (place, insert, remove) in edits {
            let start = place.index(characters.len() + 1);
            let end = (start + remove).min(characters.len());
            characters.splice(start..end, insert.chars());
        }
        let text: String = characters.into_iter().collect();
        if let Err(errors) = config::parse(&text, Path::new("mutated.toml")) {
            prop_assert!(!errors.0.is_empty());
            for error in &errors.0 {
                prop_assert!((1..=text.lines().count() + 1).contains(&error.line), "{error}\n{text}");
                prop_assert!(!error.problem.is_empty() && !error.remedy.is_empty());
            }
        }
    }
}
