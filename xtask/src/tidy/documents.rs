//! Whether documents keep up with the code.

use super::{File, Finding};

const KEYS: &str = "enforcer/src/config/file.rs";
/// Where further sections are.
const MORE: &str = "enforcer/src/config/file/";
const REFERENCE: &str = "docs/configuration.md";

/// Every key that the file structures know occurs in the reference. Its values are compared by a test.
pub(super) fn configuration(files: &[File]) -> Vec<Finding> {
    let find = |path: &str| files.iter().find(|file| file.path.as_os_str() == path);
    let (Some(keys), Some(reference)) = (find(KEYS), find(REFERENCE)) else {
        let text = format!("{KEYS} and {REFERENCE} must both exist");
        return vec![Finding { file: REFERENCE.into(), line: 0, text }];
    };
    let more = files.iter().filter(|file| file.path.to_str().is_some_and(|path| path.starts_with(MORE)));
    [keys].into_iter().chain(more).flat_map(|keys| undocumented(keys, reference)).collect()
}

fn undocumented(keys: &File, reference: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, line) in keys.text.lines().enumerate() {
        let field = |line: &'_ str| {
            line.strip_prefix("pub(super) ")
                .or(line.strip_prefix("pub(in crate::config) "))
                .map(str::to_owned)
        };
        let Some(rest) = field(line.trim()) else { continue };
        let Some((key, kind)) = rest.split_once(": ") else { continue };
        let limit = kind.contains("LimitSection") || kind.contains("BytesSection");
        let section = kind.contains("Section") && !limit;
        let shown = if section {
            reference.text.contains(&format!("{key}]"))
                || reference.text.contains(&format!("[{key}."))
                || reference.text.contains(&format!(".{key}."))
                || reference.text.contains(&format!("{key} = [{{"))
                || reference.text.contains(&format!("{key} = {{ "))
        } else {
            reference.text.contains(&format!("{key} = "))
        };
        if !shown {
            findings.push(keys.finding(i + 1, format!("the key `{key}` does not occur in {REFERENCE}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_documentation_is_found() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.to_owned() };
        let keys = file(
            KEYS,
            "struct A {\n    pub(super) kernel: KernelSection,\n    pub(super) mode: Key<Mode>,\n    pub(super) new: Key<bool>,\n}\n",
        );
        let reference = file(REFERENCE, "[kernel]\nmode = \"native\"\n");
        let found = configuration(&[keys, reference]);
        assert_eq!(found.len(), 1);
        assert!(found[0].line == 4 && found[0].text.contains("`new`"), "{}", found[0]);
        assert_eq!(configuration(&[]).len(), 1);
    }
}
