//! Which TLS versions get through, with a real OpenSSL on the other side.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use enforcer_tests::{
    clients::{self, HOST, Handshake},
    daemon::Daemon,
    netns::{SERVER_V4, source_v4, source_v6},
    process,
    scene::Scene,
};

const PATIENCE: Duration = Duration::from_secs(15);

fn refused(scene: &Scene, daemon: &Daemon<'_>, source: impl Into<IpAddr>, version: &str) -> Result<()> {
    let before = daemon.scrape()?;
    let shake = clients::openssl(&scene.lab.client, source.into(), version, PATIENCE)?;
    let Handshake::Refused(said) = &shake else { panic!("{version}: {shake:?}") };
    assert!(said.contains("alert protocol version"), "{version}: {said}");
    assert!(daemon.scrape()?.packets("tls_version") > before.packets("tls_version"), "{version}");
    assert_eq!(daemon.scrape()?.packets("hello_accepted"), before.packets("hello_accepted"), "{version}");
    Ok(())
}

fn done(scene: &Scene, source: impl Into<IpAddr>, version: &str, name: &str) -> Result<()> {
    let shake = clients::openssl(&scene.lab.client, source.into(), version, PATIENCE)?;
    assert_eq!(shake, Handshake::Done(name.to_owned()), "{version}");
    Ok(())
}

#[test]
fn old_versions_end_in_the_kernel_and_new_ones_are_served() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let daemon = scene.daemon(&scene.plan())?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        refused(&scene, &daemon, source, "-tls1")?;
        refused(&scene, &daemon, source, "-tls1_1")?;
        done(&scene, source, "-tls1_2", "TLSv1.2")?;
        done(&scene, source, "-tls1_3", "TLSv1.3")?;
    }
    Ok(())
}

#[test]
fn a_minimum_of_1_3_refuses_1_2() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let mut plan = scene.plan();
    plan.kernel += "minimum_tls = \"1.3\"\n";
    let daemon = scene.daemon(&plan)?;
    refused(&scene, &daemon, source_v4(1), "-tls1_2")?;
    done(&scene, source_v4(1), "-tls1_3", "TLSv1.3")
}

/// Early data lies behind its hello, mostly in the same segment: the program lets both through, and the server has a request before the
/// handshake is complete.
#[test]
fn early_data_passes_with_its_hello() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let mut plan = scene.plan();
    plan.routes += "[[route]]\npath = \"/early/\"\nupstream = \"api\"\npublic = true\nearly_data = true\nmethods = [\"GET\"]\n\n";
    let file = |name: &str| scene.site.dir.join(name).display().to_string();
    plan.more += &format!(
        "[[listener]]\naddress = \"[::]:8443\"\nearly_data = true\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n",
        file("api.pem"),
        file("api.key")
    );
    let daemon = scene.daemon(&plan)?;
    let request = format!("GET /early/x HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    std::fs::write(file("request"), request)?;
    let run = |words: &str| {
        let mut command = scene.lab.client.command("sh");
        command.arg("-c").arg(format!(
            "exec openssl s_client -connect {SERVER_V4}:8443 -servername {HOST} -CAfile {} -ign_eof {words}",
            file("ca.pem")
        ));
        process::run(&mut command, PATIENCE)
    };
    let first = run(&format!("-sess_out {} < {}", file("session"), file("request")))?;
    assert!(first.stdout.contains("HTTP/1.1 200"), "{first:?}");
    let before = daemon.scrape()?;
    let second = run(&format!("-sess_in {} -early_data {}", file("session"), file("request")))?;
    assert!(second.stdout.contains("Early data was accepted"), "{second:?}");
    assert!(second.stdout.contains("\"early-data\":\"1\""), "{second:?}");
    let after = daemon.scrape()?;
    assert_eq!(after.packets("hello_accepted") - before.packets("hello_accepted"), 1);
    assert_eq!(after.sum("enforcer_early_requests_total", &[("result", "passed")]), 1);
    Ok(())
}
