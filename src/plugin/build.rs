//! Building a plugin from its name and settings.

use toml::Table;

use super::checked;
use super::config;
use super::registry::{self, Plugin, Registered};
use crate::contract::build_context::BuildContext;
use crate::error::{Located, Result};
use crate::settings::Pick;

/// Builds the plugin that `pick` names.
///
/// The result is wrapped so that its faults become errors. If it panics, or returns a
/// tensor of another shape than its trait documents, or values that are not finite for
/// finite input, the result is an [`Error::Plugin`](crate::Error::Plugin) with its name and
/// package.
///
/// # Errors
/// As [`registry::named`]; errors of the plugin itself, with its name and package in
/// front.
pub fn build<T>(pick: &Pick<T>, context: &BuildContext) -> Result<Box<T>>
where
    T: Registered + ?Sized,
{
    let plugin = registry::named::<T>(&pick.name)?;
    let settings = config::complete(T::KIND, &plugin.info, pick.settings.clone())?;
    build_complete(plugin, &settings, context)
}

/// Builds a plugin from a table of all its settings, as [`build`] does.
pub(crate) fn build_complete<T>(
    plugin: &Plugin<T>,
    settings: &Table,
    context: &BuildContext,
) -> Result<Box<T>>
where
    T: Registered + ?Sized,
{
    let called = checked::called(T::KIND, &plugin.info);
    let built = match checked::attempt(&called, || (plugin.build)(settings, context)) {
        Err(error) if error.is_of_plugin() => return Err(error),
        built => built.at(|| called.clone())?,
    };
    T::checked(built, called, context)
}
