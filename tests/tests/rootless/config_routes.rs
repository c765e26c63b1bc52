//! What routes, their limits, the access log, issuers whose keys are fetched and lists of hellos are told by the file that has every key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::panic, reason = "a test that cannot go on stops")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use enforcer::config::{
    self, AccessFormat, AccessLog, Binding, Bindings, Cors, Destination, Dpop, Endpoint, Fingerprint,
    HeaderRule, Introspection, KeySource, Limit, LimitKey, MAX_HELLOS, Meant, OperationKind, Query,
    RateLimit, Refusals, Replay, Revocation, RevocationClient, ServerName, Signature, SignatureScheme,
    SubjectAs, TokenAlgorithm, Unrouted,
};
use http::{HeaderName, Method};

#[test]
fn what_is_written_of_routes_is_what_holds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid/every_key.toml");
    let config = config::parse(&fs::read_to_string(file).unwrap(), Path::new("every_key.toml")).unwrap();
    let seconds = Duration::from_secs;
    let rate = |events, period, burst| RateLimit { events, period: seconds(period), burst };
    let limits = &config.routes[0].limits;
    assert_eq!(limits[0], Limit::by_address(rate(300, 60, 10)));
    let by_header = LimitKey::Header(HeaderName::from_static("x-api-key"));
    let (name, delay) = ("by-key".to_owned(), Some(5));
    assert_eq!(limits[2], Limit { name, key: by_header, rate: rate(50, 1, 20), delay, dry_run: true });
    assert_eq!(limits.len(), 5);
    assert_eq!(config.routes[0].name, "orders");
    assert_eq!(config.routes[0].hosts, ["api.example.com", "*.eu.example.com"]);
    assert_eq!(config.routes[0].methods, [Method::GET, Method::POST, Method::HEAD]);
    let rule = |name, value| HeaderRule { name: HeaderName::from_static(name), value };
    let rules = [rule("x-api-version", Some("2".to_owned())), rule("x-client", None)];
    assert_eq!(config.routes[0].headers, rules);
    assert_eq!(config.routes[1].limits, [Limit::by_address(rate(5, 1, 0))]);
    assert_eq!(config.routes[1].name, "/health");
    assert_eq!([0, 1].map(|route| config.routes[route].early_data), [false, true]);
    let cors = Cors {
        origins: vec!["https://app.example.com".to_owned(), "http://localhost:3000".to_owned()],
        methods: vec![Method::GET, Method::PUT],
        headers: vec![HeaderName::from_static("x-api-version")],
        expose: vec![HeaderName::from_static("x-total-count")],
        credentials: true,
        max_age: seconds(3600),
    };
    assert_eq!((&config.routes[0].cors, &config.routes[1].cors), (&None, &Some(cors)));
    assert_eq!((config.listeners[0].early_data, config.tls.early_data_sessions), (false, 2_048));
    assert_eq!((config.http.unrouted, config.http.max_delayed), (Unrouted::Deny, 100));
    assert_eq!(config.http.max_held_bytes, 64 << 20);
    assert!(!config.http.ratelimit_headers);
    let access = AccessLog {
        destination: Destination::File("log/access.log".into()),
        format: AccessFormat::Combined,
        sample: 10,
        refusals: Refusals::Sampled,
        query: Query::Redact,
        subject: SubjectAs::Plain,
        queue: 1_000,
    };
    assert_eq!(config.access_log, access);
    let KeySource::Remote(partner) = &config.tokens["partner"].keys else { panic!("not fetched") };
    assert_eq!(partner.address, "https://login.partner.example:8443/keys?v=1");
    assert_eq!((partner.discovery.as_deref(), partner.private_addresses), (None, true));
    assert_eq!(
        (partner.refresh, partner.interval, partner.max_stale),
        (seconds(3600), seconds(30), seconds(3600))
    );
    let KeySource::Remote(found) = &config.tokens["found"].keys else { panic!("not fetched") };
    assert_eq!(found.address, "https://found.example/.well-known/openid-configuration");
    assert_eq!(found.discovery.as_deref(), Some("https://found.example/"));
    let introspection = Introspection {
        address: "https://found.example/introspect".parse().unwrap(),
        client_id: "edge".to_owned(),
        secret: "introspect.secret".into(),
        authorities: Some("partner.pem".into()),
        private_addresses: true,
        timeout: Duration::from_millis(500),
        positive: seconds(30),
        negative: seconds(5),
        max_entries: 1_000,
        max_calls: 8,
        without_audience: true,
    };
    assert_eq!(config.tokens["found"].introspection, Some(introspection));
    assert_eq!(config.tokens["main"].device_claim, "device.id");
    let client = RevocationClient { id: "issuer".to_owned(), secret: "revoke.secret".into() };
    let revocation = Revocation {
        store: Some("state/revoked.redb".into()),
        max_entries: 5_000,
        max_refresh_tokens: 100,
        file: Some("revoked.jsonl".into()),
        client: Some(client),
    };
    assert_eq!(config.revocation, revocation);
    assert!(config.http.tokens_in_query);
    let oauth = config.routes[3].oauth.as_ref().unwrap();
    assert_eq!((oauth.endpoint, oauth.clients.len(), oauth.rotation), (Endpoint::Authorization, 2, None));
    assert_eq!(oauth.clients["cli"], ["http://127.0.0.1:8000/"]);
    assert_eq!(oauth.grants, ["authorization_code", "refresh_token"]);
    let oauth = config.routes[4].oauth.as_ref().unwrap();
    assert_eq!((oauth.endpoint, oauth.rotation), (Endpoint::Token, Some(seconds(86_400))));
    assert_eq!(oauth.refresh_lifetime, Some(seconds(720 * 3_600)));
    assert_eq!(oauth.client_limit, Some(rate(100, 1, 100)));
    assert_eq!(oauth.grants[1], "urn:ietf:params:oauth:grant-type:device_code");
    let graphql = config.routes[2].graphql.as_ref().unwrap();
    assert_eq!((graphql.max_body_bytes, graphql.max_document_bytes), (64 << 10, 8 << 10));
    assert_eq!((graphql.max_depth, graphql.max_aliases, graphql.max_batch), (7, 5, 3));
    assert_eq!(graphql.kinds, [OperationKind::Query, OperationKind::Subscription]);
    assert!(graphql.introspection && !graphql.others);
    let meant: Vec<&Meant> = graphql.operations.iter().map(|operation| &operation.meant).collect();
    let field = Meant::Field(OperationKind::Query, "search".to_owned());
    assert_eq!(meant, [&Meant::Name("GetOrders".to_owned()), &Meant::Kind(OperationKind::Query), &field]);
    assert_eq!(graphql.operations[0].scopes, ["orders:read"]);
    assert_eq!(graphql.operations[2].limits[0].name, "query.search:subject");
}

#[test]
fn what_is_written_of_proofs_and_signatures_is_what_holds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid/every_key.toml");
    let config = config::parse(&fs::read_to_string(file).unwrap(), Path::new("every_key.toml")).unwrap();
    let seconds = Duration::from_secs;
    let dpop = Dpop {
        algorithms: vec![TokenAlgorithm::Es256, TokenAlgorithm::Ps256],
        max_age: seconds(30),
        leeway: seconds(5),
        nonce: true,
        nonce_lifetime: seconds(60),
    };
    assert_eq!(config.dpop, dpop);
    assert_eq!(config.replay, Replay { max_entries: 5_000, store: Some("replay.redb".into()) });
    assert!(config.http.forwarded_origin);
    let bindings = Bindings { dpop: Binding::Required, certificate: Binding::Required };
    assert_eq!(
        (config.routes[0].bindings, config.routes[0].signature.as_deref()),
        (bindings, Some("mobile"))
    );
    assert_eq!(
        (config.routes[2].bindings, config.routes[2].signature.as_deref()),
        (Bindings::default(), None)
    );
    let mobile = Signature {
        scheme: SignatureScheme::Message,
        keys: BTreeMap::from([
            ("app-1".to_owned(), "keys/app-1.key".into()),
            ("app:2".to_owned(), "/run/credentials/enforcer.service/app-2".into()),
        ]),
        window: seconds(60),
        max_body_bytes: 64 << 10,
        components: ["@method", "@target-uri", "x-device-id"].map(str::to_owned).to_vec(),
        tag: Some("app".to_owned()),
    };
    assert_eq!(config.signatures["mobile"], mobile);
    let old = Signature {
        scheme: SignatureScheme::Hmac,
        keys: BTreeMap::from([("app-0".to_owned(), "keys/app-0.key".into())]),
        window: seconds(300),
        max_body_bytes: 1 << 20,
        components: ["@method", "@authority", "@path", "@query"].map(str::to_owned).to_vec(),
        tag: None,
    };
    assert_eq!(config.signatures["old"], old);
    let files: Vec<&Path> = config.files();
    assert!(files.contains(&Path::new("keys/app-0.key")), "a change of it is noticed");
}

#[test]
fn what_is_written_of_hellos_is_what_holds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid/every_key.toml");
    let config = config::parse(&fs::read_to_string(file).unwrap(), Path::new("every_key.toml")).unwrap();
    let name = |name: &str, below| ServerName { name: name.to_owned(), below };
    let hellos = &config.kernel.hellos;
    assert_eq!(hellos.refuse_names, [name("old.example.com", false), name("staging.example.com", true)]);
    assert_eq!(hellos.only_names, [name("example.com", true)]);
    assert_eq!(hellos.refuse_fingerprints, [Fingerprint(0x0123_4567_89ab_cdef)]);
}

/// The kernel's table has room for so many, twice.
#[test]
fn as_many_names_are_listed_as_there_is_room_for() {
    let config = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("\"n{number}.example.com\"")).collect();
        let text = format!(
            "[kernel]\nmode = \"off\"\n[kernel.hellos]\nrefuse_names = [{}]\nonly_names = [\"a.test\"]\n\
             [[listener]]\naddress = \"[::]:443\"\ncertificates = [{{ chain = \"c\", key = \"k\" }}]\n",
            names.join(", ")
        );
        config::parse(&text, Path::new("many.toml"))
    };
    assert!(config(MAX_HELLOS - 1).is_ok());
    let errors = config(MAX_HELLOS).unwrap_err().to_string();
    assert!(errors.contains("kernel.hellos.refuse_names: 4096 entries of 4097"), "{errors}");
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/valid/relative_paths.toml");
    let text = fs::read_to_string(file).unwrap();
    let config = config::parse(&text, Path::new("/srv/enforcer/enforcer.toml")).unwrap();
    assert_eq!(config.listeners[0].certificates[0].chain, Path::new("/srv/enforcer/tls/api.pem"));
    assert_eq!(config.tokens["main"].keys.file(), Some(Path::new("/srv/enforcer/jwks.json")));
}
