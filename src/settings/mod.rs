//! Settings: one struct per plugin, every field with its default, range and help text.
//!
//! [`settings!`](macro@crate::settings) declares such a struct,
//! [`choices!`](crate::choices) an enumeration that a setting can have as its type. A
//! struct of settings is a plugin's configuration: it is listed by `onward show`, read
//! from TOML, and written back with every default filled in.

pub mod choices;
mod idle;
pub mod pick;
pub mod range;

use serde::de::DeserializeOwned;
use serde::Serialize;
use toml::{Table, Value};

pub use self::idle::Idle;
pub use self::pick::{Each, Pick, PluginKind};
pub use self::range::{Allowed, Bounded, Finite, Positive};
use crate::error::{nearest, Error, Result};

/// One setting, as `onward show` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key in the configuration.
    pub key: &'static str,
    /// A second key with the same meaning; it is accepted, and never written.
    pub alias: Option<&'static str>,
    /// The default; `None` if the default is derived from other settings.
    pub default: Option<Value>,
    /// The allowed values, in words.
    pub allowed: String,
    /// The help text: what the setting does, its unit, and the source of its default.
    pub help: String,
    /// The kind of plugin, for a setting that names a plugin.
    pub kind: Option<&'static str>,
    /// The values, for a setting that is one of several words.
    pub choices: &'static [Choice],
}

/// A value of a setting that is one of several words.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The word in the configuration.
    pub word: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// A struct of settings, made by [`settings!`](macro@crate::settings).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of settings",
    label = "this was not made by `onward::settings!`",
    note = "declare it within `onward::settings! {{ … }}`"
)]
pub trait Settings: Sized + Default {
    /// The documentation of what is set, in Markdown: that of the struct.
    const DOC: &'static str = "";

    /// All settings in the order of their declaration, with the values of `self` as
    /// defaults.
    fn list(&self) -> Vec<Setting>;

    /// Updates the values that are in a table.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value of another type or out of range.
    fn updated(self, table: &Table) -> Result<Self>;

    /// Writes all values to a table.
    fn write_to(&self, table: &mut Table);

    /// All settings with their defaults.
    fn describe() -> Vec<Setting> {
        Self::default().list()
    }

    /// Reads settings from a table; missing keys get their defaults.
    ///
    /// # Errors
    /// As [`Settings::updated`].
    fn read(table: &Table) -> Result<Self> {
        Self::default().updated(table)
    }
}

/// A type that a setting can have.
#[diagnostic::on_unimplemented(
    message = "a setting cannot be a `{Self}`",
    label = "a setting cannot have this type",
    note = "a setting is a f64, usize, u64, bool or String, a Pick of a plugin, an enum \
            made by `onward::choices!`, or an Option, Vec or Each of one"
)]
pub trait SettingValue: Serialize + DeserializeOwned {
    /// The allowed values, in words: `a whole number`.
    fn describe() -> String;

    /// The kind of plugin, for a type that names a plugin.
    fn kind() -> Option<&'static str> {
        None
    }

    /// The values, for a type made by [`choices!`](crate::choices).
    fn choices() -> &'static [Choice] {
        &[]
    }
}

macro_rules! setting_values {
    ($($type:ty: $words:literal),* $(,)?) => {$(
        impl SettingValue for $type {
            fn describe() -> String {
                $words.to_string()
            }
        }
    )*};
}
setting_values!(
    f64: "a number",
    usize: "a whole number",
    u64: "a whole number",
    bool: "true or false",
    String: "text",
);

impl<T: SettingValue> SettingValue for Vec<T> {
    fn describe() -> String {
        format!("a list, each {}", T::describe())
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    fn describe() -> String {
        T::describe()
    }

    fn kind() -> Option<&'static str> {
        T::kind()
    }

    fn choices() -> &'static [Choice] {
        T::choices()
    }
}

/// Declares a struct of [`Settings`]: every field has a help text, a type, a default and,
/// after `in`, a range.
///
/// A range is a Rust range (`1..`, `0. ..=1.`), [`Positive`] or [`Finite`]. Fields after
/// `..` are groups: structs of settings whose keys are added to the others. Several
/// plugins can share a group, each with its own defaults.
///
/// ```
/// onward_core::settings! {
///     /// Settings of an optimiser.
///     pub struct Descent {
///         /// The learning rate; `rate` is accepted as well.
///         lr | rate: f64 = 0.01, in onward_core::settings::Positive;
///     }
/// }
///
/// onward_core::settings! {
///     /// Settings of a dense layer.
///     pub struct Dense {
///         /// The number of units.
///         units: usize = 1000, in 1..;
///         /// The probability that a unit is dropped in a step.
///         dropout: f64 = 0., in 0. ..1.;
///         .. descent: Descent = Descent { lr: 0.1 };
///     }
/// }
/// use onward_core::settings::Settings;
///
/// assert_eq!(Dense::default().descent.lr, 0.1);
/// assert_eq!(Dense::describe()[1].allowed, "a number, at least 0 and less than 1");
/// assert_eq!(Dense::read(&toml::toml! { lr = 0.5 })?.descent.lr, 0.5);
/// let error = Dense::read(&toml::toml! { dropout = 1.5 }).unwrap_err();
/// assert!(error.to_string().contains("less than 1"));
/// # Ok::<(), onward_core::Error>(())
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident $(| $alias:ident)? : $type:ty = $default:expr $(, in $range:expr)?;
            )*
            $(.. $group:ident : $group_type:ty = $group_default:expr;)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $(
                $(#[doc = $help])+
                pub $field: $type,
            )*
            $(
                #[doc = concat!("Shared settings: see [`", stringify!($group_type), "`].")]
                pub $group: $group_type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($group: $group_default,)*
                }
            }
        }

        impl $crate::settings::Settings for $name {
            const DOC: &'static str = concat!($($doc, "\n"),*);

            fn list(&self) -> Vec<$crate::settings::Setting> {
                #[allow(unused_mut)]
                let mut list: Vec<$crate::settings::Setting> = vec![$(
                    $crate::settings::setting(
                        stringify!($field),
                        $crate::settings!(@alias $($alias)?),
                        &self.$field,
                        $crate::settings!(@words $type $(, $range)?),
                        concat!($($help),+),
                    ),
                )*];
                $(list.extend($crate::settings::Settings::list(&self.$group));)*
                list
            }

            #[allow(unused_variables)]
            fn updated(self, table: &$crate::export::Table) -> $crate::Result<Self> {
                Ok(Self {
                    $($field: {
                        let value = $crate::settings::value(
                            table, stringify!($field), self.$field, || $crate::settings!(@words $type $(, $range)?),
                        )?;
                        $($crate::settings::check(stringify!($field), &value, &($range))?;)?
                        value
                    },)*
                    $($group: $crate::settings::Settings::updated(self.$group, table)?,)*
                })
            }

            #[allow(unused_variables)]
            fn write_to(&self, table: &mut $crate::export::Table) {
                $($crate::settings::write(table, stringify!($field), &self.$field);)*
                $($crate::settings::Settings::write_to(&self.$group, table);)*
            }
        }
    };
    (@alias) => { None };
    (@alias $alias:ident) => { Some(stringify!($alias)) };
    (@words $type:ty) => { <$type as $crate::settings::SettingValue>::describe() };
    (@words $type:ty, $range:expr) => { $crate::settings::in_words::<_, $type>(&($range)) };
    ($($other:tt)*) => {
        compile_error!(
            "`settings!` takes a struct; each setting has a line of help, a type, \
             a default, and, if needed, a range:\n\
             \n    /// What it does.\
             \n    rate: f64 = 0.01, in 0. ..=1.;"
        );
    };
}

#[doc(hidden)]
pub fn setting<T: SettingValue>(
    key: &'static str,
    alias: Option<&'static str>,
    default: &T,
    allowed: String,
    help: &str,
) -> Setting {
    Setting {
        key,
        alias,
        default: Value::try_from(default).ok(),
        allowed,
        help: help.trim().into(),
        kind: T::kind(),
        choices: T::choices(),
    }
}

#[doc(hidden)]
pub fn in_words<S, T: SettingValue + Bounded<S>>(range: &impl Allowed<S>) -> String {
    // A list with a range is not empty.
    let words = T::describe().replacen("a list, each", "a list of one or more, each", 1);
    format!("{words}, {}", range.describe())
}

#[doc(hidden)]
pub fn value<T: SettingValue>(
    table: &Table,
    key: &str,
    default: T,
    expected: impl FnOnce() -> String,
) -> Result<T> {
    let Some(value) = table.get(key) else {
        return Ok(default);
    };
    let read = value.clone().try_into();
    read.map_err(|_| {
        let words = T::choices().iter().map(|choice| choice.word.to_string());
        let words: Vec<String> = words.collect();
        let meant = value.as_str().map(|given| nearest(given, &words));
        let meant = meant.unwrap_or_default().replacen(", ", "; ", 1);
        let expected = expected();
        let more = match value {
            Value::Integer(_) if expected.starts_with("text") => QUOTES,
            value if is_beyond(value) => LIMIT,
            _ => "",
        };
        refused(key, value, expected + &meant + more)
    })
}

/// What is said of a number in the place of text.
const QUOTES: &str = "; with double quotes around it a number is text";

/// What is said of a number that is larger than all whole numbers of a setting.
const LIMIT: &str = "; the largest whole number is 9223372036854775807";

/// Whether a value is a number above the whole numbers of TOML.
fn is_beyond(value: &Value) -> bool {
    let number = value.as_float();
    let number = number.or_else(|| value.as_str()?.parse().ok());
    number.is_some_and(|number| number.is_finite() && number > i64::MAX as f64)
}

#[doc(hidden)]
pub fn check<S, T: SettingValue + Bounded<S>>(
    key: &str,
    value: &T,
    range: &impl Allowed<S>,
) -> Result<()> {
    if value.is_within(range) {
        return Ok(());
    }
    let found = Value::try_from(value).unwrap_or(Value::String(String::new()));
    Err(refused(key, &found, in_words::<S, T>(range)))
}

#[doc(hidden)]
pub fn write<T: SettingValue>(table: &mut Table, key: &str, value: &T) {
    // Nothing is written for a setting without a value.
    if let Ok(value) = Value::try_from(value) {
        table.insert(key.into(), value);
    }
}

fn refused(key: &str, found: &Value, expected: String) -> Error {
    Error::refused(key, found, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::settings! {
        /// Settings that two structs share.
        struct Group {
            /// A rate.
            lr | rate: f64 = 0.01, in Positive;
            /// A bound.
            theta: Option<f64> = None, in Finite;
        }
    }

    crate::settings! {
        /// Settings of a test.
        struct Example {
            /// Widths of layers.
            hidden: Vec<usize> = vec![3], in 1..=10;
            /// A flag.
            flag: bool = true;
            .. group: Group = Group { lr: 0.5, ..Group::default() };
        }
    }

    #[test]
    fn groups_are_listed_read_and_written_with_the_other_settings() {
        let keys: Vec<_> = Example::describe().iter().map(|s| s.key).collect();
        assert_eq!(keys, ["hidden", "flag", "lr", "theta"]);
        assert_eq!(Example::describe()[2].default, Some(Value::Float(0.5)));
        assert_eq!(Group::describe()[0].default, Some(Value::Float(0.01)));

        let read = Example::read(&toml::toml! { hidden = [1, 2] theta = 2.0 }).unwrap();
        assert_eq!((read.group.lr, read.group.theta), (0.5, Some(2.)));
        let mut table = Table::new();
        read.write_to(&mut table);
        let expected = toml::toml! { hidden = [1, 2] flag = true lr = 0.5 theta = 2.0 };
        assert_eq!(table, expected);
    }

    #[test]
    fn values_out_of_range_or_of_another_type_are_refused() {
        let refused = |table: Table| Example::read(&table).unwrap_err().to_string();
        for (table, expected) in [
            (toml::toml! { hidden = [] }, "a list of one or more, each"),
            (
                toml::toml! { hidden = [1, 11] },
                "at least 1 and at most 10",
            ),
            (
                toml::toml! { hidden = "wide" },
                "each a whole number, at least 1 and at most 10",
            ),
            (toml::toml! { lr = 0.0 }, "greater than 0"),
            (toml::toml! { lr = "fast" }, "a number, greater than 0"),
            (toml::toml! { lr = inf }, "greater than 0"),
            (toml::toml! { theta = nan }, "finite"),
            (toml::toml! { flag = 1 }, "true or false"),
        ] {
            let error = refused(table);
            assert!(error.contains(expected), "{error}");
        }
    }
}
