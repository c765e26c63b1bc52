//! Which modules a guest loads, in which order. Called by `vm`; the guest has neither depmod nor a decompressor, so both
//! jobs are done here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::process::program;

/// What tests need of a kernel. One that is built in has no file, and nothing has to be loaded.
const WANTED: [&str; 6] = ["veth", "virtio_net", "8021q", "sch_netem", "tcp_diag", "dummy"];

/// A module, ready to be loaded.
pub(super) struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The modules that the guest loads; each comes after those it depends on.
pub(super) fn collect(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    list(folder, &mut files)?;
    let mut order = Vec::new();
    for name in WANTED {
        add(name, &files, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(path) = files.get(name) else { return Ok(()) };
    let bytes = read(path)?;
    for needed in depends(&bytes) {
        add(&needed, files, order)?;
    }
    order.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

/// Module name -> file, below `folder`. Names have `_` where files may have `-`.
fn list(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if let Some((name, _)) = path.file_name().and_then(|name| name.to_str()?.split_once(".ko")) {
            files.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut unpack = program(tool);
    let done = unpack.args(["-d", "-c"]).arg(path).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("cannot start {tool}"))?;
    if !done.status.success() {
        bail!("{tool} cannot read {}: {}", path.display(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(done.stdout)
}

/// What a module depends on, as its section `.modinfo` says: strings of `key=value` that end with 0.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends(b"..license=GPL\0depends=garp,mrp-x\0retpoline=Y\0"), ["garp", "mrp_x"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
