//! What the log tells of clients, at level `debug` and not otherwise.

use std::{
    fs,
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{CONFIG, Site, eventually};

/// Writes a root and a client certificate of it; its thumbprint as `openssl` reckons it.
fn client(site: &Site) -> String {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "Devices");
    let key = KeyPair::generate().unwrap();
    site.write("devices.pem", &root.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(root, key);
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "phone");
    let key = KeyPair::generate().unwrap();
    site.write("phone.pem", &leaf.signed_by(&key, &issuer).unwrap().pem());
    site.write("phone.key", &key.serialize_pem());
    let pipe = "openssl x509 -in phone.pem -outform DER | openssl dgst -sha256 -binary | basenc --base64url";
    let output = Command::new("sh").args(["-c", pipe]).current_dir(site.path("")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().trim_end_matches('=').to_owned()
}

fn shake(site: &Site, listener: &str, words: &str) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", listener, "-servername", "LocalHost"]);
    command.args(words.split_whitespace()).current_dir(site.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}

/// The values of a field in the log, in the order of the lines.
fn fields(log: &str, name: &str) -> Vec<String> {
    let value = |line: &str| {
        let (_, rest) = line.split_once(&format!(" {name}="))?;
        Some(rest.split_whitespace().next()?.trim_matches('"').to_owned())
    };
    log.lines().filter_map(value).collect()
}

#[test]
fn the_log_tells_whom_a_client_asked_for_what_it_is_and_who_it_proved_to_be() {
    let site = Site::new();
    let thumbprint = client(&site);
    let listener = "address = \"127.0.0.1:0\"\nclient_certificates = \"optional\"\nclient_authorities = \"devices.pem\"\n";
    let text = CONFIG.replacen("address = \"127.0.0.1:0\"\n", listener, 1);
    site.write("enforcer.toml", &format!("{text}[log]\nlevel = \"debug\"\n"));
    let _daemon = site.start();
    let address = site.json("status")["listeners"][0].as_str().unwrap().to_owned();
    shake(&site, &address, "-tls1_3 -alpn h2,http/1.1 -cert phone.pem -key phone.key");
    shake(&site, &address, "-tls1_3 -alpn h2,http/1.1");
    shake(&site, &address, "-tls1_2 -alpn http/1.1 -cipher ECDHE-ECDSA-AES256-GCM-SHA384");
    shake(&site, &address, "-tls1_2 -alpn spdy/3");
    let log = || fs::read_to_string(site.path("log")).unwrap();
    eventually("four handshakes are told of", || fields(&log(), "ja4").len() == 4);
    let log = log();
    assert_eq!(fields(&log, "identity"), [thumbprint]);
    assert_eq!(fields(&log, "server_name"), ["localhost"; 4]);
    assert_eq!(fields(&log, "alpn"), ["h2,http/1.1", "h2,http/1.1", "http/1.1", "spdy/3"]);
    let ja4 = fields(&log, "ja4");
    assert_eq!(ja4[0], ja4[1], "what a client proves does not change what it is");
    for (found, begins) in ja4.iter().zip(["t13d", "t13d", "t12d02", "t12d"]) {
        assert!(found.len() == 36 && found.starts_with(begins), "{ja4:?}");
    }
    assert!(
        ja4[0][8..].starts_with("h2_") && ja4[2][8..].starts_with("h1_") && ja4[3][8..].starts_with("s3_")
    );
    // SHA-256 of "00ff,c02c": the suite, and the value by which OpenSSL asks for secure renegotiation.
    let mut command = Command::new("sh");
    command.args(["-c", "printf 00ff,c02c | openssl dgst -sha256 -r | cut -c1-12"]);
    let digest = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(&ja4[2][11..23], digest.trim());
    assert!(log.contains("handshake failed") && log.contains("any known protocol"), "{log}");
}
