//! Runs the packaged unit under a real systemd: `systemd-nspawn` boots this machine's own files, with everything that is written
//! kept in memory, and `story.sh` goes through the life of the service. Nothing of it stays.

use anyhow::{Result, anyhow, bail};

use crate::{
    dist,
    process::{is_root, program, run, target},
    setup,
};

const STORY: &str = include_str!("service/story.sh");

/// `cargo xtask service`
pub(crate) fn command() -> Result<()> {
    if !is_root() {
        bail!("a container of this machine needs root");
    }
    setup::programs(setup::SERVICE_PROGRAMS).map_err(|missing| anyhow!("{missing}"))?;
    let package = dist::make()?;
    let folder = target().join("service");
    std::fs::create_dir_all(&folder)?;
    let mut story = program("unshare");
    story.args(["--mount", "--propagation", "private", "--", "bash", "-c", STORY, "story"]);
    run(story.arg(&folder).arg(package))
}
