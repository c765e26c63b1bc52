//! What a handshake agrees upon, shown by `openssl s_client` and curl: versions, suites, groups, protocols, and the
//! certificate for each name and kind of client.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    config::{Suite, UnknownName},
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{
    edge::{Edge, NAME, Site, certificate},
    origin::Origin,
    pki::KeyKind,
    process::Finished,
    tls::{Setup, curl, exchange, ocsp, s_client},
};

use super::bodies::within;

/// Version and suite of a handshake, or the alert that ended it.
fn outcome(finished: &Finished) -> String {
    // With TLS 1.3 an alert may come when the suite is agreed upon already.
    let alert = finished.stderr.lines().find_map(|line| line.split_once("SSL alert number "));
    if let Some((_, number)) = alert {
        return format!("alert {}", number.trim());
    }
    let done = finished.stdout.lines().find_map(|line| line.strip_prefix("New, "));
    let done =
        done.and_then(|line| line.split_once(", Cipher is ")).filter(|(version, _)| *version != "(NONE)");
    done.map_or_else(|| format!("none: {}", finished.stderr), |(version, suite)| format!("{version} {suite}"))
}

async fn agreed(edge: &Edge, words: &str) -> Result<String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    Ok(outcome(&s_client(edge, Some(NAME), &words).await?))
}

#[tokio::test]
async fn versions_suites_and_groups_are_those_of_the_configuration_and_no_others() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let rsa = site.authority.issue(&[NAME], KeyKind::Rsa2048)?;
    rsa.write(site.dir.path(), "rsa")?;
    let rsa = certificate(site.dir.path(), "rsa");
    site.config.listeners[0].certificates.push(rsa);
    let edge = site.start()?;
    // RFC 8446 section 6.2: 40 is handshake_failure.
    for (words, expected) in [
        ("-tls1_3", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256"),
        ("-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256", "alert 40"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-RSA-CHACHA20-POLY1305"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "alert 40"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384", "alert 40"),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-SHA", "alert 40"),
        ("-tls1_2 -cipher DHE-RSA-AES256-GCM-SHA384", "alert 40"),
        ("-tls1_2 -cipher AES256-GCM-SHA384", "alert 40"),
        // Such a hello lacks the signature algorithms, which is noticed before its version.
        ("-tls1_1 -cipher DEFAULT@SECLEVEL=0", "alert 40"),
        ("-tls1 -cipher DEFAULT@SECLEVEL=0", "alert 40"),
        ("-groups X25519", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("-groups P-256", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("-groups P-384", "alert 40"),
        ("-groups X448", "alert 40"),
    ] {
        assert_eq!(agreed(&edge, words).await?, expected, "{words}");
    }
    // openssl 3.0 has no post-quantum group; rustls offers it first.
    exchange(&edge, &Setup::default().client(&edge)?).await?;
    exchange(&edge, &Setup { old: true, ..Setup::default() }.client(&edge)?).await?;
    let counted = |labels: [&str; 3]| edge.metrics.handshakes.with_label_values(&labels).get();
    assert_eq!(counted(["1.3", "X25519MLKEM768", "false"]), 1);
    assert_eq!(counted(["1.3", "P-256", "false"]), 1);
    assert!(counted(["1.3", "X25519", "false"]) >= 3 && counted(["1.2", "X25519", "false"]) >= 4);
    Ok(())
}

#[tokio::test]
async fn aes_128_is_there_for_whoever_asks_for_it() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.tls.suites = vec![Suite::Aes128Gcm];
    let edge = site.start()?;
    for (words, expected) in [
        ("-tls1_3", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_2", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384", "alert 40"),
    ] {
        assert_eq!(agreed(&edge, words).await?, expected, "{words}");
    }
    Ok(())
}

/// RFC 7301 section 3.2: 120 is no_application_protocol.
#[tokio::test]
async fn a_client_that_speaks_neither_protocol_is_told_so() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    for version in ["-tls1_2", "-tls1_3"] {
        assert_eq!(agreed(&edge, &format!("{version} -alpn spdy/3,dot")).await?, "alert 120");
        for (offered, chosen) in [("http/1.1,h2", "h2"), ("dot,http/1.1", "http/1.1")] {
            let finished = s_client(&edge, Some(NAME), &[version, "-alpn", offered]).await?;
            assert!(finished.stdout.contains(&format!("ALPN protocol: {chosen}\n")), "{}", finished.stdout);
        }
    }
    for (words, version) in
        [(&["--http1.1"][..], "HTTP/1.1 200"), (&["--http2"], "HTTP/2 200"), (&["--no-alpn"], "HTTP/1.1 200")]
    {
        let answer = curl(&edge, "/public/x", words).await?;
        assert!(answer.stdout.starts_with(version), "{words:?}: {} {}", answer.stdout, answer.stderr);
    }
    Ok(())
}

/// Kind of the key that a client is shown, and of its signature.
async fn shown(edge: &Edge, name: Option<&str>, words: &str) -> Result<&'static str> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let finished = s_client(edge, name, &words).await?;
    let said = |text: &str| finished.stdout.contains(text);
    Ok(match () {
        () if said("Server public key is 2048 bit") && said("Peer signature type: RSA") => "RSA",
        () if said("Server public key is 256 bit") && said("Peer signature type: ECDSA") => "ECDSA",
        () => "none",
    })
}

#[tokio::test]
async fn one_name_has_certificates_of_two_kinds_and_each_client_gets_the_one_it_understands() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let names = [NAME, "*.example.org"];
    site.authority.issue(&names, KeyKind::Rsa2048)?.write(site.dir.path(), "rsa")?;
    site.authority.issue(&["only.example.org"], KeyKind::Rsa2048)?.write(site.dir.path(), "only")?;
    for stem in ["rsa", "only"] {
        let more = certificate(site.dir.path(), stem);
        site.config.listeners[0].certificates.push(more);
    }
    let edge = site.start()?;
    let (any, exact, wild) = (Some(NAME), Some("only.example.org"), Some("x.example.org"));
    let rsa_only = "-sigalgs rsa_pss_rsae_sha256:rsa_pkcs1_sha256";
    for (name, words, expected) in [
        (any, "-tls1_3", "ECDSA"),
        (any, "-tls1_2", "ECDSA"),
        (any, &format!("-tls1_3 {rsa_only}")[..], "RSA"),
        (any, "-tls1_3 -sigalgs ecdsa_secp256r1_sha256", "ECDSA"),
        (any, &format!("-tls1_2 {rsa_only}"), "RSA"),
        (any, "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "RSA"),
        (any, "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "ECDSA"),
        (Some("API.Example.COM"), "-tls1_3", "ECDSA"),
        (wild, "-tls1_3", "ECDSA"),
        (wild, &format!("-tls1_3 {rsa_only}"), "RSA"),
        (exact, "-tls1_3", "RSA"),
        // The exact certificate is RSA; this client can verify the wildcard's other kind alone.
        (exact, "-tls1_3 -sigalgs ecdsa_secp256r1_sha256", "ECDSA"),
        (None, "-tls1_3", "ECDSA"),
        (None, &format!("-tls1_3 {rsa_only}"), "RSA"),
        (Some("unknown.example"), &format!("-tls1_2 {rsa_only}"), "RSA"),
        (any, "-tls1_3 -sigalgs ecdsa_secp384r1_sha384", "none"),
    ] {
        assert_eq!(shown(&edge, name, words).await?, expected, "{name:?} {words}");
    }
    Ok(())
}

/// RFC 6066 section 3: 112 is unrecognized_name.
#[tokio::test]
async fn unknown_names_are_refused_where_the_listener_says_so() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.listeners[0].unknown_name = UnknownName::Refuse;
    let mut edge = site.start()?;
    let names = [Some("unknown.example"), Some("a.b.example.org"), Some("example.org"), None];
    for version in ["-tls1_2", "-tls1_3"] {
        for name in names {
            let finished = s_client(&edge, name, &[version]).await?;
            assert_eq!(outcome(&finished), "alert 112", "{name:?} {version}");
            assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsUnknownName);
        }
        for name in [NAME, "A.Example.Org"] {
            let finished = s_client(&edge, Some(name), &[version]).await?;
            assert!(outcome(&finished).starts_with("TLSv1."), "{name}: {}", finished.stderr);
        }
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_unknown_name"]).get(), 8);
    Ok(())
}

#[tokio::test]
async fn an_ocsp_response_is_stapled_while_it_holds() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let file = site.dir.path().join("api.ocsp");
    ocsp(&site.authority, site.dir.path(), "api", 'V').await?;
    site.config.listeners[0].certificates[0].ocsp = Some(file.clone());
    let edge = site.start()?;
    let dir = edge.site.dir.path();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&edge, Some(NAME), &["-status", version]).await?.stdout;
        assert!(
            said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"),
            "{said}"
        );
        assert!(!s_client(&edge, Some(NAME), &[version]).await?.stdout.contains("OCSP Response Data"));
    }
    let end = edge.policy.load().expiries().next().unwrap().1.staple.unwrap();
    let day = enforcer::clock::unix_now() as i64 + 86_400;
    assert!((day - 60..=day).contains(&end), "{end}");

    let reload = || edge.policy.load().reload(&edge.site.config);
    let good = std::fs::read(&file)?;
    // nextUpdate is the last time but the one of the signature's certificate, if there is any: of this year, and a day ahead.
    let next =
        good.windows(2).enumerate().filter(|(_, two)| *two == [0x18, 0x0f]).map(|(at, _)| at).nth(2).unwrap();
    let mut stale = good.clone();
    stale[next + 2..next + 6].copy_from_slice(b"2020");
    std::fs::write(&file, stale)?;
    edge.policy.store(reload()?.into());
    let said = s_client(&edge, Some(NAME), &["-status"]).await?.stdout;
    assert!(said.contains("OCSP response: no response sent") && said.contains("New, TLSv1.3"), "{said}");

    let refused = |policy: Result<Policy>| format!("{:#}", policy.unwrap_err());
    ocsp(&edge.site.authority, dir, "api", 'R').await?;
    assert!(refused(reload()).contains("says that the certificate is revoked"));
    edge.site.authority.issue(&["other"], KeyKind::P256)?.write(dir, "other")?;
    ocsp(&edge.site.authority, dir, "other", 'V').await?;
    std::fs::copy(dir.join("other.ocsp"), &file)?;
    assert!(refused(reload()).contains("about another certificate"));
    for (bytes, says) in [
        (&b"nothing"[..], "no OCSP response in DER form"),
        (&[0x30, 3, 0x0a, 1, 3], "refused with status 3"),
        (&good[..good.len() / 2], "api.ocsp"),
        (&[], "api.ocsp"),
    ] {
        std::fs::write(&file, bytes)?;
        let error = refused(reload());
        assert!(error.contains(says), "{error}");
    }
    std::fs::remove_file(&file)?;
    assert!(refused(reload()).contains("there is no such file"));
    Ok(())
}
