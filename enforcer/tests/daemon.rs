//! The real program, without XDP: its life from start to end, as a service manager and an operator see it.
#![allow(clippy::disallowed_methods, reason = "tests wait for a condition with a bound")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken assumption fails the test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

#[path = "daemon/access.rs"]
mod access;
#[path = "daemon/clients.rs"]
mod clients;
#[path = "daemon/files.rs"]
mod files;
#[path = "daemon/pin_document.rs"]
mod pin_document;
#[path = "daemon/pin_formats.rs"]
mod pin_formats;
#[path = "daemon/pin_guard.rs"]
mod pin_guard;
#[path = "daemon/pins.rs"]
mod pins;
#[path = "daemon/revocations.rs"]
mod revocations;
#[path = "daemon/signed.rs"]
mod signed;
#[path = "daemon/upgrade.rs"]
mod upgrade;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[kernel]
mode = "off"
allow = ["198.18.9.0/24"]
# What a daemon of this machine has pinned is not touched.
pin_directory = "/nowhere"

[bans]
store = "bans.redb"

[[listener]]
address = "127.0.0.1:0"
certificates = [{ chain = "cert.pem", key = "key.pem" }]

[metrics]
address = "127.0.0.1:0"

[control]
socket = "control.sock"
"#;

/// A folder with a configuration and a certificate.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        site.write("cert.pem", &made.cert.pem());
        site.write("key.pem", &made.signing_key.serialize_pem());
        site.write("enforcer.toml", CONFIG);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enforcer"));
        command.args(words.split_whitespace()).env("ENFORCER_SOCKET", self.path("control.sock"));
        command.current_dir(self.0.path()).env_remove("NOTIFY_SOCKET").env_remove("ENFORCER_LOG");
        command
    }

    /// Runs a command to its end.
    fn output(&self, words: &str) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }

    fn json(&self, words: &str) -> Value {
        let (code, out, err) = self.output(&format!("--json {words}"));
        assert_eq!(code, 0, "{words}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    fn start(&self) -> Daemon {
        self.start_with(|command| command)
    }

    fn start_with(&self, with: impl FnOnce(&mut Command) -> &mut Command) -> Daemon {
        self.start_as(self.command("run -c enforcer.toml"), with)
    }

    fn start_as(&self, mut command: Command, with: impl FnOnce(&mut Command) -> &mut Command) -> Daemon {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut daemon = Daemon(with(&mut command).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("the daemon is ready", || {
            assert_eq!(
                daemon.0.try_wait().unwrap(),
                None,
                "{}",
                fs::read_to_string(self.path("log")).unwrap()
            );
            self.output("status").0 == 0
        });
        daemon
    }

    fn get(&self, path: &str) -> String {
        let status = self.json("status");
        let mut stream = TcpStream::connect(status["metrics"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn exit(mut self) -> i32 {
        let mut code = None;
        eventually("the daemon ends", || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_daemon_serves_operators_and_probes_and_leaves_nothing_behind() {
    let site = Site::new();
    let daemon = site.start();
    let status = site.json("status");
    assert_eq!(status["pid"], daemon.0.id());
    assert_eq!(status["state"], "running");
    assert!(status["resident_bytes"].as_u64().unwrap() < 50_000_000, "{status}");
    assert!(site.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(site.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(site.get("/other").starts_with("HTTP/1.1 404"));
    let metrics = site.get("/metrics");
    for line in
        ["enforcer_build_info{version=", "process_resident_memory_bytes ", "enforcer_bans_active{origin="]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let banned = site.json("ban add 198.18.0.2 --for 10m --reason scraper");
    assert!((1..=600).contains(&banned["ban"]["remaining_seconds"].as_u64().unwrap()), "{banned}");
    let (code, out, _) = site.output("why 198.18.0.2");
    assert_eq!(code, 0);
    assert!(out.starts_with("198.18.0.2 is banned for ") && out.contains("no packet is judged"), "{out}");
    assert_eq!(site.json("ban list")[0]["cause"], "scraper");
    assert_eq!(site.json("allow list")[0]["origin"], "configuration");
    let (code, out, err) = site.output("--json ban del 198.18.0.3");
    assert_eq!((code, err.as_str()), (1, "enforcer: 198.18.0.3 is not banned\n"));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["error"]["kind"], "refused");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    assert!(!site.path("control.sock").exists());
    assert_eq!(site.output("status").0, 69);
}

#[test]
fn operators_are_kept_from_cutting_their_own_session() {
    let site = Site::new();
    let _daemon = site.start();
    let mut command = site.command("ban add 198.18.0.0/24");
    let refused = command.env("SSH_CONNECTION", "198.18.0.9 50022 198.18.0.1 22").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("your own session comes from 198.18.0.9"), "{text}");
    assert_eq!(site.json("ban list"), Value::Array(Vec::new()));
}

#[test]
fn a_wrong_file_changes_nothing_and_is_named_until_a_good_one_comes() {
    let site = Site::new();
    let daemon = site.start();
    site.write("enforcer.toml", &CONFIG.replace("198.18.9.0/24", "198.18.9.1/24"));
    let (code, _, err) = site.output("reload");
    assert_eq!(code, 78);
    assert!(err.contains("kernel.allow") && err.contains("did you mean 198.18.9.0/24"), "{err}");
    let status = site.json("status");
    assert!(status["last_reload"]["error"].as_str().unwrap().contains("kernel.allow"), "{status}");
    assert_eq!(site.json("allow list")[0]["prefix"], "198.18.9.0/24");
    assert!(site.get("/metrics").contains(r#"enforcer_reloads_total{result="refused"} 1"#));
    assert!(site.get("/readyz").starts_with("HTTP/1.1 200"));

    let good = CONFIG.replace("198.18.9.0/24", "198.18.8.0/24");
    site.write("enforcer.toml", &format!("{good}[http]\nworkers = 1\n"));
    assert_eq!(site.json("reload")["needs_restart"], serde_json::json!(["http.workers"]));
    assert_eq!(site.json("allow list")[0]["prefix"], "198.18.8.0/24");

    site.write("enforcer.toml", &format!("{good}[log]\nlevel = \"no=such=level\"\n"));
    let (code, _, err) = site.output("reload");
    assert!(code == 78 && err.contains("log.level"), "{err}");
    site.write("enforcer.toml", &format!("{CONFIG}[log]\nlevel = \"warn\"\n"));
    assert_eq!(site.json("reload")["needs_restart"], serde_json::json!([]));
    assert_eq!(site.json("allow list")[0]["prefix"], "198.18.9.0/24");

    site.write("enforcer.toml", &good);
    site.write("key.pem", "no key");
    daemon.signal(Signal::SIGHUP);
    eventually("the signal is followed", || site.json("status")["last_reload"]["error"].is_string());
    assert_eq!(site.json("allow list")[0]["prefix"], "198.18.9.0/24");
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let occupied = CONFIG.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    for (text, code, says) in [
        (CONFIG.replace("mode = \"off\"", "mode = \"of\""), 78, "kernel.mode"),
        (CONFIG.replace("key.pem", "missing.pem"), 78, "missing.pem"),
        (CONFIG.replace("control.sock", "cert.pem"), 1, "is no socket"),
        (occupied, 1, port.to_string().as_str()),
        (CONFIG.replace("control.sock\"", "control.sock\"\ngroup = \"no-such-group\""), 78, "no-such-group"),
    ] {
        site.write("enforcer.toml", &text);
        let (found, _, err) = site.output("run -c enforcer.toml");
        assert_eq!(found, code, "{err}");
        assert!(err.contains(says), "{says}: {err}");
        assert!(!err.contains("panicked"), "{err}");
        assert!(!site.path("control.sock").exists(), "{says}");
    }
    let (code, _, err) = site.output("run -c missing.toml");
    assert!(code == 78 && err.contains("missing.toml"), "{err}");
}

#[test]
fn a_second_daemon_leaves_the_first_one_alone() {
    let site = Site::new();
    let first = site.start();
    let (code, _, err) = site.output("run -c enforcer.toml");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another daemon answers on"), "{err}");
    assert_eq!(site.json("status")["pid"], first.0.id());
}

#[test]
fn check_reports_everything_and_starts_nothing() {
    let site = Site::new();
    let (code, out, _) = site.output("check -c enforcer.toml");
    assert_eq!(code, 0);
    assert!(out.contains("enforcer.toml is valid: 1 listener"), "{out}");
    site.write("enforcer.toml", &format!("{CONFIG}[http]\nmax_body_bytes = -1\nidle_timeout = 5\n"));
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert_eq!(code, 78);
    assert!(err.contains("http.max_body_bytes") && err.contains("http.idle_timeout"), "{err}");
    let (code, out, _) = site.output("check --json -c enforcer.toml");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, report["valid"].as_bool(), report["errors"].as_array().unwrap().len()),
        (78, Some(false), 2)
    );
    assert!(!site.path("control.sock").exists());
}

/// What the machine lacks is reported beside the file's own errors, with line and key, and nothing hides anything.
#[test]
fn check_reports_the_machine_beside_the_file() {
    let site = Site::new();
    let more =
        "[token.main]\nissuer = \"https://id.example.com/\"\naudience = [\"api\"]\njwks = \"jwks.json\"\n";
    site.write("jwks.json", r#"{"keys": [{"kty": "oct"}, {"kty": "EC", "d": "AA"}]"#);
    let text = CONFIG.replace("cert.pem", "absent.pem").replace("key.pem", "absent.key");
    let text = text.replace("mode = \"off\"", "mode = \"off\"\ninterfaces = [\"absent0\"]\nspeed = 1");
    site.write("enforcer.toml", &format!("{text}group = \"no-such-group\"\n{more}"));
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert_eq!(code, 78);
    for expected in [
        "enforcer.toml:4: kernel.interfaces[0]: there is no interface `absent0`",
        "enforcer.toml:5: kernel.speed: unknown key",
        "enforcer.toml:15: listener[0].certificates[0].chain: absent.pem: No such file",
        "enforcer.toml:15: listener[0].certificates[0].key: absent.key: No such file",
        "enforcer.toml:22: control.group: there is no group",
        "enforcer.toml:26: token.main.jwks: jwks.json: not JSON: EOF",
    ] {
        assert!(err.contains(expected), "{expected}:\n{err}");
    }
    site.write("jwks.json", r#"{"keys": [{"kty": "oct"}, {"kty": "EC", "d": "AA"}]}"#);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    site.write("key.pem", &other.signing_key.serialize_pem());
    site.write("enforcer.toml", &format!("{CONFIG}{more}"));
    let (_, _, err) = site.output("check -c enforcer.toml");
    for expected in [
        "key 0: is symmetric",
        "key 1: has the secret member `d`",
        "certificates[0].key: key.pem: does not belong",
    ] {
        assert!(err.contains(expected), "{expected}:\n{err}");
    }
    site.write("jwks.json", r#"{"keys": [], "keys": []}"#);
    let (_, _, err) = site.output("check -c enforcer.toml");
    assert!(err.contains("token.main.jwks: jwks.json: an object has a duplicate member"), "{err}");
}

#[test]
fn check_warns_and_passes() {
    let site = Site::new();
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    site.write("cert.pem", &parameters.self_signed(&key).unwrap().pem());
    site.write("key.pem", &key.serialize_pem());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = format!("[metrics]\naddress = \"{}\"", taken.local_addr().unwrap());
    let text = CONFIG.replace("[metrics]\naddress = \"127.0.0.1:0\"", &metrics);
    site.write("enforcer.toml", &text.replace("\"control.sock\"", "\"absent/control.sock\""));
    let (code, out, err) = site.output("check -c enforcer.toml");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("is valid"), "{out}");
    for expected in [
        "warning: enforcer.toml:13: listener[0].certificates[0].chain: cert.pem: THE CERTIFICATE EXPIRED",
        "metrics.address: another program listens on",
        "control.socket: the folder absent is not there",
        "route: there is no [[route]]",
    ] {
        assert!(err.contains(expected), "{expected}:\n{err}");
    }
    assert_eq!(site.json("check -c enforcer.toml")["warnings"].as_array().unwrap().len(), 4);
    assert!(!site.path("absent").exists());
    drop(taken);
    // The running daemon holds its own ports, and a check stands before every reload.
    site.write("enforcer.toml", &text);
    let _daemon = site.start();
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert!(code == 0 && !err.contains("another program"), "{err}");
    let end = "enforcer_certificate_expiry_timestamp_seconds{listener=\"127.0.0.1:0\",name=\"localhost\"} 1009843200";
    assert!(site.get("/metrics").contains(end));
    assert!(fs::read_to_string(site.path("log")).unwrap().contains("THE CERTIFICATE HAS EXPIRED"));
}

#[test]
fn probes_are_answered_when_clients_hold_every_connection() {
    let site = Site::new();
    site.write("enforcer.toml", &format!("{CONFIG}[http]\nworkers = 1\n"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 300 && exec \"$0\" run -c enforcer.toml", env!("CARGO_BIN_EXE_enforcer")]);
    command.current_dir(site.0.path()).env_remove("NOTIFY_SOCKET").env_remove("ENFORCER_LOG");
    let _daemon = site.start_as(command, |command| command);
    let status = site.json("status");
    assert_eq!(status["max_connections"], 50);
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("too few file descriptors") && log.contains("LimitNOFILE"), "{log}");
    let listener = status["listeners"][0].as_str().unwrap().to_owned();
    let clients: Vec<_> = (0..400).map(|_| TcpStream::connect(&listener).unwrap()).collect();
    eventually("further connections are refused", || {
        let metrics = site.get("/metrics");
        metrics.lines().any(|line| line == "enforcer_connections_open 50")
    });
    assert!(site.get("/readyz").starts_with("HTTP/1.1 200"));
    drop(clients);
}

#[test]
fn the_service_manager_is_told() {
    let site = Site::new();
    let manager = UnixDatagram::bind(site.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = |wanted: &str| {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "in vain: {wanted}");
            let mut buffer = [0; 4096];
            let length = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
        }
    };
    let daemon = site.start_with(|command| {
        command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "200000")
    });
    assert!(next("READY=1").contains("STATUS=serving on 127.0.0.1:"));
    next("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    assert!(next("RELOADING=1").contains("MONOTONIC_USEC="));
    next("READY=1");
    daemon.signal(Signal::SIGTERM);
    next("STOPPING=1");
    assert_eq!(daemon.exit(), 0);
}
