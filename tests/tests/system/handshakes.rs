//! Certificates change under a load of new handshakes: by a swapped link as Kubernetes mounts secrets, and by SIGHUP. No handshake
//! fails; each sees a certificate that was in force while it went on, and none that begins after a change sees the old one.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock;
use enforcer_tests::{clients::HOST, daemon::Daemon, eventually, netns::SERVER_V4, scene::Scene, site::Plan};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, ClientConnection, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};

const CLIENTS: usize = 3;
/// Each certificate is seen by so many at least.
const HANDSHAKES: usize = 25;
const PATIENCE: Duration = Duration::from_secs(20);

/// One handshake and its request: when it began and ended, and which certificate it was shown.
struct Shake {
    begun: Instant,
    ended: Instant,
    shown: Result<CertificateDer<'static>>,
}

fn client(scene: &Scene) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(scene.site.ca())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A full handshake, a request and its answer.
fn exchange(config: &Arc<ClientConfig>, token: &str) -> Result<CertificateDer<'static>> {
    let mut stream = TcpStream::connect((SERVER_V4, 443)).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(HOST)?)?;
    let mut secured = rustls::Stream::new(&mut connection, &mut stream);
    write!(
        secured,
        "GET /api/v1/x HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    secured.read_to_string(&mut answer).with_context(|| format!("reading the answer after {answer:?}"))?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let chain = connection.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("an empty chain")?.clone().into_owned())
}

/// Certificate `number` in a folder of its own, and a link to it, which may have led to another one.
fn put(scene: &Scene, number: usize, link: &str) -> Result<CertificateDer<'static>> {
    let dir = &scene.site.dir;
    fs::create_dir_all(dir.join(number.to_string()))?;
    scene.site.issue(&format!("{number}/tls"))?;
    let new = dir.join("new");
    symlink(Path::new(&number.to_string()), &new)?;
    fs::rename(new, dir.join(link))?;
    Ok(CertificateDer::from_pem_file(dir.join(format!("{number}/tls.pem")))?)
}

/// Changes that were taken over, by looking at files and by being told; none was refused.
fn taken_over(daemon: &Daemon<'_>) -> Result<[u64; 2]> {
    let scrape = daemon.scrape()?;
    let of = |name: &str, result: &str| scrape.sum(name, &[("result", result)]);
    let names = ["enforcer_file_changes_total", "enforcer_reloads_total"];
    ensure!(names.map(|name| of(name, "refused")) == [0, 0], "{}", daemon.log());
    Ok(names.map(|name| of(name, "applied")))
}

#[test]
fn each_new_handshake_sees_a_certificate_in_force_and_none_fails() -> Result<()> {
    let scene = Scene::new()?;
    let mut certificates = vec![put(&scene, 0, "live-0")?];
    let plan = |link: &str| Plan {
        certificate: (format!("{link}/tls.pem"), format!("{link}/tls.key")),
        ..scene.plan()
    };
    let daemon = scene.daemon(&plan("live-0"))?;
    let (config, token) = (client(&scene)?, scene.site.long_token("read", Duration::from_secs(3600))?);
    let (done, shakes) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let count = || shakes.lock().unwrap_or_else(PoisonError::into_inner).len();
    let load = || {
        while !done.load(Relaxed) {
            let begun = clock::instant_now();
            let shown = exchange(&config, &token);
            let shake = Shake { begun, ended: clock::instant_now(), shown };
            shakes.lock().unwrap_or_else(PoisonError::into_inner).push(shake);
        }
        Ok(())
    };
    // When each certificate was put there, and when it was known to be in force.
    let first = clock::instant_now();
    let mut times = vec![(first, first)];
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| scene.lab.client.enter(load))).collect();
        let rounds = (1..=6).try_for_each(|round| {
            let before = count();
            eventually!(60, "handshakes between two changes", count() >= before + HANDSHAKES)?;
            let put_at = clock::instant_now();
            // Two changes of each link: it is made and named by the configuration, and then it leads elsewhere.
            let link = format!("live-{}", round / 2);
            certificates.push(put(&scene, round, &link)?);
            if round % 2 == 0 {
                scene.site.write(&plan(&link))?;
                daemon.signal(Signal::SIGHUP)?;
            }
            let all = [round.div_ceil(2) as u64, (round / 2) as u64];
            eventually!(30, format!("change {round}\n{}", daemon.log()), taken_over(&daemon)? == all)?;
            times.push((put_at, clock::instant_now()));
            anyhow::Ok(())
        });
        let last = count();
        let end = eventually!(60, "handshakes after the last change", count() >= last + HANDSHAKES);
        done.store(true, Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        rounds?;
        end
    })?;
    let shakes = shakes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed: Vec<String> = shakes
        .iter()
        .filter_map(|shake| shake.shown.as_ref().err())
        .map(|error| format!("{error:#}"))
        .collect();
    assert_eq!((failed.len(), &failed), (0, &Vec::new()), "of {} handshakes", shakes.len());
    let mut seen = vec![0; certificates.len()];
    for Shake { begun, ended, shown } in &shakes {
        let shown = shown.as_ref().ok().context("counted above")?;
        let number = certificates.iter().position(|one| one == shown).context("an unknown certificate")?;
        seen[number] += 1;
        assert!(times[number].0 <= *ended, "certificate {number} before it was there");
        let replaced = times.get(number + 1).map(|(_, known)| *known);
        assert!(replaced.is_none_or(|known| *begun <= known), "certificate {number} after it was replaced");
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    println!("{} handshakes, 0 failed; by certificate: {seen:?}", shakes.len());
    Ok(())
}
