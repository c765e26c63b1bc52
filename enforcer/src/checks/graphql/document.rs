//! What a GraphQL document asks for: its operation, how deep it goes, how often it renames, which fields it begins with.
//!
//! Documents are hostile: whatever is walked is bounded before it is walked, fragments are measured once each, and nesting of
//! any kind is refused long before a stack could end.

use std::collections::{BTreeSet, HashMap, HashSet};

use apollo_parser::{
    Parser,
    cst::{Definition, Document, FragmentDefinition, OperationDefinition, Selection, SelectionSet},
};

use crate::{config::OperationKind, denial::Denial};

/// Nesting of anything in anything that is followed; `max_depth` is far below.
const NESTING: usize = 200;
/// Tokens of a document at most: what the parser makes of each costs some hundred bytes.
const TOKENS: usize = 15_000;

/// One operation of a document, as it would be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) kind: OperationKind,
    pub(super) name: Option<String>,
    /// Fields within fields; 1 for `{ a }`.
    pub(super) depth: usize,
    /// Fields with an alias, counted as often as fragments repeat them.
    pub(super) aliases: usize,
    /// Whether it asks for the schema.
    pub(super) introspects: bool,
    /// The fields that it begins with, whatever they are renamed to.
    pub(super) roots: BTreeSet<String>,
}

/// Reads a document and measures the operation that `wanted` names, or its only one.
pub(super) fn read(text: &str, wanted: Option<&str>) -> Result<Operation, Denial> {
    // The end of a comment (GraphQL section 2.1.3) that some readers overlook.
    if text.replace("\r\n", "\n").contains('\r') {
        return Err(Denial::GraphqlMalformed);
    }
    let tree = Parser::new(text).recursion_limit(NESTING).token_limit(TOKENS).parse();
    if let Some(error) = tree.errors().next() {
        return Err(match error.is_limit() {
            false => Denial::GraphqlMalformed,
            true if tree.recursion_limit().high > NESTING => Denial::GraphqlDepth,
            true => Denial::GraphqlTooLarge,
        });
    }
    let (operation, fragments) = select(&tree.document(), wanted)?;
    let set = operation.selection_set().ok_or(Denial::GraphqlMalformed)?;
    let sum = Walk { fragments: &fragments, known: HashMap::new(), open: HashSet::new() }.sum(&set, 0)?;
    let mut roots = BTreeSet::new();
    begin(&set, &fragments, &mut HashSet::new(), &mut roots)?;
    Ok(Operation {
        kind: kind(&operation)?,
        name: operation.name().map(|name| name.text().to_string()),
        depth: sum.depth,
        aliases: sum.aliases,
        introspects: sum.introspects,
        roots,
    })
}

type Fragments = HashMap<String, FragmentDefinition>;

/// The operation that is meant, and all fragments. What a schema consists of has no place in a request.
fn select(document: &Document, wanted: Option<&str>) -> Result<(OperationDefinition, Fragments), Denial> {
    let mut operations: Vec<(Option<String>, OperationDefinition)> = Vec::new();
    let mut fragments = Fragments::new();
    for definition in document.definitions() {
        #[allow(clippy::wildcard_enum_match_arm, reason = "a dozen kinds of definitions, all of schemas")]
        match definition {
            Definition::OperationDefinition(operation) => {
                let name = operation.name().map(|name| name.text().to_string());
                // Both are demanded by GraphQL sections 5.2.1 and 5.2.2; servers that do not check choose one of two.
                if operations.iter().any(|(other, _)| *other == name) {
                    return Err(Denial::GraphqlMalformed);
                }
                operations.push((name, operation));
            }
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name());
                let name = name.ok_or(Denial::GraphqlMalformed)?.text().to_string();
                if fragments.insert(name, fragment).is_some() {
                    return Err(Denial::GraphqlMalformed);
                }
            }
            _ => return Err(Denial::GraphqlMalformed),
        }
    }
    let is_lone = operations.len() == 1;
    if !is_lone && operations.iter().any(|(name, _)| name.is_none()) {
        return Err(Denial::GraphqlMalformed);
    }
    let meant = |(name, _): &(Option<String>, _)| match wanted {
        Some(wanted) => name.as_deref() == Some(wanted),
        None => is_lone,
    };
    let operation = operations.into_iter().find(meant).ok_or(Denial::GraphqlMalformed)?.1;
    Ok((operation, fragments))
}

fn kind(operation: &OperationDefinition) -> Result<OperationKind, Denial> {
    let Some(kind) = operation.operation_type() else { return Ok(OperationKind::Query) };
    if kind.query_token().is_some() {
        Ok(OperationKind::Query)
    } else if kind.mutation_token().is_some() {
        Ok(OperationKind::Mutation)
    } else if kind.subscription_token().is_some() {
        Ok(OperationKind::Subscription)
    } else {
        Err(Denial::GraphqlMalformed)
    }
}

/// What a selection comes to.
#[derive(Clone, Copy, Default)]
struct Sum {
    depth: usize,
    aliases: usize,
    introspects: bool,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.depth = self.depth.max(other.depth);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.introspects |= other.introspects;
    }
}

struct Walk<'a> {
    fragments: &'a Fragments,
    /// Fragments that were measured: each one costs its own length, however often it is used.
    known: HashMap<String, Sum>,
    /// Those that are being measured: one of them inside itself has no end (GraphQL section 5.5.2.2).
    open: HashSet<String>,
}

impl Walk<'_> {
    /// `level`: how deep in the walk this is.
    fn sum(&mut self, set: &SelectionSet, level: usize) -> Result<Sum, Denial> {
        if level > NESTING {
            return Err(Denial::GraphqlDepth);
        }
        let mut sum = Sum::default();
        for selection in set.selections() {
            match selection {
                Selection::Field(field) => {
                    let name = field.name().ok_or(Denial::GraphqlMalformed)?.text().to_string();
                    let inner = match field.selection_set() {
                        Some(inner) => self.sum(&inner, level + 1)?,
                        None => Sum::default(),
                    };
                    sum.add(Sum {
                        depth: inner.depth + 1,
                        aliases: inner.aliases.saturating_add(usize::from(field.alias().is_some())),
                        // Names of two underscores are the schema's own (GraphQL section 4.2).
                        introspects: inner.introspects || name.starts_with("__") && name != "__typename",
                    });
                }
                Selection::InlineFragment(inline) => {
                    let inner = inline.selection_set().ok_or(Denial::GraphqlMalformed)?;
                    sum.add(self.sum(&inner, level + 1)?);
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name().and_then(|name| name.name());
                    let name = name.ok_or(Denial::GraphqlMalformed)?.text().to_string();
                    sum.add(self.fragment(name, level + 1)?);
                }
            }
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: String, level: usize) -> Result<Sum, Denial> {
        if let Some(sum) = self.known.get(&name) {
            return Ok(*sum);
        }
        let set = self.fragments.get(&name).and_then(FragmentDefinition::selection_set);
        let set = set.ok_or(Denial::GraphqlMalformed)?;
        if !self.open.insert(name.clone()) {
            return Err(Denial::GraphqlMalformed);
        }
        let sum = self.sum(&set, level)?;
        self.open.remove(&name);
        self.known.insert(name, sum);
        Ok(sum)
    }
}

/// The fields at the beginning of a selection, those of fragments included. Was measured before, so it ends.
fn begin(
    set: &SelectionSet,
    fragments: &Fragments,
    seen: &mut HashSet<String>,
    roots: &mut BTreeSet<String>,
) -> Result<(), Denial> {
    for selection in set.selections() {
        match selection {
            Selection::Field(field) => {
                roots.insert(field.name().ok_or(Denial::GraphqlMalformed)?.text().to_string());
            }
            Selection::InlineFragment(inline) => {
                let inner = inline.selection_set().ok_or(Denial::GraphqlMalformed)?;
                begin(&inner, fragments, seen, roots)?;
            }
            Selection::FragmentSpread(spread) => {
                let name = spread.fragment_name().and_then(|name| name.name());
                let name = name.ok_or(Denial::GraphqlMalformed)?.text().to_string();
                let set = fragments.get(&name).and_then(FragmentDefinition::selection_set);
                if seen.insert(name) {
                    begin(&set.ok_or(Denial::GraphqlMalformed)?, fragments, seen, roots)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(text: &str) -> Result<(OperationKind, usize, usize, bool, String), Denial> {
        let operation = read(text, None)?;
        let roots: Vec<String> = operation.roots.into_iter().collect();
        Ok((operation.kind, operation.depth, operation.aliases, operation.introspects, roots.join(",")))
    }

    #[test]
    fn operations_are_measured_through_their_fragments() {
        let (query, mutation) = (OperationKind::Query, OperationKind::Mutation);
        for (text, expected) in [
            ("{ a }", (query, 1, 0, false, "a")),
            ("query Q($x: Int = 1) @d { a(x: $x) { b c { d } } e }", (query, 3, 0, false, "a,e")),
            ("mutation { safe: pay(sum: {a: [1, [2]]}) { id } }", (mutation, 2, 1, false, "pay")),
            ("subscription S { s }", (OperationKind::Subscription, 1, 0, false, "s")),
            ("{ ...F ...F } fragment F on Q { x: a { y: b } }", (query, 2, 4, false, "a")),
            (
                "{ ... on Q { ...F } } fragment F on Q { a ...G } fragment G on Q { b }",
                (query, 1, 0, false, "a,b"),
            ),
            ("{ __typename }", (query, 1, 0, false, "__typename")),
            ("{ a { ...F } } fragment F on T { z: __type(name: \"x\") { name } }", (query, 3, 1, true, "a")),
            ("{ __schema { types { name } } }", (query, 3, 0, true, "__schema")),
            ("# a comment\r\n{ a, b, }\n#", (query, 1, 0, false, "a,b")),
        ] {
            let (kind, depth, aliases, introspects, roots) = expected;
            assert_eq!(measure(text), Ok((kind, depth, aliases, introspects, roots.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for text in [
            "",
            "{",
            "{}",
            "{ a } { b }",
            "{ a } query B { b }",
            "query A { a } query A { b }",
            "{ ...F } fragment F on Q { a } fragment F on Q { b }",
            "{ ...F }",
            "{ ...F } fragment F on Q { ...F }",
            "{ ...F } fragment F on Q { a { ...G } } fragment G on Q { b { ...F } }",
            "type T { a: Int }",
            "{ a } extend type T { a: Int }",
            "fragment F on Q { a }",
            "query A { a } # \r mutation B { b }",
            "{ a(x: \"\u{0}) }",
            "{ a } garbage",
        ] {
            assert_eq!(measure(text), Err(Denial::GraphqlMalformed), "{text:?}");
        }
    }

    #[test]
    fn the_operation_that_is_named_is_the_one_that_counts() {
        let text = "query Small { a } mutation Large { b { c } }";
        assert_eq!(read(text, Some("Large")).unwrap().kind, OperationKind::Mutation);
        assert_eq!(read(text, Some("Small")).unwrap().depth, 1);
        assert_eq!(read(text, None).unwrap_err(), Denial::GraphqlMalformed);
        assert_eq!(read(text, Some("Other")).unwrap_err(), Denial::GraphqlMalformed);
        assert_eq!(read("{ a }", Some("Other")).unwrap_err(), Denial::GraphqlMalformed);
    }

    /// On a stack as small as a thread may have: nothing here may end it.
    #[test]
    fn hostile_documents_end_before_a_stack_does() {
        let work = || {
            let deep = format!("{}{}", "{a".repeat(5_000), "}".repeat(5_000));
            assert_eq!(measure(&deep), Err(Denial::GraphqlDepth), "nested fields");
            let lists = format!("{{ a(x: {}1{}) }}", "[".repeat(5_000), "]".repeat(5_000));
            assert_eq!(measure(&lists), Err(Denial::GraphqlDepth), "nested values");
            let objects = format!("{{ a(x: {}1{}) }}", "{a:".repeat(3_000), "}".repeat(3_000));
            assert_eq!(measure(&objects), Err(Denial::GraphqlDepth), "nested objects");
            let types = format!("query($x: {}Int{}) {{ a }}", "[".repeat(5_000), "]".repeat(5_000));
            assert_eq!(measure(&types), Err(Denial::GraphqlDepth), "nested types");
            let inline = format!("{{ {} a {} }}", "... {".repeat(3_000), "}".repeat(3_000));
            assert_eq!(measure(&inline), Err(Denial::GraphqlDepth), "nested inline fragments");
            let open = "{a".repeat(5_000);
            assert!(measure(&open).is_err(), "never closed");
            let mut chain = "{ ...F0 }".to_owned();
            for n in 0..900 {
                chain += &format!("fragment F{n} on Q {{ ...F{} }}", n + 1);
            }
            chain += "fragment F900 on Q { a }";
            assert_eq!(measure(&chain), Err(Denial::GraphqlDepth), "a chain of fragments");
            let aliases: String = (0..2_000).map(|n| format!("a{n}:a ")).collect();
            assert_eq!(measure(&format!("{{ {aliases} }}")).unwrap().2, 2_000, "renamed");
            let many: String = (0..8_000).map(|n| format!("a{n}:a ")).collect();
            assert_eq!(measure(&format!("{{ {many} }}")), Err(Denial::GraphqlTooLarge), "too many tokens");
            // Each fragment twice in the next: 2^100 fields, counted in a hundred steps.
            let mut bomb = "{ ...F0 }".to_owned();
            for n in 0..100 {
                bomb += &format!("fragment F{n} on Q {{ ...F{m} ...F{m} }}", m = n + 1);
            }
            bomb += "fragment F100 on Q { a: b }";
            assert_eq!(measure(&bomb).unwrap().2, usize::MAX, "2^100 aliases");
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap().join().unwrap();
    }
}
