//! SIGTERM lets requests under way finish, and no longer than configured.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use enforcer_tests::{clients::Answer, daemon::Daemon, eventually, netns::source_v4, scene::Scene};
use nix::sys::signal::Signal;

/// Sends a request that takes `milliseconds`, tells the daemon to end meanwhile, and returns what came of it.
fn interrupted(scene: &Scene, daemon: &Daemon<'_>, option: &str, milliseconds: u32) -> Result<Answer> {
    let token = scene.site.token("read")?;
    let path = format!("/api/v1/slow/{milliseconds}");
    thread::scope(|scope| {
        let request = scope.spawn(|| scene.get(source_v4(1), &path).token(&token).more(&[option]).send());
        eventually!(10, "the request to reach the upstream", scene.upstream.requests() > 0)?;
        daemon.signal(Signal::SIGTERM)?;
        request.join().map_err(|_| anyhow!("panicked"))?
    })
}

#[test]
fn a_request_under_way_is_answered() -> Result<()> {
    for option in ["--http1.1", "--http2"] {
        let scene = Scene::new()?;
        let mut daemon = scene.daemon(&scene.plan())?;
        let answer = interrupted(&scene, &daemon, option, 1500)?;
        assert_eq!(answer.status, 200, "{option}: {answer:?}\n{}", daemon.log());
        assert!(daemon.wait()?.success(), "{}", daemon.log());
    }
    Ok(())
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures how long the daemon takes")]
fn the_wait_has_an_end() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.more = "[http]\ndrain_timeout = \"1s\"\n".to_owned();
    let mut daemon = scene.daemon(&plan)?;
    let begun = Instant::now();
    let answer = interrupted(&scene, &daemon, "--http2", 15_000)?;
    assert_eq!(answer.status, 0, "{answer:?}");
    daemon.wait()?;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    Ok(())
}
