//! Sources of settings: presets, files, the command line.

use std::path::Path;

use toml::{Table, Value};

use crate::disk;
use crate::error::{Error, Result};

/// Settings and their origin.
#[derive(Clone, Debug)]
pub struct Source {
    /// The origin in messages: `--set lr=2`, `preset nebuly`, the path of a file.
    pub origin: String,
    /// The settings.
    pub table: Table,
}

/// The maximum number of parts of a dotted key.
const DEEPEST: usize = 16;

impl Source {
    /// Reads the settings in a TOML file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Data`] if it is not TOML.
    pub fn file(path: &Path) -> Result<Self> {
        let text = disk::read_text(path)?;
        let table = text.parse::<Table>();
        let table = table
            .map_err(|error| Error::data(path, format!("not a configuration in TOML: {error}")))?;
        Ok(Self {
            origin: path.display().to_string(),
            table,
        })
    }

    /// Parses a setting `key=value`. The value is TOML; a bare word is a string. Dots in
    /// the key nest.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no `=`, or if a list or a table is not TOML.
    pub fn assignment(text: &str) -> Result<Self> {
        let origin = format!("--set {text}");
        let parts = text.split_once('=');
        let Some((key, value)) = parts.filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(Error::setting(
                text,
                "",
                origin,
                "key=value, as in --set lr=0.01",
            ));
        };
        // A value is parsed inside a document, since TOML has no value alone.
        let parsed = format!("value = {value}").parse::<Table>();
        let value = match (parsed, words(value), value.trim()) {
            (Ok(table), _, _) if table.len() == 1 => table["value"].clone(),
            (_, Some(words), _) => words,
            (Err(error), _, text) if text.starts_with(['[', '{']) => {
                let expected = format!("a list or a table in TOML: {}", error.message());
                return Err(Error::setting(key, text, origin, expected));
            }
            (_, _, text) => Value::String(text.to_string()),
        };
        let keys: Vec<_> = key.trim().split('.').collect();
        if keys.len() > DEEPEST {
            let key = format!("{}…", keys[..4].join("."));
            let expected =
                format!("a key of at most {DEEPEST} parts, as in --set layer.dropout=0.1");
            return Err(Error::setting(key, value, origin, expected));
        }
        Ok(Self {
            origin,
            table: nested(key.trim(), value),
        })
    }

    /// A setting with a dotted key and a value.
    pub(crate) fn setting(key: &str, value: impl Into<Value>) -> Self {
        Self {
            origin: format!("set({key})"),
            table: nested(key, value.into()),
        }
    }
}

/// The nested tables of a dotted key.
fn nested(key: &str, value: Value) -> Table {
    let keys: Vec<_> = key.splitn(DEEPEST, '.').collect();
    let mut keys = keys.into_iter().rev();
    let last = keys.next().unwrap_or_default();
    let table = Table::from_iter([(last.to_string(), value)]);
    keys.fold(table, |table, key| {
        Table::from_iter([(key.to_string(), Value::Table(table))])
    })
}

/// Whether a word of such characters needs no quotes.
pub(crate) fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-./".contains(c)
}

/// A list of words without quotes: `[csv,tensorboard]`.
fn words(text: &str) -> Option<Value> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let is_word = |word: &&str| word.starts_with(char::is_alphabetic) && word.chars().all(is_bare);
    let words: Vec<&str> = inner.split(',').map(str::trim).collect();
    let words = words.iter().all(is_word).then_some(words)?;
    Some(
        words
            .into_iter()
            .map(Value::from)
            .collect::<Vec<_>>()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(text: &str) -> Table {
        Source::assignment(text).unwrap().table
    }

    #[test]
    fn an_assignment_takes_toml_values_bare_words_and_dots() {
        assert_eq!(assigned("lr=0.5"), toml::toml! { lr = 0.5 });
        assert_eq!(
            assigned("hidden=[10, 20]"),
            toml::toml! { hidden = [10, 20] }
        );
        assert_eq!(
            assigned("log=[csv, tensorboard]"),
            toml::toml! { log = ["csv", "tensorboard"] }
        );
        assert_eq!(
            assigned("sampler=label_overlay"),
            toml::toml! { sampler = "label_overlay" }
        );
        assert_eq!(
            assigned("sampler.strength=2"),
            toml::toml! { sampler.strength = 2 }
        );
        assert_eq!(
            assigned("data=idx:/tmp/a=b"),
            toml::toml! { data = "idx:/tmp/a=b" }
        );
        assert_eq!(assigned("a=1\nb=2"), toml::toml! { a = "1\nb=2" });
    }

    #[test]
    fn an_assignment_without_a_value_is_refused_with_an_example() {
        let error = Source::assignment("lr").unwrap_err().to_string();
        assert!(error.contains("key=value"), "{error}");
    }

    #[test]
    fn a_list_or_table_that_is_no_toml_is_refused_with_the_reason() {
        for text in [
            "goodness={ name = \"sum_squares\", positive = 0. }",
            "hidden=[1000, .5]",
            "hidden=[1000",
        ] {
            let error = Source::assignment(text).unwrap_err().to_string();
            assert!(error.contains("a list or a table in TOML: "), "{error}");
        }
    }
}
