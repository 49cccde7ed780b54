//! Plugins that are registered while the program runs: in an interactive session, or from
//! another language.

use std::sync::{PoisonError, RwLock};

use toml::Table;

use super::facts;
use super::registry::{self, Info, Plugin, Registered};
use crate::contract::build_context::BuildContext;
use crate::error::{Error, Result};
use crate::settings::Setting;

/// The plugins of a kind that were added.
pub struct Added<T: ?Sized + 'static>(RwLock<Vec<&'static Plugin<T>>>);

impl<T: ?Sized> Added<T> {
    pub(super) const fn new() -> Self {
        Self(RwLock::new(Vec::new()))
    }

    /// All of them, in the order in which they were added.
    pub(super) fn list(&self) -> Vec<&'static Plugin<T>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Adds one in the place of any other with its name.
    fn put(&self, plugin: &'static Plugin<T>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.info.name != plugin.info.name);
        all.push(plugin);
        facts::forget(&plugin.info);
    }
}

/// What [`add`] is told about a plugin; see [`Info`].
#[derive(Clone, Debug)]
pub struct Description {
    /// The name in the configuration.
    pub name: String,
    /// One line: what the plugin is and where it was published.
    pub about: String,
    /// Where it was written, for messages.
    pub package: String,
    /// The settings.
    pub settings: Vec<Setting>,
}

/// Registers a plugin while the program runs, as [`register!`](crate::register) does
/// before `main`: what it is, how its settings are checked, and how it is built. It stays
/// until the program ends, or until another one with its name is added in its place.
///
/// ```
/// use onward::candle_core::Tensor;
/// use onward::plugin::{self, Description};
/// use onward::{GoodnessFn, Result, Run};
///
/// struct Total;
///
/// impl GoodnessFn for Total {
///     fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
///         Ok(activity.flatten_from(1)?.sum(1)?)
///     }
/// }
///
/// let description = Description {
///     name: "total".into(),
///     about: "the sum of the activities (an example)".into(),
///     package: "notebook".into(),
///     settings: Vec::new(),
/// };
/// plugin::add::<dyn GoodnessFn>(description, |_| Ok(()), |_, _| Ok(Box::new(Total)))?;
///
/// let run = Run::builder("progressive").data("digits").set("goodness", "total").build()?;
/// assert_eq!(run.config().to_table()["goodness"]["name"].as_str(), Some("total"));
/// # Ok::<(), onward::Error>(())
/// ```
///
/// # Errors
/// [`Error::Usage`] for a name or description that is not allowed;
/// [`Error::DuplicatePlugin`] if a linked crate has a plugin of this name.
pub fn add<T: Registered + ?Sized>(
    description: Description,
    check: impl Fn(&Table) -> Result<()> + Send + Sync + 'static,
    build: impl Fn(&Table, &BuildContext) -> Result<Box<T>> + Send + Sync + 'static,
) -> Result<()> {
    let Description {
        name,
        about,
        package,
        settings,
    } = description;
    let place = || format!("{} `{name}`", T::KIND);
    if name.is_empty() || !name.bytes().all(registry::is_of_a_name) {
        let problem = "expected a name of the characters a-z, 0-9, _ and -";
        return Err(Error::usage(place(), problem));
    }
    if about.is_empty() {
        let problem = "expected a line about it: what it is, and where it was published";
        return Err(Error::usage(place(), problem));
    }
    let linked = T::linked();
    if let Some(same) = linked.iter().find(|plugin| plugin.info.name == name) {
        return Err(Error::DuplicatePlugin {
            kind: T::KIND,
            name,
            first: same.info.package.into(),
            second: package,
        });
    }
    // Descriptions are shared with everything that was built, so they are never freed.
    let info = Info::new(
        T::KIND,
        name.leak(),
        about.leak(),
        package.leak(),
        "",
        Box::leak(Box::new(move || settings.clone())),
        Box::leak(Box::new(check)),
    );
    let build = Box::leak(Box::new(build));
    T::added().put(Box::leak(Box::new(Plugin { info, build })));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::prediction::Prediction;
    use crate::contract::sampler::NegativeSampler;
    use crate::flow::batch::Batch;
    use crate::flow::input::Input;
    use crate::flow::step::Step;
    use crate::flow::views::{Role, Views};

    fn add_one(name: &str, about: &str) -> Result<()> {
        let description = Description {
            name: name.into(),
            about: about.into(),
            package: "notebook".into(),
            settings: Vec::new(),
        };
        let build = |_: &Table, _: &BuildContext| Err(Error::unfit("test", "not built"));
        add::<dyn NegativeSampler>(description, |_| Ok(()), build)
    }

    #[test]
    fn a_plugin_is_found_once_added_and_replaced_by_the_next_of_its_name() -> Result<()> {
        assert!(registry::named::<dyn NegativeSampler>("added").is_err());
        add_one("added", "first")?;
        add_one("added", "second")?;
        let found = registry::named::<dyn NegativeSampler>("added")?;
        assert_eq!((found.info.about, found.info.kind), ("second", "sampler"));
        Ok(())
    }

    /// The example as it is, or twice as large.
    struct Scaled(f64);

    impl NegativeSampler for Scaled {
        fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
            Views::new(self.neutral(batch)?, vec![Role::Positive])
        }

        fn neutral(&self, batch: &Batch) -> Result<Input> {
            Input::of((batch.examples() * self.0)?)
        }
    }

    #[test]
    fn what_is_known_of_a_plugin_is_not_kept_for_the_next_of_its_name() -> Result<()> {
        for (scale, is_kept) in [(1., true), (2., false)] {
            let description = Description {
                name: "scaled".into(),
                about: "for a test".into(),
                package: "notebook".into(),
                settings: Vec::new(),
            };
            let build = move |_: &Table, _: &BuildContext| -> Result<Box<dyn NegativeSampler>> {
                Ok(Box::new(Scaled(scale)))
            };
            add::<dyn NegativeSampler>(description, |_| Ok(()), build)?;
            let info = &registry::named::<dyn NegativeSampler>("scaled")?.info;
            assert_eq!(facts::of(info).keeps_examples, is_kept);
        }
        Ok(())
    }

    #[test]
    fn names_and_descriptions_are_checked() {
        let said = |name, about| add_one(name, about).unwrap_err().to_string();
        assert!(said("Two Words", "a line").contains("a-z, 0-9"));
        assert!(said("", "a line").contains("a-z, 0-9"));
        assert!(said("word", "").contains("a line about it"));
    }
}
