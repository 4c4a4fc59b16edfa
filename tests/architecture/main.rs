//! The layout of the code, held by a test: which folder may use which, and what else is said of all files.
//!
//! The sources are parsed with `syn`, every path in them is resolved to the file that defines what it names, and
//! the rules are checked on the result. `planted.rs` breaks each rule in each form in which it can be broken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::collections::BTreeSet;

mod collect;
mod names;
mod planted;
mod rules;
mod source;
mod tables;

use self::names::Modules;
use self::tables::EXCEPTIONS;

#[test]
fn the_sources_keep_to_the_layout() {
    let sources = source::of_repository();
    let modules = Modules::parse(&sources);
    let mut found: BTreeSet<String> = rules::all(&modules).into_iter().collect();
    found.extend(rules::long_files(&sources));
    found.extend(rules::unread_files(&sources, &modules));
    found.extend(rules::missing_folders(&modules));
    let excepted: BTreeSet<String> = EXCEPTIONS
        .iter()
        .map(|(_, what)| (*what).to_owned())
        .collect();
    let broken: Vec<_> = found.difference(&excepted).collect();
    let stale: Vec<_> = excepted.difference(&found).collect();
    assert!(
        broken.is_empty() && stale.is_empty(),
        "rules that are broken:\n{broken:#?}\nexceptions that no longer apply:\n{stale:#?}"
    );
}
