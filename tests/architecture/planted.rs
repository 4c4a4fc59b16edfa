//! Each rule broken in each form, in sources that exist only here: a rule that finds nothing is no rule.

use crate::names::Modules;
use crate::rules;
use crate::source::Source;
use crate::tables::LINES_MAX;

/// A small crate that keeps to the rules.
const SOUND: &[(&str, &str)] = &[
    (
        "src/lib.rs",
        "//! Map.\npub mod protocol;\npub mod store;\npub mod ingest;\npub mod connection;",
    ),
    (
        "src/protocol/mod.rs",
        "mod event;\npub use self::event::Event;",
    ),
    ("src/protocol/event.rs", "pub struct Event;"),
    ("src/store/mod.rs", "mod log;\npub use self::log::Log;"),
    (
        "src/store/log.rs",
        "pub struct Log;\nconst READ: &str = \"SELECT 1\";",
    ),
    (
        "src/ingest/mod.rs",
        "mod barrier;\npub mod wake_lock;\npub use self::barrier::Barriers;",
    ),
    (
        "src/ingest/barrier.rs",
        "use crate::protocol::Event;\npub struct Barriers(Event);\npub fn now() {}",
    ),
    (
        "src/ingest/wake_lock.rs",
        "pub fn attend() {}\n#[macro_export]\nmacro_rules! hold { () => {}; }",
    ),
    (
        "src/connection/mod.rs",
        "//! One connection.\nmod client;\n#[cfg(test)]\nmod tests;\npub use self::client::Client;",
    ),
    (
        "src/connection/client.rs",
        "use crate::protocol::Event;\npub struct Client(Event);",
    ),
    (
        "src/connection/tests.rs",
        "use crate::ingest::Barriers;\nconst SQL: &str = \"SELECT 1\";",
    ),
    ("src/main.rs", "mod cli;\nfn main() { cli::main(); }"),
    ("src/cli/mod.rs", "mod start;\npub use self::start::main;"),
    (
        "src/cli/start.rs",
        "use hushnet_realtime::protocol::Event;\npub fn main() {}",
    ),
    (
        "crates/websocket/src/lib.rs",
        "mod socket;\npub use self::socket::Socket;",
    ),
    ("crates/websocket/src/socket.rs", "pub struct Socket;"),
];

/// What is found when these files are added to the sound ones, or take their place.
fn found(planted: &[(&str, &str)]) -> Vec<String> {
    let sound = SOUND
        .iter()
        .filter(|(path, _)| planted.iter().all(|(other, _)| other != path));
    let sources: Vec<_> = sound
        .chain(planted)
        .map(|(path, text)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        })
        .collect();
    rules::all(&Modules::parse(&sources))
}

#[track_caller]
fn assert_found(planted: &[(&str, &str)], expected: &str) {
    assert_eq!(found(planted), [expected], "{planted:?}");
}

#[test]
fn the_sound_crate_breaks_no_rule() {
    assert_eq!(found(&[]), [""; 0]);
}

#[test]
fn a_forbidden_folder_is_found_in_each_form_of_import() {
    let forms = [
        // Trees.
        "use crate::ingest::Barriers;",
        "use crate::ingest::Barriers as Other;",
        "use crate::ingest::barrier::Barriers;",
        "use crate::{ingest::Barriers, protocol::Event};",
        "use crate::ingest::{self, Barriers};",
        "use crate::ingest::{self as other};",
        "use crate::{ingest};",
        "use crate::ingest::*;",
        "use crate::{protocol::{Event}, ingest::{wake_lock::{attend as hold}}};",
        "pub use crate::ingest::Barriers;",
        "fn f() { use crate::ingest::Barriers; }",
        // The crate by other names.
        "use hushnet_realtime::ingest::Barriers;",
        "use ::hushnet_realtime::ingest::Barriers;",
        "use crate as root; use root::ingest::Barriers;",
        "use crate as root; fn f() { root::ingest::wake_lock::attend(); }",
        "extern crate self as own; fn f() { own::ingest::wake_lock::attend(); }",
        "use crate::*; fn f() { ingest::wake_lock::attend(); }",
        // Chains.
        "use super::super::ingest::Barriers;",
        "use self::super::super::ingest::Barriers;",
        "use super::super as root; fn f() { root::ingest::wake_lock::attend(); }",
        "mod inner { use super::super::super::ingest::Barriers; }",
        "mod inner { fn f() { crate::ingest::wake_lock::attend(); } }",
        // Where no `use` stands.
        "fn f() { crate::ingest::wake_lock::attend(); }",
        "fn f() { super::super::ingest::wake_lock::attend(); }",
        "fn f() { let g = crate::ingest::wake_lock::attend; }",
        "fn f(_: crate::ingest::Barriers) {}",
        "fn f() -> Option<crate::ingest::Barriers> { None }",
        "fn f<T: Into<crate::ingest::Barriers>>() {}",
        "struct S { b: Vec<crate::ingest::Barriers> }",
        "type T = crate::ingest::Barriers;",
        "impl From<crate::ingest::Barriers> for Own {} struct Own;",
        "impl crate::ingest::Trait for Own {} struct Own;",
        "fn f() { <Own as crate::ingest::Trait>::g(); } struct Own;",
        "fn f() { <crate::ingest::Barriers>::g(); }",
        "fn f(x: u8) { if let crate::ingest::Barriers(_) = x {} }",
        "fn f(x: u8) { match x { crate::ingest::LIMIT => {} _ => {} } }",
        "const C: usize = crate::ingest::LIMIT;",
        "const C: [u8; crate::ingest::LIMIT] = [];",
        // Macros and attributes.
        "fn f() { println!(\"{}\", crate::ingest::LIMIT); }",
        "fn f() { assert!(vec![(1, crate::ingest::LIMIT)].is_empty()); }",
        "macro_rules! m { () => { $crate::ingest::wake_lock::attend() }; }",
        "macro_rules! m { () => { use crate::ingest::{Barriers}; }; }",
        "fn f() { crate::ingest::hold!(); }",
        "#[derive(crate::ingest::Derived)] struct S;",
        "#[arg(value_parser = crate::ingest::parse)] struct S;",
        "struct S { #[serde(with = \"crate::ingest::wake_lock\")] b: u8 }",
    ];
    for form in forms {
        let planted = [("src/connection/client.rs", form)];
        let uses = found(&planted);
        assert!(
            uses.contains(&"src/connection/client.rs uses ingest".to_owned()),
            "{form}: {uses:?}"
        );
    }
}

#[test]
fn a_forbidden_folder_is_found_behind_a_re_export() {
    let store = "mod log;\npub use self::log::Log;\npub use crate::ingest::Barriers as Held;";
    let uses = found(&[
        ("src/store/mod.rs", store),
        ("src/connection/client.rs", "use crate::store::Held;"),
    ]);
    for file in ["src/store/mod.rs", "src/connection/client.rs"] {
        assert!(uses.contains(&format!("{file} uses ingest")), "{uses:?}");
    }
    let all = "mod log;\npub use crate::ingest::*;";
    let uses = found(&[
        ("src/store/mod.rs", all),
        (
            "src/connection/client.rs",
            "fn f() { crate::store::wake_lock::attend() }",
        ),
    ]);
    assert!(uses.contains(&"src/connection/client.rs uses ingest".to_owned()));
}

#[test]
fn the_binary_and_the_crates_keep_to_the_table() {
    let cli = (
        "src/cli/start.rs",
        "pub fn main() { hushnet_realtime::ingest::wake_lock::attend(); }",
    );
    assert_found(&[cli], "src/cli/start.rs uses ingest");
    let renamed = (
        "src/cli/start.rs",
        "use hushnet_realtime as service;\npub fn main() { service::ingest::wake_lock::attend(); }",
    );
    assert_found(&[renamed], "src/cli/start.rs uses ingest");
    let up = (
        "crates/websocket/src/socket.rs",
        "use hushnet_realtime::protocol::Event;\npub struct Socket;",
    );
    assert_found(&[up], "crates/websocket/src/socket.rs uses protocol");
    let event = ("src/store/log.rs", "pub struct Log(websocket::Socket);");
    assert_found(&[event], "src/store/log.rs uses websocket");
    let unknown = [
        (
            "src/lib.rs",
            "pub mod protocol; pub mod store; pub mod ingest; pub mod connection; pub mod extra;",
        ),
        ("src/extra.rs", "use crate::protocol::Event;"),
    ];
    assert_found(&unknown, "src/extra.rs uses protocol");
}

#[test]
fn tests_may_use_more() {
    let client = "#[cfg(test)] mod tests { use crate::ingest::Barriers; }
        #[cfg(test)] fn f() { crate::ingest::wake_lock::attend(); }
        struct S; impl S { #[cfg(test)] fn g() { crate::ingest::wake_lock::attend(); } }";
    assert_eq!(found(&[("src/connection/client.rs", client)]), [""; 0]);
    let after = "#[cfg(test)] mod tests {}\nuse crate::ingest::Barriers;";
    assert_found(
        &[("src/connection/client.rs", after)],
        "src/connection/client.rs uses ingest",
    );
    let without = "#[cfg(not(test))] use crate::ingest::Barriers;";
    assert_found(
        &[("src/connection/client.rs", without)],
        "src/connection/client.rs uses ingest",
    );
}

#[test]
fn circles_are_found() {
    let log = (
        "src/store/log.rs",
        "use crate::ingest::Barriers;\npub struct Log;",
    );
    let barrier = (
        "src/ingest/barrier.rs",
        "pub struct Barriers(crate::store::Log);",
    );
    let both = found(&[log, barrier]);
    assert!(
        both.contains(&"folders use each other: ingest, store".to_owned()),
        "{both:?}"
    );
    let files = [
        (
            "src/ingest/barrier.rs",
            "pub struct Barriers;\nfn f() { super::wake_lock::attend(); }",
        ),
        (
            "src/ingest/wake_lock.rs",
            "use super::Barriers;\npub fn attend() {}",
        ),
    ];
    assert_found(
        &files,
        "files use each other: src/ingest/barrier.rs, src/ingest/wake_lock.rs",
    );
    let parent = [
        (
            "src/ingest/barrier.rs",
            "mod parts;\nuse self::parts::Part;\npub struct Barriers(Part);",
        ),
        (
            "src/ingest/barrier/parts.rs",
            "use super::*;\npub struct Part(Option<Box<Barriers>>);",
        ),
    ];
    assert_found(
        &parent,
        "files use each other: src/ingest/barrier.rs, src/ingest/barrier/parts.rs",
    );
}

#[test]
fn a_module_file_that_holds_code_is_found() {
    for (text, what) in [
        (
            "mod event;\npub use self::event::Event;\npub struct Other;",
            "code",
        ),
        (
            "mod event { pub struct Event; }\npub use self::event::Event;",
            "a module's code",
        ),
    ] {
        let expected = format!("src/protocol/mod.rs holds {what}");
        assert_found(&[("src/protocol/mod.rs", text)], &expected);
    }
}

#[test]
fn sql_outside_the_store_is_found() {
    for text in [
        "const Q: &str = \"SELECT 1\";",
        "const Q: &str = \"\n    select id from users\";",
        "fn f() { let q = format!(\"UPDATE {} SET x = 1\", 1); }",
        "fn f() { let q = concat!(\"WITH a AS (\", \")\"); }",
        "const Q: &str = include_str!(\"schema.sql\");",
    ] {
        assert_found(
            &[("src/connection/client.rs", text)],
            "src/connection/client.rs contains SQL",
        );
    }
    for text in [
        "fn f(q: &str) { sqlx::query(q); }",
        "use sqlx::query_scalar; fn f(q: &str) { query_scalar(q); }",
        "use sqlx as other; fn f(q: &str) { other::raw_sql(q); }",
        "fn f(q: &str) { sqlx::query_as::<_, (i64,)>(q); }",
        "fn f() { sqlx::query!(x); }",
    ] {
        assert_found(
            &[("src/connection/client.rs", text)],
            "src/connection/client.rs sends SQL",
        );
    }
    let prose = "/// SELECT 1\nfn f() { tracing::warn!(event = \"x\", \"select what you want\"); }";
    assert_eq!(found(&[("src/connection/client.rs", prose)]), [""; 0]);
}

#[test]
fn a_type_with_impl_blocks_in_several_files_is_found() {
    let files = [
        (
            "src/ingest/barrier.rs",
            "pub struct Barriers;\nimpl Barriers {}\nimpl Barriers {}",
        ),
        (
            "src/ingest/wake_lock.rs",
            "pub fn attend() {}\nimpl super::barrier::Barriers {}",
        ),
    ];
    assert_found(
        &files,
        "Barriers of src/ingest/barrier.rs has `impl` blocks in several files",
    );
    let traits = (
        "src/ingest/wake_lock.rs",
        "pub fn attend() {}\nimpl Drop for super::Barriers {}",
    );
    assert_eq!(found(&[traits]), [""; 0]);
}

#[test]
fn impure_code_in_a_pure_file_is_found() {
    for (text, named) in [
        ("use tokio::sync::mpsc;", "tokio::sync::mpsc"),
        ("fn f(_: tokio::net::TcpStream) {}", "tokio::net::TcpStream"),
        (
            "fn f() { std::time::Instant::now(); }",
            "std::time::Instant::now",
        ),
        (
            "use std::time::Instant as I; fn f() { I::now(); }",
            "std::time::Instant::now",
        ),
        (
            "fn f() { println!(\"{}\", std::time::SystemTime::now()); }",
            "std::time::SystemTime::now",
        ),
        ("fn f(_: std::net::UdpSocket) {}", "std::net::UdpSocket"),
    ] {
        let text = format!("pub struct Event;\n{text}");
        let expected = format!("src/protocol/event.rs is pure and names {named}");
        let found = found(&[("src/protocol/event.rs", &text)]);
        assert!(found.contains(&expected), "{text}: {found:?}");
    }
    let with_time = "pub struct Event(std::time::Instant);\nfn f(now: std::time::Instant) {}";
    assert_eq!(found(&[("src/protocol/event.rs", with_time)]), [""; 0]);
}

#[test]
fn a_long_file_is_found() {
    let of = |lines| Source {
        path: "src/a.rs".to_owned(),
        text: "\n".repeat(lines),
    };
    assert!(rules::long_files(&[of(LINES_MAX)]).is_empty());
    assert_eq!(rules::long_files(&[of(LINES_MAX + 1)]).len(), 1);
}

#[test]
fn a_file_that_no_module_names_is_found() {
    let sources = [
        ("src/lib.rs", "mod a;"),
        ("src/a.rs", "#[path = \"c.rs\"] mod b;"),
        ("src/b.rs", ""),
        ("src/c.rs", ""),
    ];
    let sources = sources.map(|(path, text)| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    });
    let unread = rules::unread_files(&sources, &Modules::parse(&sources));
    assert_eq!(unread, ["src/b.rs is no module"]);
}
