//! The file that remembers which sets are served by their backup: a name on each line. It is replaced as a whole, and is on the disk when
//! that is over.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The names in it; none if there is no such file. One that cannot be read is an error: nobody could tell which key to serve.
pub fn read(path: &Path) -> Result<BTreeSet<String>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("pins.switches: cannot read {}", path.display())),
    }
}

/// Puts these names there.
pub fn write(path: &Path, names: &BTreeSet<String>) -> Result<()> {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    replace(path, &text).with_context(|| format!("pins.switches: cannot write {}", path.display()))
}

/// Puts a text in the place of what a file held.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // After the whole name: whatever that ends with, it is another file.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
