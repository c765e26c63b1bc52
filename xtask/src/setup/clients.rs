//! Other people's libraries, by which the interoperation tests speak to the edge: for Python and Node, pinned, in `target/tools/clients`.

use std::{fs, path::Path};

use super::{Missing, found, install, say};
use crate::process::{find, output, program, root};

/// What the scripts for Node in `tests/interop` need. It has no dependencies, and this line of releases runs on Debian's Node as well.
const JOSE: &str = "jose@5.10.0";
/// What the scripts in Python need, with everything that comes with it.
const REQUIREMENTS: &str = "tests/interop/requirements.txt";

/// Sees to it that they are there.
pub(crate) fn clients() -> Result<(), Missing> {
    let folder = root().join("target/tools/clients");
    let requirements = fs::read_to_string(root().join(REQUIREMENTS)).unwrap_or_default();
    // Written last, so that what was broken off begins anew.
    let (stamp, wanted) = (folder.join("installed"), format!("{JOSE}\n{requirements}"));
    let python = folder.join("python/bin/python");
    let is_there = fs::read_to_string(&stamp).is_ok_and(|known| known == wanted);
    if is_there && find("node").is_some() && output(program(&python).arg("--version")).is_ok() {
        found("clients of other people: target/tools/clients");
        return Ok(());
    }
    say("installing libraries for Python and Node into target/tools/clients");
    let installed = python_libraries(&folder).and_then(|()| node_libraries(&folder)).and_then(|()| {
        fs::write(&stamp, &wanted)?;
        Ok(())
    });
    installed.map_err(|reason| Missing {
        what: format!("no libraries for the interoperation tests ({reason:#})"),
        remedy: format!(
            "install python3-venv, nodejs and npm, make {} writable, and run `cargo xtask setup` with network access",
            folder.display()
        ),
    })
}

fn python_libraries(folder: &Path) -> anyhow::Result<()> {
    let home = folder.join("python");
    // Another interpreter, or half of one, may have been there.
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(folder)?;
    let make = || output(program("python3").args(["-m", "venv"]).arg(&home));
    if make().is_err() {
        install(&["python3", "python3-venv"])?;
        make()?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "-r"];
    output(program(home.join("bin/python")).args(pip).arg(root().join(REQUIREMENTS)))?;
    Ok(())
}

fn node_libraries(folder: &Path) -> anyhow::Result<()> {
    let packages: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
        .into_iter()
        .filter(|(one, _)| find(one).is_none())
        .map(|(_, package)| package)
        .collect();
    if !packages.is_empty() {
        install(&packages)?;
    }
    let mut npm = program("npm");
    npm.args([
        "install",
        "--silent",
        "--no-save",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
    ]);
    output(npm.arg("--prefix").arg(folder).arg(JOSE))?;
    Ok(())
}
