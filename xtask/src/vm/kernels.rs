//! Kernels as Debian packages: fetched by name into `target/vm`, unpacked there, never installed.
//!
//! Called by `vm`. Knows no server: the machine's own list of sources is copied with another suite in it, for one call
//! of apt that keeps everything it reads below `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::process::{find, output, program};

/// A kernel of the matrix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// What people call it, and the key of its records.
    pub name: &'static str,
    /// The Debian suite that has it.
    suite: &'static str,
    /// The daemon must refuse it.
    pub refused: bool,
}

/// The floor, one below it, the long-term series after it, and the newest that there is.
pub(super) const MATRIX: [Series; 4] = [
    Series { name: "5.10", suite: "bullseye", refused: true },
    Series { name: "6.1", suite: "bookworm", refused: false },
    Series { name: "6.12", suite: "trixie", refused: false },
    Series { name: "7", suite: "sid", refused: false },
];

/// The package that depends on the suite's newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";
/// Packages that make up a kernel; newer suites split image, binary and modules.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// Written last: the release of the kernel that lies beside it.
const COMPLETE: &str = "release";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// Finds the kernel of a series below `folder`, or fetches it.
pub(super) fn obtain(series: &Series, folder: &Path) -> Result<Kernel> {
    let unpacked = folder.join("kernel");
    if !unpacked.join(COMPLETE).is_file() {
        println!("vm: fetching the kernel of {} ({})", series.name, series.suite);
        fetch(series, folder, &unpacked)?;
    }
    let found = locate(&unpacked)?;
    let belongs = found.release.strip_prefix(series.name).is_some_and(|rest| rest.starts_with('.'))
        || series.suite == "sid";
    if !belongs {
        bail!("{} brought {}; `vm/kernels.rs` has to name another suite", series.suite, found.release);
    }
    Ok(found)
}

fn fetch(series: &Series, folder: &Path, unpacked: &Path) -> Result<()> {
    let apt = Apt::new(Some(series.suite), &folder.join("apt"))?;
    let mut wanted = vec![NEWEST.to_owned()];
    let mut parts: Vec<String> = Vec::new();
    while let Some(package) = wanted.pop() {
        let depends = output(apt.command("apt-cache").args(["depends", &package]))
            .with_context(|| format!("the suite {} has no {package}", series.suite))?;
        for line in depends.lines() {
            let Some(name) = line.trim().strip_prefix("Depends: ") else { continue };
            if PARTS.iter().any(|part| name.starts_with(part)) && !parts.iter().any(|part| part == name) {
                parts.push(name.to_owned());
                wanted.push(name.to_owned());
            }
        }
    }
    if parts.is_empty() {
        bail!("{NEWEST} of {} depends on no kernel", series.suite);
    }
    clear(unpacked)?;
    apt.unpack(&parts, unpacked)?;
    clear(&folder.join("apt"))?;
    let kernel = locate(unpacked)?;
    fs::write(unpacked.join(COMPLETE), &kernel.release)?;
    Ok(())
}

/// Unpacks packages of the machine's own suite into `folder`: tools that only the guest needs.
pub(super) fn tools(packages: &[&str], folder: &Path) -> Result<()> {
    if folder.join(COMPLETE).is_file() {
        return Ok(());
    }
    let lists = folder.with_extension("apt");
    let apt = Apt::new(None, &lists)?;
    clear(folder)?;
    let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
    apt.unpack(&packages, folder)?;
    clear(&lists)?;
    Ok(fs::write(folder.join(COMPLETE), packages.join(" "))?)
}

fn locate(unpacked: &Path) -> Result<Kernel> {
    let parents = [unpacked.join("usr/lib/modules"), unpacked.join("lib/modules")];
    let folders = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten();
    let modules = folders.map(|entry| entry.path()).find(|path| path.is_dir());
    let modules = modules.context("the packages hold no modules")?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let images = [modules.join("vmlinuz"), unpacked.join(format!("boot/vmlinuz-{release}"))];
    let image = images.into_iter().find(|path| path.is_file()).context("the packages hold no kernel")?;
    Ok(Kernel { release, image, modules })
}

fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    Ok(())
}

/// apt with lists of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the lists of `suite`, or of the machine's own.
    fn new(suite: Option<&str>, folder: &Path) -> Result<Self> {
        if find("apt-get").is_none() || find("dpkg-deb").is_none() {
            bail!("kernels come as Debian packages, and this system has no apt-get");
        }
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        fs::create_dir_all(folder.join("packages"))?;
        let apt = Self { folder: folder.to_owned() };
        let own = codename(&fs::read_to_string("/etc/os-release").context("/etc/os-release")?)?;
        fs::write(apt.sources(), sources(&own, suite.unwrap_or(&own))?)?;
        let mut update = apt.command("apt-get");
        output(update.args(["-q", "update", "-o", "APT::Update::Error-Mode=any"]))
            .with_context(|| format!("the package lists of {} cannot be had", suite.unwrap_or(&own)))?;
        Ok(apt)
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("one.sources")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program(name);
        let place = |option: &str, path: &str| format!("{option}={}", self.folder.join(path).display());
        command.args(["-o", &place("Dir::State::Lists", "lists"), "-o", &place("Dir::Cache", "cache")]);
        command.args(["-o", &place("Dir::Etc::SourceList", "one.sources"), "-o", "Dir::Etc::SourceParts=-"]);
        command.args(["-o", "Dir::Etc::Preferences=-", "-o", "Dir::Etc::PreferencesParts=-"]);
        // Indexes that nobody here reads; and root's own folder is not readable for apt's own user.
        command.args(["-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"]);
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command
    }

    /// Downloads packages and unpacks them into one folder.
    fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = self.folder.join("packages");
        let mut download = self.command("apt-get");
        output(download.arg("-q").arg("download").args(packages).current_dir(&downloads))
            .with_context(|| format!("cannot download {}", packages.join(" ")))?;
        fs::create_dir_all(into)?;
        for entry in fs::read_dir(&downloads)? {
            output(program("dpkg-deb").arg("--extract").arg(entry?.path()).arg(into))?;
        }
        Ok(())
    }
}

/// The code name of a Debian system, from its `os-release`.
fn codename(release: &str) -> Result<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID").as_deref() != Some("debian") {
        bail!("kernels come as Debian packages, and this system is not Debian");
    }
    value("VERSION_CODENAME").context("/etc/os-release names no VERSION_CODENAME")
}

/// The machine's source of `own`, as one of `suite`.
fn sources(own: &str, suite: &str) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.push("/etc/apt/sources.list".into());
    files.sort();
    let texts =
        files.iter().filter_map(|path| Some((path.extension()?.to_owned(), fs::read_to_string(path).ok()?)));
    let mut found = texts.filter_map(|(extension, text)| {
        let read = if extension == "sources" { stanza } else { line };
        read(&text, own, suite)
    });
    found.next().with_context(|| format!("no source of {own} below /etc/apt"))
}

/// From the form of apt's `.sources` files (sources.list(5)): the first stanza whose suites include `own`.
fn stanza(text: &str, own: &str, suite: &str) -> Option<String> {
    let field = |stanza: &str, name: &str| {
        stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    let has = |stanza: &str, name: &str, word: &str| {
        field(stanza, name).is_some_and(|value| value.split_whitespace().any(|one| one == word))
    };
    let good = |stanza: &&str| {
        has(stanza, "Types", "deb") && has(stanza, "Suites", own) && has(stanza, "Components", "main")
    };
    let stanza = text.split("\n\n").find(good)?;
    let mut kept = Vec::new();
    let mut keep = true;
    for line in stanza.lines().filter(|line| !line.starts_with('#')) {
        // A line that begins with a blank goes on with the field above.
        if !line.starts_with(' ') {
            keep = !["Types:", "Suites:", "Components:"].iter().any(|name| line.starts_with(name));
        }
        if keep {
            kept.push(line);
        }
    }
    Some(format!("Types: deb\nSuites: {suite}\nComponents: main\n{}\n", kept.join("\n")))
}

/// From the form with one source on a line.
fn line(text: &str, own: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (address, of) = (words.next()?, words.next()?);
        if of != own || !words.any(|word| word == "main") {
            return None;
        }
        let signed = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        let signed = signed.map_or(String::new(), |key| format!("Signed-By: {key}\n"));
        Some(format!("Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\n{signed}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_source_is_taken_with_another_suite() {
        let text = "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                    # near\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main contrib\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        let made = stanza(text, "bookworm", "sid").unwrap();
        let expected = "Types: deb\nSuites: sid\nComponents: main\nURIs: http://mirror.example/debian\n\
                        Signed-By:\n -----BEGIN\n .\n -----END\n";
        assert_eq!(made, expected);
        assert_eq!(stanza(text, "trixie", "sid"), None);

        let text = "# comment\ndeb http://mirror.example/x bookworm-updates main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib\n";
        let made = line(text, "bookworm", "sid").unwrap();
        let expected = "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(made, expected);
    }

    #[test]
    fn only_debian_has_a_code_name_here() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert!(codename("ID=other\nVERSION_CODENAME=x\n").is_err());
    }
}
