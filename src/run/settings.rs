//! The settings of a run, as its checkpoints have them: `config.toml` is bound to them.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::error::Result;
use crate::plugin::config::{Config, NO_PRESET};
use crate::plugin::source::Source;

/// The settings without the data set: its files may be elsewhere today, and its content
/// is bound by fingerprints.
pub(crate) fn of(config: &Config) -> String {
    let mut table = config.to_table();
    table.remove("data");
    toml::to_string(&table).expect("tables of plain values can be written")
}

/// Settings as a checkpoint or a summary has them, completed by the defaults of this
/// version.
///
/// # Errors
/// As [`Config::resolve`].
pub(super) fn completed(architecture: &str, settings: &str) -> Result<String> {
    let mut table: Table = settings.parse().unwrap_or_default();
    table.remove("architecture");
    let source = Source {
        origin: "the checkpoint".into(),
        table,
    };
    let config = Config::resolve_for(architecture, Some(NO_PRESET), vec![source], false)?;
    Ok(of(&config))
}

/// One number of the settings, such as `batch`.
pub(super) fn number(settings: &str, key: &str) -> Option<usize> {
    let table: Table = settings.parse().ok()?;
    usize::try_from(table.get(key)?.as_integer()?).ok()
}

/// A setting that differs, with its values before and now.
pub(super) type Difference = (String, String, String);

/// The first setting that differs; `None` if all are alike.
pub(super) fn difference(before: &str, now: &str) -> Option<Difference> {
    differences(before, now).into_iter().next()
}

/// All settings that differ.
pub(super) fn differences(before: &str, now: &str) -> Vec<Difference> {
    let read = |text: &str| text.parse::<Table>().unwrap_or_default();
    let mut found = Vec::new();
    collect(&read(before), &read(now), "", &mut found);
    found
}

fn collect(before: &Table, now: &Table, prefix: &str, found: &mut Vec<Difference>) {
    let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for key in keys {
        let path = format!("{prefix}{key}");
        match (before.get(key), now.get(key)) {
            (Some(Value::Table(before)), Some(Value::Table(now))) => {
                collect(before, now, &format!("{path}."), found);
            }
            (before, now) if before == now => (),
            (before, now) => found.push((path, shown(before), shown(now))),
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("not set".into(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        let found = |before, now| difference(before, now).map(|(key, ..)| key);
        assert_eq!(found("a = 1\nb.c = 2.0", "b.c = 2.0\na = 1"), None);
        assert_eq!(
            found("a = 1\nb.c = 2", "a = 1\nb.c = 3"),
            Some("b.c".into())
        );
        let (key, before, now) = difference("a = 1", "b = 1").unwrap();
        assert_eq!([&key[..], &before, &now], ["a", "1", "not set"]);
    }
}
