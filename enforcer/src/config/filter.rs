//! Which log filters are accepted. Called by the rules of `[log]` and by the log itself for its override.

use tracing_subscriber::EnvFilter;

/// Levels by name; a digit from 0 (off) to 5 (trace) means the same.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The filter that `text` describes, or what is wrong with it.
///
/// To `tracing`, a lone word that is no level names a module, and every other module then falls silent: a mistyped
/// level would switch the log off. Such a word is refused; a module is written with its level, `module=level`.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    for directive in directives(text) {
        let directive = directive.trim();
        let level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        let digit = matches!(directive.as_bytes(), [b'0'..=b'5']);
        if !(level || digit || directive.contains(['=', '['])) {
            return Err(format!("`{}` is no level", directive.escape_debug()));
        }
    }
    EnvFilter::try_new(text).map_err(|_| format!("`{}` is no log filter", text.escape_debug()))
}

/// Parts between commas, but for the commas of a span's fields.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused() {
        for text in ["info", "WARN", "off", "3", "warn,enforcer::ingress=debug", "warn,enforcer[x{a}]=debug"]
        {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in ["inof", "enforcer", "info,debgu", "", "info,", "enforcer=inof", "9"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }
}
