//! Where the files of a configuration are.

use std::path::Path;

use toml::Value;

use crate::data::text::tokenizer::Units;
use crate::data::{at_home, DataSet};
use crate::error::{Error, Result};
use crate::plugin::config::Config;
use crate::plugin::registry;
use crate::run::folder::CONFIG;
use crate::settings::{Pick, PluginKind};

/// A configuration with whole paths, as a run has it.
pub(crate) fn located(mut config: Config) -> Config {
    if let Some(data) = &mut config.run.data {
        locate(data);
    }
    config.run.init = config.run.init.as_deref().map(whole);
    config
}

/// Writes the paths of a data set in full, so that the run can be resumed from any folder.
fn locate(data: &mut Pick<DataSet>) {
    let Ok(info) = registry::info(DataSet::KIND, &data.name) else {
        return;
    };
    for key in info.argument.iter().chain(info.paths) {
        match data.settings.get_mut(*key) {
            // A kind of token, not the file of its name.
            Some(Value::String(kind))
                if kind.parse::<Units>().is_ok() && info.argument != Some(*key) => {}
            Some(Value::String(path)) => *path = whole(path),
            Some(Value::Array(paths)) => {
                for path in paths {
                    if let Value::String(path) = path {
                        *path = whole(path);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A path from the root; one that does not exist as it was given, for messages.
fn whole(path: &str) -> String {
    let located = at_home(path);
    let absolute = std::path::absolute(&located).ok();
    let is_there = located.exists() || path.contains('*');
    let absolute = absolute.filter(|_| is_there);
    let absolute = absolute.as_deref().and_then(Path::to_str);
    absolute.unwrap_or(path).into()
}

/// Refuses an opened run whose data are not at their place any more.
pub(super) fn check_data(folder: &Path, config: &Config) -> Result<()> {
    let Some(data) = &config.run.data else {
        return Ok(());
    };
    let argument = registry::info(DataSet::KIND, &data.name).map(|info| info.argument);
    let path = argument
        .ok()
        .flatten()
        .and_then(|argument| data.settings.get(argument)?.as_str());
    let is_there = |path: &str| path.contains('*') || at_home(path).exists();
    let Some(path) = path.filter(|path| !is_there(path)) else {
        return Ok(());
    };
    let name = &data.name;
    let problem = format!(
        "its data, {path}, are not there; put them back, or write the place where they are now \
         into {CONFIG}; `resume` and `evaluate` also take --data {name}:PATH"
    );
    Err(Error::run(folder, problem))
}
