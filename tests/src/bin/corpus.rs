//! Unpacks the corpus of the fuzz targets into a folder, or keeps what is in one. `cargo xtask fuzz` calls it.
#![allow(clippy::print_stdout, reason = "it says what it kept")]

use std::path::PathBuf;

use anyhow::{Result, bail};
use enforcer_tests::fuzz::corpus;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["unpack", folder] => corpus::unpack(&PathBuf::from(folder)),
        ["pack", folder] => {
            for (file, count) in corpus::pack(&PathBuf::from(folder))? {
                println!("{}: {count} inputs", file.display());
            }
            Ok(())
        }
        _ => bail!("say `unpack FOLDER` or `pack FOLDER`"),
    }
}
