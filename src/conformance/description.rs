//! Trials of a plugin's description and settings.

use toml::Table;

use super::{ensure, Checked};
use crate::plugin::config::complete;
use crate::plugin::registry::Info;

/// The maximum length of a description in `onward list`.
const LINE: usize = 140;

pub(super) fn description(info: &Info) -> Checked {
    let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let name = info.name;
    ensure!(
        !name.is_empty() && name.chars().all(of_a_name),
        "the name `{name}` has characters other than a-z, 0-9, _ and -"
    );
    let length = info.about.chars().count();
    ensure!(
        (1..=LINE).contains(&length),
        "the description has {length} characters, expected 1 to {LINE}"
    );
    for setting in (info.settings)() {
        let (key, help) = (setting.key, &setting.help);
        ensure!(
            help.ends_with('.'),
            "the help of the setting `{key}` does not end with a full stop: {help:?}"
        );
    }
    Ok(())
}

pub(super) fn settings(kind: &'static str, info: &Info) -> Checked {
    let settings = (info.settings)();
    let defaults = settings.iter();
    let defaults = defaults.filter_map(|s| Some((s.key.to_string(), s.default.clone()?)));
    let first = complete(kind, info, defaults.collect())?;
    let again = complete(kind, info, first.clone())?;
    ensure!(
        first == again,
        "defaults that are written and read again are {again:?}, expected {first:?}"
    );
    let unknown = Table::from_iter([("no_such_key".to_string(), true.into())]);
    ensure!(
        complete(kind, info, unknown).is_err(),
        "a setting `no_such_key` is not refused"
    );
    Ok(())
}
