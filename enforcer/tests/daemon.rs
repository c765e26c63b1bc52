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

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[kernel]
mode = "off"
allow = ["198.18.9.0/24"]

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
        let mut command = self.command("run -c enforcer.toml");
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
    assert!(out.starts_with("198.18.0.2 is banned for ") && out.contains("nothing is enforced"), "{out}");
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
    site.write("enforcer.toml", &format!("{CONFIG}[bans]\nthreshold = -1\nwindow = 5\n"));
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert_eq!(code, 78);
    assert!(err.contains("bans.threshold") && err.contains("bans.window"), "{err}");
    let (code, out, _) = site.output("check --json -c enforcer.toml");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, report["valid"].as_bool(), report["errors"].as_array().unwrap().len()),
        (78, Some(false), 2)
    );
    assert!(!site.path("control.sock").exists());
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
