//! Where the files of a configuration are.

use std::path::Path;

use toml::Value;

use crate::data::{at_home, DataSet};
use crate::error::Error;
use crate::plugin::config::Config;
use crate::plugin::registry;
use crate::settings::{Pick, PluginKind};

/// A configuration with whole paths, as a run has it.
pub(crate) fn located(mut config: Config) -> Config {
    if let Some(data) = &mut config.run.data {
        locate(data);
    }
    config.run.init = config.run.init.as_deref().map(whole);
    config
}

/// Writes the path of a data set in full, so that the run can be resumed from any folder.
fn locate(data: &mut Pick<DataSet>) {
    let argument = registry::info(DataSet::KIND, &data.name).map(|info| info.argument);
    let Ok(Some(argument)) = argument else { return };
    let Some(Value::String(path)) = data.settings.get_mut(argument) else {
        return;
    };
    *path = whole(path);
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

/// What to do where the data of an opened run are not at their place any more.
pub(super) fn moved(folder: &Path, config: &Config) -> Option<Error> {
    let data = config.run.data.as_ref()?;
    let argument = registry::info(DataSet::KIND, &data.name).ok()?.argument?;
    let path = data.settings.get(argument)?.as_str()?;
    if path.contains('*') || at_home(path).exists() {
        return None;
    }
    let name = &data.name;
    let problem = format!(
        "its data, {path}, are not there; name the place where they are now: --data {name}:PATH"
    );
    Some(Error::run(folder, problem))
}
