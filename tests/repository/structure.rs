//! The structure of the source code: imports between rooms, and complete wrappers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use onward::plugin::registry;

/// The rooms (top-level modules) of `src/`. A room imports only itself and earlier rooms.
const ROOMS: [&str; 16] = [
    "error",
    "disk",
    "settings",
    "kernels",
    "flow",
    "comm",
    "optim",
    "modules",
    "data",
    "contract",
    "plugin",
    "wiring",
    "run",
    "conformance",
    "guide",
    "cli",
];

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file without comments, unit tests and imports for documentation.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut lines = Vec::new();
    let mut is_for_docs = false;
    for line in text.lines() {
        if !is_for_docs && !line.trim_start().starts_with("//") {
            lines.push(line);
        }
        is_for_docs = line.trim() == "#[cfg(doc)]";
    }
    lines.join("\n")
}

/// The names after `crate::` in a piece of code.
fn imports(code: &str) -> BTreeSet<&str> {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        end.unwrap_or(rest.len())
    };
    let starts = code
        .match_indices("crate::")
        .map(|(at, word)| &code[at + word.len()..]);
    starts.map(|rest| &rest[..name(rest)]).collect()
}

#[test]
fn no_room_imports_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in files(&src) {
        let within = path.strip_prefix(&src).unwrap();
        let room = within
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let level = ROOMS.iter().position(|other| *other == room);
        let level = level.unwrap_or_else(|| panic!("src/{room} is not in the list of rooms"));
        seen.insert(room.to_string());
        let code = code(&path);
        assert!(
            !code.contains("crate::{"),
            "{}: one `use` per room",
            path.display()
        );
        for import in imports(&code) {
            if ROOMS[level + 1..].contains(&import) {
                wrong.push(format!("{} imports {import}", within.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "rooms import rooms above them:\n{}",
        wrong.join("\n")
    );
    assert_eq!(
        seen.len(),
        ROOMS.len(),
        "a room of the list does not exist: {seen:?}"
    );
}

/// The core must not contain the name of a plugin.
///
/// Data sets are exempt, because names such as `text` have other meanings.
#[test]
fn no_room_names_a_plugin() {
    let mut names = BTreeSet::new();
    for kind in registry::KINDS.iter().filter(|kind| **kind != "data") {
        let infos = registry::infos(kind).unwrap();
        names.extend(infos.iter().map(|info| info.name));
    }
    assert!(names.len() >= 15, "{names:?}");
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in files(&src) {
        let code = code(&path);
        for name in &names {
            let quoted = format!("\"{name}\"");
            assert!(!code.contains(&quoted), "{}: {quoted}", path.display());
        }
    }
}

/// The methods in the braces after `start`.
fn methods(text: &str, start: &str) -> BTreeSet<String> {
    let at = text.find(start).unwrap_or_else(|| panic!("no `{start}`"));
    let body = &text[at..];
    let end = body.find("\n}").unwrap();
    let lines = body[..end]
        .lines()
        .filter_map(|line| line.strip_prefix("    fn "));
    lines
        .map(|line| line.split(['(', '<']).next().unwrap().to_string())
        .collect()
}

/// A wrapper without a method would silently use the default of the trait.
#[test]
fn the_wrappers_of_a_trait_forward_all_of_its_methods() {
    let traits = [
        ("LocalLayer", "layer"),
        ("GoodnessFn", "goodness"),
        ("NegativeSampler", "sampler"),
        ("Architecture", "architecture"),
    ];
    for (name, file) in traits {
        let contract = source(&format!("src/contract/{file}.rs"));
        let expected = methods(&contract, &format!("pub trait {name}"));
        assert!(expected.len() >= 5, "{name}: {expected:?}");
        let boxed = methods(
            &contract,
            &format!("impl<T: {name} + ?Sized> {name} for Box<T>"),
        );
        assert_eq!(boxed, expected, "Box<dyn {name}>");
        let checked = source(&format!("src/plugin/checked/{file}.rs"));
        let checked = methods(
            &checked,
            &format!("impl {name} for Checked<dyn {name}, Facts>"),
        );
        assert_eq!(checked, expected, "the checked {name}");
    }
}
