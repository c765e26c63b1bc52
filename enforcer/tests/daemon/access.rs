//! The access log over a daemon's life: moved away and opened anew, followed, and written to its end when the daemon drains. And bans
//! without a kernel part.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{CONFIG, Daemon, PATIENCE, Site, eventually};

/// A daemon with an access log.
fn start(site: &Site, more: &str) -> Daemon {
    site.write("enforcer.toml", &format!("{CONFIG}\n[access_log]\ndestination = \"access.log\"\n{more}"));
    site.start()
}

/// Asks with curl, and tells the status and the body.
fn ask(site: &Site, path: &str, words: &[&str]) -> (u16, String) {
    let listener = site.listener();
    let port = listener.rsplit_once(':').unwrap().1;
    let mut command = Command::new("curl");
    command.args(["-q", "-s", "--noproxy", "*", "--max-time", "20", "--cacert"]).arg(site.path("cert.pem"));
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1"), "-w", "\n%{http_code}"]).args(words);
    let output =
        command.arg(format!("https://localhost:{port}{path}")).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// The paths in a file of the log.
fn paths(site: &Site, name: &str) -> Vec<String> {
    let text = fs::read_to_string(site.path(name)).unwrap_or_default();
    text.lines().map(|line| path_of(line).unwrap()).collect()
}

fn path_of(line: &str) -> Option<String> {
    serde_json::from_str::<Value>(line).ok()?["path"].as_str().map(str::to_owned)
}

/// `enforcer log --follow`, and the paths of the lines that it shows.
struct Follower {
    child: Child,
    shown: mpsc::Receiver<String>,
}

impl Follower {
    fn start(site: &Site) -> Self {
        let mut command = site.command("--json log -c enforcer.toml --follow");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(path_of(&line).unwrap_or(line)).is_err() {
                    return;
                }
            }
        });
        Self { child, shown }
    }

    fn next(&self) -> String {
        self.shown.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_is_opened_anew_followed_and_written_to_its_end() {
    let site = Site::new();
    let daemon = start(&site, "");
    assert_eq!(ask(&site, "/one", &[]).0, 404);
    eventually("the first line", || paths(&site, "access.log") == ["/one"]);
    let follower = Follower::start(&site);
    assert_eq!(follower.next(), "/one");
    ask(&site, "/two", &[]);
    assert_eq!(follower.next(), "/two");

    fs::rename(site.path("access.log"), site.path("access.log.1")).unwrap();
    // Until it is told, it writes where it wrote.
    ask(&site, "/three", &[]);
    assert_eq!(follower.next(), "/three");
    eventually("the line in the old file", || paths(&site, "access.log.1").len() == 3);
    assert!(!site.path("access.log").exists());
    daemon.signal(Signal::SIGUSR1);
    eventually("the new file", || site.path("access.log").exists());
    ask(&site, "/four", &[]);
    assert_eq!(follower.next(), "/four", "the follower goes over to the new file");
    assert_eq!(paths(&site, "access.log.1"), ["/one", "/two", "/three"], "and the old one is done with");

    // What was answered before the end is written down before it.
    for number in 0..50 {
        ask(&site, &format!("/last/{number}"), &[]);
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    assert_eq!(paths(&site, "access.log").len(), 51);
    assert!((0..50).all(|number| follower.next() == format!("/last/{number}")));
}

#[test]
fn a_log_that_cannot_be_opened_anew_goes_on_in_the_old_file() {
    let site = Site::new();
    let daemon = start(&site, "");
    ask(&site, "/one", &[]);
    eventually("the first line", || paths(&site, "access.log").len() == 1);
    fs::rename(site.path("access.log"), site.path("access.log.1")).unwrap();
    fs::create_dir(site.path("access.log")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    eventually("an error in the log", || {
        fs::read_to_string(site.path("log")).unwrap().contains("access log")
    });
    ask(&site, "/two", &[]);
    eventually("the line in the old file", || paths(&site, "access.log.1") == ["/one", "/two"]);
}

/// There is no kernel part here, and the client is behind a proxy.
#[test]
fn a_ban_by_hand_holds_for_the_next_request_and_outlives_the_daemon() {
    let site = Site::new();
    let proxies = "[http]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let daemon = start(&site, proxies);
    let from = |address: &str| ask(&site, "/x", &["-H", &format!("X-Forwarded-For: {address}")]);
    assert_eq!(from("203.0.113.7").0, 404);
    assert_eq!(site.output("ban add 203.0.113.7 --for 10m").0, 0);
    let (status, body) = from("203.0.113.7");
    assert!(status == 403 && body.contains("\"code\":\"banned\""), "{status} {body}");
    assert_eq!(from("203.0.113.8").0, 404);
    assert_eq!(site.output("ban add 203.0.113.0/24 --for 10m").0, 0);
    assert_eq!(from("203.0.113.8").0, 403);
    assert_eq!(site.output("allow add 203.0.113.8").0, 0);
    assert_eq!((from("203.0.113.8").0, from("203.0.113.9").0), (404, 403));
    assert!(site.get("/metrics").contains("enforcer_denials_total{code=\"banned\"} 3"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit(), 0);
    let _daemon = start(&site, proxies);
    assert_eq!((from("203.0.113.7").0, from("203.0.113.8").0, from("203.0.113.9").0), (403, 404, 403));
    assert_eq!(site.output("ban del 203.0.113.0/24").0, 0);
    assert_eq!((from("203.0.113.7").0, from("203.0.113.9").0), (403, 404));
}

#[test]
fn hosts_without_a_certificate_are_told_of() {
    let site = Site::new();
    let hosts = r#"hosts = ["LOCALHOST", "api.example.com", "*.example.com", "127.0.0.1", "[::1]"]"#;
    let routes = format!(
        "[upstream.api]\nservers = [\"http://127.0.0.1:9\"]\n\n[[route]]\npath = \"/\"\nupstream = \"api\"\npublic = true\n{hosts}\n"
    );
    site.write("enforcer.toml", &format!("{CONFIG}\n{routes}"));
    let (code, _, err) = site.output("check -c enforcer.toml");
    let told: Vec<&str> = err.lines().filter(|line| line.contains("no certificate is for")).collect();
    assert_eq!((code, told.len()), (0, 2), "{err}");
    assert!(told[0].contains("route[0].hosts: no certificate is for `api.example.com`"), "{err}");
    assert!(told[1].contains("`*.example.com`"), "{err}");
    let _daemon = site.start();
    let told = || {
        let log = fs::read_to_string(site.path("log")).unwrap();
        log.lines().filter(|line| line.contains("no certificate is for this host")).count()
    };
    assert_eq!(told(), 2);
    // It is told again by each reload, and no more once there is one.
    let made = rcgen::generate_simple_self_signed(["localhost", "*.example.com"].map(str::to_owned)).unwrap();
    site.write("cert.pem", &made.cert.pem());
    site.write("key.pem", &made.signing_key.serialize_pem());
    assert_eq!(site.output("reload").0, 0);
    assert_eq!(told(), 2, "{}", fs::read_to_string(site.path("log")).unwrap());
}
