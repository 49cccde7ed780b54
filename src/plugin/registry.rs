//! Plugins by name: registration, listing, look-up.
//!
//! Registration runs before `main` and costs its author one [`register!`](crate::register). `inventory` promises no
//! order and accepts two plugins of one name; so everything here is sorted by name, and a duplicate is refused with
//! both packages named. A crate that nobody mentions is not linked: a program writes `use the_plugins as _;`.

use toml::Table;

use crate::contract::architecture::Architecture;
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::error::{Error, Located, Result};
use crate::plugin::checked;
use crate::settings::{Pick, Setting};

/// A named set of settings that belong together, as a paper's.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name, as in `--preset nebuly`.
    pub name: &'static str,
    /// Whose settings these are.
    pub about: &'static str,
    /// The settings, as TOML.
    pub settings: &'static str,
}

/// What is known about a plugin without building it.
#[derive(Clone, Copy)]
pub struct Info {
    /// What the configuration calls it, in `snake_case`.
    pub name: &'static str,
    /// One line: what it is and where it was published.
    pub about: &'static str,
    /// The package that registered it.
    pub package: &'static str,
    /// Its settings.
    pub settings: fn() -> Vec<Setting>,
    /// Reads a table of its settings and finds fault with it.
    pub check: fn(&Table) -> Result<()>,
    /// Named sets of settings; the first is the default.
    pub presets: &'static [Preset],
    /// For `name:ARGUMENT`: the setting that the argument is for.
    pub argument: Option<&'static str>,
    /// Settings that belong to that argument: another argument is without them.
    pub beside: &'static [&'static str],
    /// Rewrites shorthands in what one source gives, knowing what the sources before it gave.
    pub shorthand: fn(given: &mut Table, before: &Table) -> Result<()>,
}

/// What a name in the configuration stands for.
pub struct Plugin<T: ?Sized + 'static> {
    /// What is known without building it.
    pub info: Info,
    /// Makes one from its settings, at its place in the run.
    pub build: fn(&Table, &BuildContext) -> Result<Box<T>>,
}

impl<T: ?Sized> Plugin<T> {
    /// Adds named sets of settings; the first is the default.
    pub const fn presets(mut self, presets: &'static [Preset]) -> Self {
        self.info.presets = presets;
        self
    }

    /// Says which setting `name:ARGUMENT` sets.
    pub const fn argument(mut self, key: &'static str) -> Self {
        self.info.argument = Some(key);
        self
    }

    /// Says which settings belong to the argument of `name:ARGUMENT`, as further files do to a file: who names another
    /// argument leaves them.
    pub const fn beside(mut self, keys: &'static [&'static str]) -> Self {
        self.info.beside = keys;
        self
    }

    /// Adds shorthands: see [`Info::shorthand`].
    pub const fn shorthand(mut self, rewrite: fn(&mut Table, &Table) -> Result<()>) -> Self {
        self.info.shorthand = rewrite;
        self
    }
}

/// What puts a guard before a plugin that was built: see [`build`].
pub(crate) trait Checkable {
    /// The same plugin, called `plugin` in messages, its faults being errors.
    fn guard(built: Box<Self>, plugin: String, context: &BuildContext) -> Box<Self>;
}

/// The kinds of plugin there are: the four traits, and data sets.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of plugin",
    label = "this is no kind of plugin",
    note = "the kinds are dyn GoodnessFn, dyn LocalLayer, dyn NegativeSampler, dyn Architecture, and DataSet"
)]
#[allow(private_bounds)] // nobody else adds a kind
pub trait Kind: Checkable + 'static {
    /// The word for it in messages and in `onward list`.
    const KIND: &'static str;

    /// All registered plugins of this kind, in no order.
    fn registered() -> Vec<&'static Plugin<Self>>;
}

macro_rules! kinds {
    ($($kind:ty = $word:literal),*) => {
        $(
            inventory::collect!(Plugin<$kind>);

            impl Kind for $kind {
                const KIND: &'static str = $word;

                fn registered() -> Vec<&'static Plugin<Self>> {
                    inventory::iter::<Plugin<$kind>>().collect()
                }
            }
        )*

        /// The words for the kinds of plugin.
        pub const KINDS: &[&str] = &[$($word),*];

        /// What is registered of the kind with this word, sorted by name.
        ///
        /// # Errors
        /// [`Error::DuplicatePlugin`] if two have one name.
        pub fn infos(kind: &str) -> Result<Vec<&'static Info>> {
            match kind {
                $($word => Ok(all::<$kind>()?.into_iter().map(|plugin| &plugin.info).collect()),)*
                _ => Ok(Vec::new()),
            }
        }
    };
}
kinds!(
    dyn Architecture = "architecture",
    dyn LocalLayer = "layer",
    dyn GoodnessFn = "goodness",
    dyn NegativeSampler = "sampler",
    DataSet = "data"
);

/// All plugins of a kind, sorted by name.
///
/// # Errors
/// [`Error::DuplicatePlugin`] if two have one name.
pub fn all<T: Kind + ?Sized>() -> Result<Vec<&'static Plugin<T>>> {
    sorted(T::KIND, T::registered())
}

fn sorted<T: ?Sized>(
    kind: &'static str,
    mut plugins: Vec<&'static Plugin<T>>,
) -> Result<Vec<&'static Plugin<T>>> {
    plugins.sort_by_key(|plugin| (plugin.info.name, plugin.info.package));
    match plugins
        .windows(2)
        .find(|pair| pair[0].info.name == pair[1].info.name)
    {
        Some(pair) => Err(Error::DuplicatePlugin {
            kind,
            name: pair[0].info.name.into(),
            first: pair[0].info.package.into(),
            second: pair[1].info.package.into(),
        }),
        None => Ok(plugins),
    }
}

/// The plugin of a kind with this name.
///
/// # Errors
/// [`Error::UnknownPlugin`] with the names there are; [`Error::DuplicatePlugin`].
pub fn named<T: Kind + ?Sized>(name: &str) -> Result<&'static Plugin<T>> {
    let plugins = all::<T>()?;
    let found = plugins.iter().find(|plugin| plugin.info.name == name);
    found
        .copied()
        .ok_or_else(|| unknown(T::KIND, name, plugins.iter().map(|plugin| plugin.info.name)))
}

/// What is known of the plugin with this name, of the kind with this word.
///
/// # Errors
/// As [`named`].
pub fn info(kind: &'static str, name: &str) -> Result<&'static Info> {
    let infos = infos(kind)?;
    let found = infos.iter().find(|info| info.name == name);
    found
        .copied()
        .ok_or_else(|| unknown(kind, name, infos.iter().map(|info| info.name)))
}

fn unknown(kind: &'static str, name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    Error::UnknownPlugin {
        kind,
        name: name.into(),
        known: known.map(String::from).collect(),
    }
}

/// Builds what `pick` names, at `context`.
///
/// What is built stands behind a guard: if it panics, or gives something of another shape than its trait says, or
/// something that is not finite for what is, then that is an [`Error::Plugin`] with its name and package.
///
/// # Errors
/// As [`named`], and whatever the plugin says, with its name and package in front.
pub fn build<T: Kind + ?Sized>(pick: &Pick<T>, context: &BuildContext) -> Result<Box<T>> {
    let plugin = named::<T>(&pick.name)?;
    let settings = crate::plugin::config::complete(T::KIND, &plugin.info, pick.settings.clone())?;
    plugin.at(&settings, context)
}

impl<T: Kind + ?Sized> Plugin<T> {
    /// Builds one from all of its settings, as [`build`] does.
    ///
    /// # Errors
    /// Whatever the plugin says, with its name and package in front.
    pub fn at(&self, settings: &Table, context: &BuildContext) -> Result<Box<T>> {
        let called = checked::called(T::KIND, &self.info);
        let built = match checked::attempt(&called, || (self.build)(settings, context)) {
            Err(error @ Error::Plugin { .. }) => return Err(error),
            built => built.at(|| called.clone())?,
        };
        Ok(T::guard(built, called, context))
    }
}

/// Registers a plugin: kind, name, one line about it, and how to build it from its settings.
///
/// ```
/// use onward::{GoodnessFn, Result};
/// use onward::candle_core::Tensor;
///
/// onward::settings! {
///     /// Settings of `max`, which has none.
///     pub struct Max {}
/// }
///
/// impl GoodnessFn for Max {
///     fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
///         Ok(activity.flatten_from(1)?.max(1)?)
///     }
/// }
///
/// onward::register! {
///     dyn GoodnessFn, "max", "largest activity (an example)",
///     |settings: Max, _context| Ok(Box::new(settings))
/// }
/// assert_eq!(onward::plugin::registry::named::<dyn GoodnessFn>("max")?.info.name, "max");
/// # Ok::<(), onward::Error>(())
/// ```
///
/// More can be said of it behind the closure: `, .presets(&[…]).argument("dir")`, see [`Plugin`]. A name that the
/// configuration could not use, or no line about the plugin, is an error of the compiler's.
#[macro_export]
macro_rules! register {
    (
        $kind:ty, $name:literal, $about:expr,
        |$settings:ident : $type:ty, $context:pat_param| $build:expr $(, $($more:tt)+)?
    ) => {
        const _: () = $crate::plugin::registry::is_a_kind::<$kind>();
        $crate::export::inventory::submit! {
            $crate::plugin::registry::Plugin::<$kind> {
                info: $crate::plugin::registry::Info {
                    name: $crate::plugin::registry::is_a_name($name),
                    about: $crate::plugin::registry::is_a_line($about),
                    package: env!("CARGO_PKG_NAME"),
                    settings: <$type as $crate::settings::Settings>::describe,
                    check: |table| <$type as $crate::settings::Settings>::read(table).map(|_| ()),
                    presets: &[],
                    argument: None,
                    beside: &[],
                    shorthand: |_, _| Ok(()),
                },
                build: |table, $context| {
                    let $settings = <$type as $crate::settings::Settings>::read(table)?;
                    $build
                },
            } $($($more)+)?
        }
    };
    ($($other:tt)*) => {
        compile_error!(
            "`register!` takes the kind of plugin, its name, a line about it, and how it is built from its settings:\n\
             \n    dyn GoodnessFn, \"name\", \"what it is, and the paper\",\
             \n    |settings: MySettings, context| Ok(Box::new(MyGoodness::new(settings, context)?))"
        );
    };
}

#[doc(hidden)]
pub const fn is_a_kind<T: Kind + ?Sized>() {}

#[doc(hidden)]
pub const fn is_a_name(name: &'static str) -> &'static str {
    let (bytes, mut index) = (name.as_bytes(), 0);
    assert!(!bytes.is_empty(), "a plugin needs a name");
    while index < bytes.len() {
        let fits = matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        assert!(
            fits,
            "the name of a plugin has no other characters than a-z, 0-9, _ and -"
        );
        index += 1;
    }
    name
}

#[doc(hidden)]
pub const fn is_a_line(about: &'static str) -> &'static str {
    assert!(
        !about.is_empty(),
        "a plugin needs a line about it: what it is, and where it was published"
    );
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn plugin(name: &'static str, package: &'static str) -> Plugin<dyn GoodnessFn> {
        let info = Info {
            name,
            about: "",
            package,
            settings: Vec::new,
            check: |_| Ok(()),
            presets: &[],
            argument: None,
            beside: &[],
            shorthand: |_, _| Ok(()),
        };
        Plugin {
            info,
            build: |_, _| {
                Err(Error::Mismatch {
                    place: "test".into(),
                    problem: "not built".into(),
                })
            },
        }
    }

    static TWO: Plugin<dyn GoodnessFn> = plugin("b", "two");
    static ONE: Plugin<dyn GoodnessFn> = plugin("a", "one");
    static THREE: Plugin<dyn GoodnessFn> = plugin("a", "three");
    static FOUR: Plugin<dyn GoodnessFn> = plugin("c", "four");

    /// Three plugins in every order in which they may be linked.
    fn orders(
        of: [&'static Plugin<dyn GoodnessFn>; 3],
    ) -> Vec<Vec<&'static Plugin<dyn GoodnessFn>>> {
        [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ]
        .map(|order| order.map(|index| of[index]).to_vec())
        .to_vec()
    }

    #[test]
    fn plugins_are_sorted_by_name_in_whatever_order_they_are_linked() {
        for order in orders([&FOUR, &TWO, &ONE]) {
            let names: Vec<_> = sorted("goodness", order)
                .unwrap()
                .iter()
                .map(|p| p.info.name)
                .collect();
            assert_eq!(names, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_duplicate_is_refused_with_both_packages_named_in_whatever_order_they_are_linked() {
        for order in orders([&THREE, &TWO, &ONE]) {
            let error = sorted("goodness", order).err().unwrap().to_string();
            assert!(
                error.contains("one in package one, one in package three"),
                "{error}"
            );
        }
    }
}
