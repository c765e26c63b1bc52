//! Makes the Debian package: binary, unit, example configuration, documents. Plain `dpkg-deb` over a folder, so that
//! nothing needs to be installed for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    compile::{binary, with_program},
    process::{cargo, find, output, program, root, run, target},
    setup,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const DESCRIPTION: &str = "\
ingress enforcement for APIs, in the kernel and at the edge
 Judges packets in XDP, terminates TLS, checks access tokens, limits requests
 per source, proxies what is left, and bans offenders in the kernel.";

/// `cargo xtask dist`
pub(crate) fn command() -> Result<()> {
    make().map(drop)
}

/// Makes the package, and says where it is.
pub(crate) fn make() -> Result<PathBuf> {
    if find("dpkg-deb").is_none() {
        bail!("no dpkg-deb on this system; as root: `apt-get install dpkg`");
    }
    setup::toolchain().require_build()?;
    run(with_program(cargo()).args(["build", "--release", "--locked", "--bin", "enforcer"]))?;

    let dist = target().join("dist");
    let tree = dist.join("root");
    clear(&tree)?;
    fill(&tree)?;
    let architecture = output(program("dpkg").arg("--print-architecture"))?.trim().to_owned();
    describe(&tree, &architecture)?;

    let package = dist.join(format!("enforcer_{VERSION}_{architecture}.deb"));
    // The same commit gives the same package: no file is younger than it.
    let commit = output(program("git").args(["log", "-1", "--format=%ct"]))?;
    run(program("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", commit.trim())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .args([&tree, &package]))?;
    prove(&package, &dist.join("check"))?;
    println!("dist: {}", package.display());
    Ok(package)
}

fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    Ok(())
}

/// Copies one file into the tree, with its mode.
fn put(tree: &Path, from: &Path, to: &str, mode: u32) -> Result<PathBuf> {
    let place = tree.join(to);
    let context = || format!("cannot put {} into the package as /{to}", from.display());
    fs::create_dir_all(place.parent().unwrap_or(tree)).with_context(context)?;
    fs::copy(from, &place).with_context(context)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).with_context(context)?;
    Ok(place)
}

/// Everything that the package installs.
fn fill(tree: &Path) -> Result<()> {
    let own = root().join("enforcer/dist");
    let daemon = put(tree, &binary("release", "enforcer"), "usr/bin/enforcer", 0o755)?;
    if let Some(strip) = find("strip") {
        run(program(strip).arg("--strip-debug").arg(&daemon))?;
    }
    put(tree, &own.join("enforcer.service"), "usr/lib/systemd/system/enforcer.service", 0o644)?;
    put(tree, &own.join("enforcer.toml"), "etc/enforcer/enforcer.toml", 0o644)?;
    put(tree, &own.join("logrotate"), "etc/logrotate.d/enforcer", 0o644)?;
    put(tree, &root().join("LICENSE"), "usr/share/doc/enforcer/copyright", 0o644)?;
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            put(tree, &path, &format!("usr/share/doc/enforcer/{name}"), 0o644)?;
        }
    }
    // Folders belong to root and are open, whatever the umask of whoever builds.
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            folders.extend(path.is_dir().then_some(path));
        }
    }
    Ok(())
}

/// Control file, list of configuration files, maintainer scripts.
fn describe(tree: &Path, architecture: &str) -> Result<()> {
    let daemon = tree.join("usr/bin/enforcer");
    let libc = newest_glibc(&fs::read(&daemon)?)
        .with_context(|| format!("{} names no version of glibc", daemon.display()))?;
    let installed = output(program("du").args(["--summarize", "--block-size=1024"]).arg(tree))?;
    let kilobytes = installed.split_whitespace().next().unwrap_or("0").to_owned();
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control)?;
    let (major, minor) = libc;
    let text = format!(
        "Package: enforcer\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: The enforcer authors\n\
         Section: net\nPriority: optional\nInstalled-Size: {kilobytes}\n\
         Depends: libc6 (>= {major}.{minor}), libgcc-s1, passwd\nDescription: {DESCRIPTION}\n"
    );
    fs::write(control.join("control"), text)?;
    fs::write(control.join("conffiles"), "/etc/enforcer/enforcer.toml\n/etc/logrotate.d/enforcer\n")?;
    for script in ["postinst", "prerm", "postrm"] {
        put(&control, &root().join("enforcer/dist").join(script), script, 0o755)?;
    }
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The newest version of glibc whose symbols a program uses.
fn newest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    let prefix = b"GLIBC_";
    let versions = program.windows(prefix.len()).enumerate().filter(|(_, window)| window == prefix);
    let read = |(at, _): (usize, &[u8])| {
        let rest = program.get(at + prefix.len()..)?;
        let end = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'.')?;
        let mut numbers = std::str::from_utf8(rest.get(..end)?).ok()?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    versions.filter_map(read).max()
}

/// Unpacks the package and runs the program in it.
fn prove(package: &Path, folder: &Path) -> Result<()> {
    clear(folder)?;
    run(program("dpkg-deb").arg("--extract").args([package, folder]))?;
    let said = output(program(folder.join("usr/bin/enforcer")).arg("--version"))?;
    println!("{}{}", output(program("dpkg-deb").arg("--contents").arg(package))?, said.trim());
    clear(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_glibc_is_found() {
        let program = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.4\0";
        assert_eq!(newest_glibc(program), Some((2, 34)));
        assert_eq!(newest_glibc(b"nothing"), None);
    }
}
