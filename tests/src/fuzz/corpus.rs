//! The inputs that are kept: a file for each target, each of many inputs behind their lengths. They are embedded, since tests also run where the
//! repository is not; `cargo xtask fuzz` writes them by the program `corpus`.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    hash::Hash,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    SETTINGS, apple, automaton, base, decide, google, input_of_frames, input_of_stream, sealed, token,
};
use crate::{cases, hellos};

/// Bytes of one file at most.
const MOST: usize = 64 << 10;
/// Bytes of one input at most.
const LONGEST: usize = 4_096;

/// Inputs for [`decide`].
const DECIDE: &[u8] = include_bytes!("../../fuzz/corpus/decide.bin");
/// Inputs for [`automaton`].
const AUTOMATON: &[u8] = include_bytes!("../../fuzz/corpus/automaton.bin");
/// Inputs for [`token::judge`].
const TOKEN: &[u8] = include_bytes!("../../fuzz/corpus/token.bin");

/// Inputs for [`google::play`].
const PLAY: &[u8] = include_bytes!("../../fuzz/corpus/play.bin");
/// Inputs for [`google::key_description`].
const KEY_DESCRIPTION: &[u8] = include_bytes!("../../fuzz/corpus/key_description.bin");
/// Inputs for [`apple::attestation`].
const ATTESTATION: &[u8] = include_bytes!("../../fuzz/corpus/attestation.bin");
/// Inputs for [`apple::auth_data`].
const AUTH_DATA: &[u8] = include_bytes!("../../fuzz/corpus/auth_data.bin");
/// Inputs for [`apple::receipt`].
const RECEIPT: &[u8] = include_bytes!("../../fuzz/corpus/receipt.bin");
/// Inputs for [`sealed::judge`].
const SEALED: &[u8] = include_bytes!("../../fuzz/corpus/sealed.bin");
/// Inputs for [`base::judge`].
const BASE: &[u8] = include_bytes!("../../fuzz/corpus/base.bin");

/// Fuzz targets by their names.
pub const TARGETS: [&str; 10] = [
    "decide",
    "automaton",
    "token",
    "attestation",
    "auth_data",
    "receipt",
    "base",
    "play",
    "key_description",
    "sealed",
];

/// The inputs that are kept for a target.
pub fn kept(target: &str) -> Vec<&'static [u8]> {
    let mut rest = match target {
        "decide" => DECIDE,
        "token" => TOKEN,
        "attestation" => ATTESTATION,
        "auth_data" => AUTH_DATA,
        "receipt" => RECEIPT,
        "base" => BASE,
        "play" => PLAY,
        "key_description" => KEY_DESCRIPTION,
        "sealed" => SEALED,
        _ => AUTOMATON,
    };
    let mut inputs = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let Some((input, behind)) = behind.split_at_checked(u16::from_le_bytes(*length).into()) else {
            break;
        };
        inputs.push(input);
        rest = behind;
    }
    inputs
}

/// Inputs to begin with: of the packet cases, and of the hellos that nobody sends, the shortest for each course of verdicts.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target == TARGETS[0] {
        let inputs = cases::all().into_iter().flat_map(|case| {
            let before = case.before.into_iter().map(|(frame, _)| frame);
            let frames: Vec<_> = before.chain([case.frame]).collect();
            SETTINGS.map(|bits| input_of_frames(bits, &frames))
        });
        return shortest(inputs, decide);
    }
    // Many have the same outcome, and each is there for another reason.
    match target {
        "token" => return token::seeds(),
        "attestation" => return apple::attestation_seeds(),
        "auth_data" => return apple::auth_data_seeds(),
        "receipt" => return apple::receipt_seeds(),
        "base" => return base::seeds(),
        "play" => return google::play_seeds(),
        "key_description" => return google::key_description_seeds(),
        "sealed" => return sealed::seeds(),
        _ => {}
    }
    let streams = hellos::made_up();
    let cut = |places: &[u16]| {
        streams.iter().map(|(_, stream)| input_of_stream(places, stream)).collect::<Vec<_>>()
    };
    let inputs = [cut(&[]), cut(&[1, 6, 11]), cut(&[5, 9, 43, 70])].concat();
    shortest(inputs.into_iter(), |input| (input[0], automaton(input)))
}

/// Of all inputs with the same outcome the shortest.
fn shortest<K: Eq + Hash>(
    inputs: impl Iterator<Item = Vec<u8>>,
    outcome: impl Fn(&[u8]) -> K,
) -> Vec<Vec<u8>> {
    let mut found: HashMap<K, Vec<u8>> = HashMap::new();
    for input in inputs.filter(|input| input.len() <= LONGEST) {
        let known = found.entry(outcome(&input)).or_insert_with(|| input.clone());
        if (input.len(), &input) < (known.len(), known) {
            *known = input;
        }
    }
    found.into_values().collect()
}

/// Writes what is kept, and the seeds, as files of their own: `FOLDER/TARGET/NUMBER`.
pub fn unpack(folder: &Path) -> Result<()> {
    for target in TARGETS {
        let folder = folder.join(target);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let kept = kept(target).into_iter().map(<[u8]>::to_vec);
        let inputs: BTreeSet<Vec<u8>> = kept.chain(seeds(target)).collect();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("{number:04}")), input)?;
        }
    }
    Ok(())
}

/// Keeps the files of such a folder, the shortest first, until there are enough; how many they are.
pub fn pack(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    TARGETS
        .into_iter()
        .map(|target| pack_one(&folder.join(target), &kept.join(format!("{target}.bin"))))
        .collect()
}

fn pack_one(folder: &Path, file: &Path) -> Result<(PathBuf, usize)> {
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let input = fs::read(entry?.path())?;
        if input.len() <= LONGEST {
            inputs.insert((input.len(), input));
        }
    }
    let (mut bytes, mut count) = (Vec::new(), 0);
    for (length, input) in inputs {
        if bytes.len() + 2 + length > MOST {
            break;
        }
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend(input);
        count += 1;
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((file.to_owned(), count))
}
