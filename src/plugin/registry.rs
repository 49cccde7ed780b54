//! Plugins by name: registration, listing, look-up.
//!
//! Registration runs before `main`; a plugin needs one call of
//! [`register!`](crate::register). `inventory` promises no order and accepts two plugins
//! of one name. Therefore lists are sorted by name here, and duplicates are refused
//! with both packages named. A crate that a program does not mention is not linked: the
//! program writes `use the_plugins as _;`. [`add`](super::add) registers a plugin while
//! the program runs.

use toml::Table;

use crate::contract::architecture::Architecture;
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::layer::LocalLayer;
use crate::contract::sampler::NegativeSampler;
use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::plugin::added::Added;
use crate::plugin::checked::Checkable;
use crate::plugin::preset::{self, Preset};
use crate::settings::{Idle, PluginKind, Setting};

/// The description of a plugin, available without building it.
#[derive(Clone, Copy)]
pub struct Info {
    /// The word for its kind, such as `goodness`.
    pub kind: &'static str,
    /// The name in the configuration, in `snake_case`.
    pub name: &'static str,
    /// One line: what the plugin is and where it was published.
    pub about: &'static str,
    /// The package that registered it.
    pub package: &'static str,
    /// Its documentation, in Markdown: that of its settings.
    pub doc: &'static str,
    /// The settings.
    pub settings: &'static Describe,
    /// Reads a table of settings and reports errors.
    pub check: &'static Check,
    /// The presets of its own file; [`Info::presets`] has those of other files too.
    pub own_presets: &'static [Preset],
    /// The setting that `name:ARGUMENT` sets.
    pub argument: Option<&'static str>,
    /// The other settings that are paths of files and folders, or lists of them.
    pub paths: &'static [&'static str],
    /// Adjusts the settings of a source before they are merged: see [`Plugin::rewrite`].
    pub rewrite: Rewrite,
    /// The presets of an architecture for data that look so.
    pub suits: &'static [(DataKind, &'static str)],
    /// For a data set: see [`Plugin::look`].
    pub look: Option<Look>,
    /// The settings that its look may choose.
    pub looked_at: &'static [&'static str],
    /// The settings that a run keeps: see [`Plugin::fixed`].
    pub fixed: &'static [&'static str],
    /// The settings that have no effect beside others: see [`Plugin::idle`].
    pub idle: FindIdle,
    /// For an architecture: see [`Plugin::reads`].
    pub reads: &'static [&'static str],
    /// For an architecture: see [`Plugin::of_text`].
    pub of_text: bool,
}

impl Info {
    /// What every plugin has; the options are added with the methods of [`Plugin`].
    #[doc(hidden)]
    pub const fn new(
        kind: &'static str,
        name: &'static str,
        about: &'static str,
        package: &'static str,
        doc: &'static str,
        settings: &'static Describe,
        check: &'static Check,
    ) -> Self {
        Self {
            kind,
            name,
            about,
            package,
            doc,
            settings,
            check,
            own_presets: &[],
            argument: None,
            paths: &[],
            rewrite: |_, _| Ok(()),
            suits: &[],
            look: None,
            looked_at: &[],
            fixed: &[],
            idle: |_, _| Ok(Vec::new()),
            reads: &[],
            of_text: false,
        }
    }

    /// Named sets of settings: its own, of which the first is the default, then those
    /// that [`preset!`](crate::preset) added, sorted by name.
    pub fn presets(&self) -> Vec<&'static Preset> {
        let own = self.own_presets.iter();
        own.chain(preset::added_to(self.kind, self.name)).collect()
    }
}

/// Lists the settings of a plugin.
pub type Describe = dyn Fn() -> Vec<Setting> + Send + Sync;

/// Reads a table of settings and reports errors.
pub type Check = dyn Fn(&Table) -> Result<()> + Send + Sync;

/// Builds a plugin from its settings and its context.
pub type Build<T> = dyn Fn(&Table, &BuildContext) -> Result<Box<T>> + Send + Sync;

/// Adjusts the settings `given` by one source, and those merged from the sources `before`
/// it.
pub type Rewrite = fn(given: &mut Table, before: &mut Table) -> Result<()>;

/// The settings without an effect, given the plugin's own settings and all settings of
/// the run, both complete.
pub type FindIdle = fn(own: &Table, all: &Table) -> Result<Vec<Idle>>;

/// Looks at the files of a data set with these settings: what kind they are of, and the
/// settings of the data that suit it.
pub type Look = fn(&Table) -> Option<(DataKind, Table)>;

/// A kind of data, for which an architecture may have a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Photographs in colour.
    Photographs,
    /// A text of less than half a megabyte.
    Book,
    /// A text of half a megabyte or more.
    Corpus,
    /// Such a text, divided into characters.
    Characters,
}

impl DataKind {
    /// What is said to people who get the preset.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Photographs => "the pictures are colour photographs",
            Self::Book => "the text has less than half a megabyte",
            Self::Corpus => "the text has half a megabyte or more",
            Self::Characters => "the text has half a megabyte or more, in characters",
        }
    }
}

/// A registered plugin: its description and its constructor.
pub struct Plugin<T: ?Sized + 'static> {
    /// The description.
    pub info: Info,
    /// Builds the plugin from its settings and its context.
    pub build: &'static Build<T>,
}

impl<T: ?Sized> Plugin<T> {
    /// Adds presets; the first is the default.
    pub const fn presets(mut self, presets: &'static [Preset]) -> Self {
        self.info.own_presets = presets;
        self
    }

    /// Names the setting that `name:ARGUMENT` sets.
    pub const fn argument(mut self, key: &'static str) -> Self {
        self.info.argument = Some(key);
        self
    }

    /// Names the settings of a data set that are paths, beside that of its argument. A run
    /// keeps whole paths, so that it can be resumed from any folder.
    pub const fn paths(mut self, keys: &'static [&'static str]) -> Self {
        self.info.paths = keys;
        self
    }

    /// Adjusts the settings of a source before they are merged: replaces shorthands by
    /// settings, or removes settings from `before` that no longer apply.
    pub const fn rewrite(mut self, rewrite: Rewrite) -> Self {
        self.info.rewrite = rewrite;
        self
    }

    /// Names the presets of an architecture for some kinds of data. They are used where
    /// the data are such and no other network is chosen.
    pub const fn suits(mut self, presets: &'static [(DataKind, &'static str)]) -> Self {
        self.info.suits = presets;
        self
    }

    /// Lets a data set look at its files: the function gets the settings that were given,
    /// and returns the kind of the data with those of `settings` that suit it, or `None`
    /// for other data. They are used with every network. Files that cannot be read are
    /// reported later.
    pub const fn look(mut self, settings: &'static [&'static str], look: Look) -> Self {
        self.info.looked_at = settings;
        self.info.look = Some(look);
        self
    }

    /// Names the settings of a data set that cannot change when a run is resumed, since the
    /// run has kept what they chose, such as a tokenizer.
    pub const fn fixed(mut self, settings: &'static [&'static str]) -> Self {
        self.info.fixed = settings;
        self
    }

    /// Lists the settings that have no effect beside others, so that people who set one
    /// are told. A key that is none of the plugin's own settings is one of the
    /// architecture, such as the `loss` beside a goodness that computes its own.
    pub const fn idle(mut self, idle: FindIdle) -> Self {
        self.info.idle = idle;
        self
    }

    /// Names settings that an architecture reads itself, whatever its plugins ignore.
    pub const fn reads(mut self, keys: &'static [&'static str]) -> Self {
        self.info.reads = keys;
        self
    }

    /// Says that an architecture learns from text alone, so that other data are refused in
    /// its name, and not in that of a sampler.
    pub const fn of_text(mut self) -> Self {
        self.info.of_text = true;
        self
    }
}

/// A kind of plugin that is collected from all linked crates.
pub trait Registered: PluginKind + Checkable {
    /// The plugins of this kind in the linked crates, in no particular order.
    fn linked() -> Vec<&'static Plugin<Self>>;

    /// Those that [`add`](super::add) added.
    #[doc(hidden)]
    fn added() -> &'static Added<Self>;

    /// All registered plugins of this kind, in no particular order.
    fn registered() -> Vec<&'static Plugin<Self>> {
        [Self::linked(), Self::added().list()].concat()
    }
}

macro_rules! kinds {
    ($($kind:ty = $word:literal),* $(,)?) => {
        $(
            inventory::collect!(Plugin<$kind>);

            impl PluginKind for $kind {
                const KIND: &'static str = $word;
            }

            impl Registered for $kind {
                fn linked() -> Vec<&'static Plugin<Self>> {
                    inventory::iter::<Plugin<$kind>>().collect()
                }

                fn added() -> &'static Added<Self> {
                    static ADDED: Added<$kind> = Added::new();
                    &ADDED
                }
            }
        )*

        /// The words for the kinds of plugin.
        pub const KINDS: &[&str] = &[$($word),*];

        /// The descriptions of all plugins of a kind, sorted by name.
        ///
        /// # Errors
        /// [`Error::DuplicatePlugin`] if two have the same name.
        pub fn infos(kind: &str) -> Result<Vec<&'static Info>> {
            match kind {
                $($word => Ok(all::<$kind>()?.iter().map(|plugin| &plugin.info).collect()),)*
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
    DataSet = "data",
);

/// All plugins of a kind, sorted by name.
///
/// # Errors
/// [`Error::DuplicatePlugin`] if two have the same name.
pub fn all<T: Registered + ?Sized>() -> Result<Vec<&'static Plugin<T>>> {
    sorted(T::KIND, T::registered())
}

fn sorted<T: ?Sized>(
    kind: &'static str,
    mut plugins: Vec<&'static Plugin<T>>,
) -> Result<Vec<&'static Plugin<T>>> {
    plugins.sort_by_key(|plugin| (plugin.info.name, plugin.info.package));
    for pair in plugins.windows(2) {
        let [first, second] = [&pair[0].info, &pair[1].info];
        if first.name == second.name {
            return Err(Error::DuplicatePlugin {
                kind,
                name: first.name.into(),
                first: first.package.into(),
                second: second.package.into(),
            });
        }
    }
    Ok(plugins)
}

/// The plugin of a kind with this name.
///
/// # Errors
/// [`Error::UnknownPlugin`] with the known names; [`Error::DuplicatePlugin`].
pub fn named<T: Registered + ?Sized>(name: &str) -> Result<&'static Plugin<T>> {
    find(T::KIND, name, all::<T>()?, |plugin| plugin.info.name)
}

/// The description of the plugin with this name, of the kind with this word.
///
/// # Errors
/// As [`named`].
pub fn info(kind: &'static str, name: &str) -> Result<&'static Info> {
    find(kind, name, infos(kind)?, |info| info.name)
}

fn find<P: Copy>(
    kind: &'static str,
    name: &str,
    among: Vec<P>,
    name_of: impl Fn(&P) -> &'static str,
) -> Result<P> {
    let found = among.iter().find(|plugin| name_of(plugin) == name);
    found.copied().ok_or_else(|| {
        let is_there = |other: &'static str| {
            let others = infos(other).unwrap_or_default();
            other != kind && others.into_iter().any(|info| info.name == name)
        };
        if let Some(other) = KINDS.iter().copied().find(|other| is_there(other)) {
            let flag = if other == "data" {
                format!("--data {name}")
            } else {
                format!("--set {other}={name}")
            };
            let expected = format!("a name of that kind; {name} is of the kind {other}: {flag}");
            return Error::refused(kind, format!("{name:?}"), expected);
        }
        if kind == <dyn Architecture>::KIND {
            if let Some(meant) = as_preset(name) {
                let expected = format!("an architecture; {name} is a preset {meant}");
                return Error::refused(kind, format!("{name:?}"), expected);
            }
        }
        Error::UnknownPlugin {
            kind,
            name: name.into(),
            known: among
                .iter()
                .map(|plugin| name_of(plugin).to_string())
                .collect(),
        }
    })
}

/// The architectures that have a preset, `PRESET` or `ARCHITECTURE:PRESET`, and the command
/// for one.
fn as_preset(name: &str) -> Option<String> {
    let (architecture, preset) = match name.split_once(':') {
        Some((architecture, preset)) => (Some(architecture), preset),
        None => (None, name),
    };
    let infos = infos(<dyn Architecture>::KIND).ok()?.into_iter();
    let asked = infos.filter(|info| architecture.is_none_or(|name| name == info.name));
    let with = asked.filter(|info| info.presets().iter().any(|known| known.name == preset));
    let with: Vec<&str> = with.map(|info| info.name).collect();
    let first = with.first()?;
    let all = with.join(", ");
    Some(format!("of {all}: onward train {first} --preset {preset}"))
}

/// Registers a plugin: its kind, name, one-line description, and constructor.
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
/// let plugin = onward::plugin::registry::named::<dyn GoodnessFn>("max")?;
/// assert_eq!(plugin.info.name, "max");
/// # Ok::<(), onward::Error>(())
/// ```
///
/// Options follow the closure: `, .presets(&[…]).argument("dir")`, see [`Plugin`]. An
/// invalid name or an empty description is a compile error.
#[macro_export]
macro_rules! register {
    (
        $kind:ty, $name:literal, $about:expr,
        |$settings:ident : $type:ty, $context:pat_param| $build:expr $(, $($more:tt)+)?
    ) => {
        $crate::export::inventory::submit! {
            $crate::plugin::registry::Plugin::<$kind> {
                info: $crate::plugin::registry::Info::new(
                    $crate::plugin::registry::is_a_kind::<$kind>(),
                    $crate::plugin::registry::is_a_name($name),
                    $crate::plugin::registry::is_a_line($about),
                    env!("CARGO_PKG_NAME"),
                    <$type as $crate::settings::Settings>::DOC,
                    &<$type as $crate::settings::Settings>::describe,
                    &|table| <$type as $crate::settings::Settings>::read(table).map(|_| ()),
                ),
                build: &|table, $context| {
                    let $settings = <$type as $crate::settings::Settings>::read(table)?;
                    $build
                },
            } $($($more)+)?
        }
    };
    ($($other:tt)*) => {
        compile_error!(
            "`register!` takes the kind of plugin, its name, a line about it, and how \
             it is built from its settings:\n\
             \n    dyn GoodnessFn, \"name\", \"what it is, and the paper\",\
             \n    |settings: MySettings, context| Ok(Box::new(MyGoodness::new(settings, context)?))"
        );
    };
}

#[doc(hidden)]
pub const fn is_a_kind<T: PluginKind + ?Sized>() -> &'static str {
    T::KIND
}

#[doc(hidden)]
pub const fn is_a_name(name: &'static str) -> &'static str {
    let (bytes, mut index) = (name.as_bytes(), 0);
    assert!(!bytes.is_empty(), "a plugin needs a name");
    while index < bytes.len() {
        assert!(
            is_of_a_name(bytes[index]),
            "the name of a plugin has no other characters than a-z, 0-9, _ and -"
        );
        index += 1;
    }
    name
}

/// Whether a name may have this character.
pub(super) const fn is_of_a_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
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
mod tests;
