//! What is kept about a ban and about an allowance: who made it, why, since when and until when.

use std::{fmt, sync::Arc};

use crate::{clock::KernelTime, denial::Denial, prefix::Prefix};

/// Longest reason that is kept, in characters: one line on a terminal.
const REASON_CHARS: usize = 200;

/// The end of a ban that ends only by hand.
pub const FOREVER: KernelTime = KernelTime(enforcer_common::ban::FOREVER);

/// A ban as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom it holds for.
    pub prefix: Prefix,
    /// Who or what made it, and why.
    pub cause: Cause,
    /// When it began.
    pub since: KernelTime,
    /// The first instant at which it no longer holds; [`FOREVER`].
    pub until: KernelTime,
    /// Offences that led to it or came in while it held.
    pub offences: u32,
}

/// Why a ban exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The denial that tipped the score.
    Offence(Denial),
    /// An operator's word, with the reason given.
    Operator(Text),
    /// It was found in the kernel's tables, and nothing else is known of it.
    Kept,
}

/// Who or what made a ban: the label in lists and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The score of offences.
    Offence,
    /// A person, or what acts for one.
    Operator,
}

impl Origin {
    /// Every origin, by number.
    pub const ALL: [Self; 2] = [Self::Offence, Self::Operator];

    /// The stable name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Offence => "offence",
            Self::Operator => "operator",
        }
    }
}

impl Cause {
    /// Who or what made the ban.
    pub const fn origin(&self) -> Origin {
        match self {
            Self::Offence(_) | Self::Kept => Origin::Offence,
            Self::Operator(_) => Origin::Operator,
        }
    }

    /// The metric label: never free text.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Offence(denial) => denial.code(),
            Self::Operator(_) => Origin::Operator.label(),
            Self::Kept => "kept",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offence(denial) => f.write_str(denial.code()),
            Self::Operator(reason) => f.write_str(reason.as_str()),
            Self::Kept => f.write_str("kept from the kernel's tables"),
        }
    }
}

/// An allowance: the configuration's, an operator's, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Whether the configuration lists it.
    pub configured: bool,
    /// The operator's reason, if an operator added it.
    pub operator: Option<Text>,
    /// Since when.
    pub since: KernelTime,
}

/// An operator's word on whose budgets a prefix has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiered {
    /// The tier, by name.
    pub tier: Text,
    /// The operator's reason.
    pub reason: Text,
    /// Since when.
    pub since: KernelTime,
}

/// Free text of an operator: one line, without control characters, of bounded length. Many bans share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Arc<str>);

impl Text {
    /// Cuts `text` to what is kept.
    pub fn new(text: &str) -> Self {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS);
        Self(clean.collect::<String>().trim().into())
    }

    /// What is kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_bounded_line() {
        assert_eq!(Text::new("a\nb\u{1b}[31mc ").as_str(), "a b [31mc");
        assert_eq!(Text::new(&"é".repeat(500)).as_str().chars().count(), REASON_CHARS);
    }
}
