//! The guest's file system: an archive in the kernel's own format (Documentation/driver-api/early-userspace/buffer-format.rst),
//! with the programs that tests run and the libraries that these need. Called by `vm`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::process::{output, program};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive under construction.
#[derive(Default)]
pub(super) struct Image {
    bytes: Vec<u8>,
    entries: BTreeSet<PathBuf>,
}

impl Image {
    /// An empty directory, with those above it.
    pub(super) fn directory(&mut self, path: &Path) {
        for above in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if above.as_os_str().is_empty() || above == Path::new("/") || self.entries.contains(above) {
                continue;
            }
            self.entries.insert(above.to_owned());
            self.entry(above, DIRECTORY | 0o755, &[]);
        }
    }

    /// A file with these bytes.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, mode: u32, bytes: &[u8]) {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        if self.entries.insert(path.to_owned()) {
            self.entry(path, REGULAR | mode, bytes);
        }
    }

    /// A program under `/usr/bin`, and at their own places the libraries that it is linked with.
    pub(super) fn program(&mut self, name: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(Path::new("/usr/bin").join(name), 0o755, &bytes);
        for library in libraries(&output(program("ldd").arg(from))?) {
            let bytes = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            self.file(&library, 0o755, &bytes);
        }
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(mut self, to: &Path) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[]);
        fs::write(to, self.bytes).with_context(|| format!("cannot write {}", to.display()))
    }

    /// One record: a header of hexadecimal numbers, the name, the contents; each part filled up to 4 bytes.
    fn entry(&mut self, path: &Path, mode: u32, bytes: &[u8]) {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        let (inode, size) = (self.entries.len() as u32, bytes.len() as u32);
        let length = name.len() as u32 + 1;
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The files that `ldd` names: `name => path (address)`, or a bare path for the loader.
fn libraries(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let found = line.split_once("=> ").map_or(line, |(_, found)| found).trim();
        let path = found.split(" (").next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux.so.2 (0x7f)\n";
        assert_eq!(libraries(text), [PathBuf::from("/lib/libc.so.6"), "/lib64/ld-linux.so.2".into()]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn records_are_aligned_and_directories_come_first() {
        let mut image = Image::default();
        image.file("/a/b", 0o644, b"x");
        image.file("/a/b", 0o644, b"twice");
        let header = 110;
        assert_eq!(&image.bytes[..6], b"070701");
        assert_eq!(&image.bytes[header..header + 2], b"a\0");
        assert_eq!(&image.bytes[112 + header..112 + header + 4], b"a/b\0");
        assert_eq!(image.bytes.len(), 112 + 116 + 4);
    }
}
