//! Files that change under a running daemon: it takes over good ones by itself, and keeps what it has where they are bad.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, Command, Stdio},
};

use super::{CONFIG, Site, eventually};

/// A fresh certificate for `localhost`: chain and key.
pub(super) fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Whether two PEM texts hold the same, whatever ends their lines.
pub(super) fn same(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    plain(a).contains(&plain(b))
}

impl Site {
    pub(super) fn listener(&self) -> String {
        self.json("status")["listeners"][0].as_str().unwrap().to_owned()
    }

    /// What `openssl s_client` is shown.
    pub(super) fn shown(&self, listener: &str) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", listener, "-servername", "localhost", "-showcerts"]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a file in the place of another, as careful programs do.
    pub(super) fn replace(&self, name: &str, text: &str) {
        self.write("new", text);
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

/// A connection that stays open, by `openssl s_client`.
struct Open(Child);

impl Open {
    fn to(listener: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", listener, "-servername", "localhost", "-quiet"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(child.unwrap())
    }

    /// The first line of the answer to one more request.
    fn ask(&mut self) -> String {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(b"HEAD /x HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        stdin.flush().unwrap();
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        // To the empty line behind the head; nothing follows it.
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        first
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_new_certificate_is_taken_over_by_itself_and_no_connection_is_lost() {
    let site = Site::new();
    let _daemon = site.start();
    let listener = site.listener();
    let mut open = Open::to(&listener);
    assert!(open.ask().starts_with("HTTP/1.1 404"));
    let (chain, key) = pair();
    site.replace("cert.pem", &chain);
    site.replace("key.pem", &key);
    eventually("the new certificate is shown", || same(&site.shown(&listener), &chain));
    assert!(open.ask().starts_with("HTTP/1.1 404"), "the connection from before goes on");
    let status = site.json("status");
    assert!(status["files"]["error"].is_null() && status["files"].is_object(), "{status}");
    assert!(status["last_reload"].is_null(), "the configuration was not read: {status}");
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("files changed, taken over") && log.contains("cert.pem"), "{log}");
}

#[test]
fn a_bad_file_keeps_the_old_one_serving_and_is_told_of_until_a_good_one_comes() {
    let site = Site::new();
    let _daemon = site.start();
    let listener = site.listener();
    let before = fs::read_to_string(site.path("cert.pem")).unwrap();
    let mut open = Open::to(&listener);
    assert!(open.ask().starts_with("HTTP/1.1 404"));
    site.replace("cert.pem", "no certificate");
    eventually("the refusal is told", || site.json("status")["files"]["error"].is_string());
    let error = site.json("status")["files"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("cert.pem holds no certificate in PEM form"), "{error}");
    assert!(site.output("status").1.contains("refused, those from before are in force"));
    let metrics = site.get("/metrics");
    assert!(metrics.contains("enforcer_files_refused 1"), "{metrics}");
    assert!(metrics.contains(r#"enforcer_file_changes_total{result="refused"} 1"#), "one attempt: {metrics}");
    assert!(site.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(same(&site.shown(&listener), &before), "the old certificate serves");
    assert!(open.ask().starts_with("HTTP/1.1 404"));
    let log = fs::read_to_string(site.path("log")).unwrap();
    assert!(log.contains("ERROR files changed and are refused"), "{log}");

    let (chain, key) = pair();
    site.replace("key.pem", &key);
    site.replace("cert.pem", &chain);
    eventually("the new certificate is shown", || same(&site.shown(&listener), &chain));
    eventually("all is well again", || site.get("/metrics").contains("enforcer_files_refused 0"));
    assert!(site.json("status")["files"]["error"].is_null());
    assert!(open.ask().starts_with("HTTP/1.1 404"));
}

/// Kubernetes mounts a secret as links to `..data/NAME`, and `..data` as a link that is swapped as a whole.
#[test]
fn the_swap_of_a_link_above_the_files_is_noticed() {
    let site = Site::new();
    let put = |folder: &str, (chain, key): &(String, String)| {
        fs::create_dir(site.path(folder)).unwrap();
        site.write(&format!("{folder}/tls.crt"), chain);
        site.write(&format!("{folder}/tls.key"), key);
    };
    let (first, second) = (pair(), pair());
    put("..2026_1", &first);
    symlink("..2026_1", site.path("..data")).unwrap();
    symlink("..data/tls.crt", site.path("tls.crt")).unwrap();
    symlink("..data/tls.key", site.path("tls.key")).unwrap();
    site.write("enforcer.toml", &CONFIG.replace("cert.pem", "tls.crt").replace("key.pem", "tls.key"));
    let _daemon = site.start();
    let listener = site.listener();
    assert!(same(&site.shown(&listener), &first.0));
    put("..2026_2", &second);
    symlink("..2026_2", site.path("..data_tmp")).unwrap();
    fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
    fs::remove_dir_all(site.path("..2026_1")).unwrap();
    eventually("the new certificate is shown", || same(&site.shown(&listener), &second.0));
}

#[test]
fn a_reload_reads_the_files_too_and_settles_what_was_refused() {
    let site = Site::new();
    let _daemon = site.start();
    site.replace("key.pem", "no key");
    eventually("the refusal is told", || site.json("status")["files"]["error"].is_string());
    let (chain, key) = pair();
    site.replace("cert.pem", &chain);
    site.replace("key.pem", &key);
    assert_eq!(site.json("reload")["needs_restart"], serde_json::json!([]));
    assert!(same(&site.shown(&site.listener()), &chain));
    assert!(site.get("/metrics").contains("enforcer_files_refused 0"));
    assert!(!site.json("status")["files"]["error"].is_string());
}

#[test]
fn check_names_what_is_wrong_with_files_for_tls() {
    let site = Site::new();
    let listener = "address = \"127.0.0.1:0\"\nclient_certificates = \"required\"\nclient_authorities = \"key.pem\"\nclient_crls = [\"absent.crl\", \"cert.pem\"]\n";
    let text = CONFIG.replacen("address = \"127.0.0.1:0\"\n", listener, 1);
    let text = text.replace("key = \"key.pem\"", "key = \"key.pem\", ocsp = \"cert.pem\"");
    site.write("tickets", "c2hvcnQ=\n");
    let text = format!("{text}[tls]\nticket_keys = \"tickets\"\n");
    site.write("enforcer.toml", &text);
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert_eq!(code, 78);
    for (begins, expected) in [
        ("client_auth", "listener[0].client_authorities: key.pem holds no certificate in PEM form; name"),
        (
            "client_crls",
            "listener[0].client_crls[0]: cannot read a certificate revocation list from absent.crl",
        ),
        (
            "client_crls",
            "listener[0].client_crls[1]: cert.pem holds no certificate revocation list, PEM or DER",
        ),
        ("certificates", "listener[0].certificates[0].ocsp: cert.pem: no OCSP response in DER form; fetch"),
        (
            "ticket_keys",
            "tls.ticket_keys: tickets: line 1 is not the base64 of 32 to 256 bytes; write one key",
        ),
    ] {
        let line = 1 + text.lines().position(|line| line.starts_with(begins)).unwrap();
        assert!(err.contains(&format!("enforcer.toml:{line}: {expected}")), "{line}: {expected}:\n{err}");
    }
    site.write("enforcer.toml", &format!("{CONFIG}[tls]\nticket_keys = \"tickets\"\n"));
    // What `openssl rand -base64 48` makes; these 48 bytes are no secret.
    site.write("tickets", &format!("{}\n", "QUJD".repeat(16)));
    let mode = |mode| fs::set_permissions(site.path("tickets"), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let (code, _, err) = site.output("check -c enforcer.toml");
    assert!(
        code == 0 && err.contains("tls.ticket_keys: tickets: every user of this machine may read it"),
        "{err}"
    );
    mode(0o640);
    assert!(!site.output("check -c enforcer.toml").2.contains("ticket_keys"));
}

#[test]
fn a_bad_file_holds_up_no_other() {
    let site = Site::new();
    site.write("enforcer.toml", &format!("{CONFIG}[tls]\nticket_keys = \"tickets\"\n"));
    site.write("tickets", &format!("{}\n", "QUJD".repeat(16)));
    let _daemon = site.start();
    let listener = site.listener();
    let error = || site.json("status")["files"]["error"].as_str().unwrap_or_default().to_owned();
    site.replace("tickets", "no keys");
    eventually("the refusal is told", || error().contains("tls.ticket_keys: tickets: line 1"));
    let (chain, key) = pair();
    site.replace("key.pem", &key);
    site.replace("cert.pem", &chain);
    eventually("the new certificate is shown", || same(&site.shown(&listener), &chain));
    assert!(error().contains("tickets: line 1"), "it is bad still: {}", error());
    assert!(site.get("/metrics").contains("enforcer_files_refused 1"));
    // Who asks for all of it gets all of it or nothing.
    let (code, _, said) = site.output("reload");
    assert!(code != 0 && said.contains("tickets: line 1"), "{code} {said}");
}
