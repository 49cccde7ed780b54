//! Settings: one struct per plugin, every field with its default, range and line of help.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use crate::error::{Error, Result};

/// One setting, as `onward show` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The word in the configuration.
    pub key: &'static str,
    /// Another word for the same, accepted and never written.
    pub alias: Option<&'static str>,
    /// The value it has if nobody sets it; `None` where it is then derived from other settings.
    pub default: Option<Value>,
    /// What is allowed, in words.
    pub allowed: String,
    /// What it does, its unit, and whose number the default is.
    pub help: String,
    /// For a setting that names a plugin: of which kind.
    pub kind: Option<&'static str>,
}

/// A struct of settings, made by [`settings!`](macro@crate::settings).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no struct of settings",
    label = "this was not made by `onward::settings!`",
    note = "declare it within `onward::settings! {{ … }}`"
)]
pub trait Settings: Sized + Default + Serialize {
    /// All settings, in the order in which they were declared.
    fn describe() -> Vec<Setting>;

    /// The settings in a table; keys that are missing get their defaults.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value of another type or out of range.
    fn read(table: &Table) -> Result<Self>;
}

/// A type that a setting can have.
#[diagnostic::on_unimplemented(
    message = "a setting cannot be a `{Self}`",
    label = "this is no type of a setting",
    note = "a setting is a f64, usize, u64, bool or String, a Pick of a plugin, an enum made by `onward::choices!`, or an \
            Option, Vec or Each of one"
)]
pub trait SettingValue: Serialize + DeserializeOwned {
    /// What is allowed, in words: `a whole number`.
    fn describe() -> String;

    /// For a name of a plugin: of which kind.
    fn kind() -> Option<&'static str> {
        None
    }
}

macro_rules! setting_value {
    ($($type:ty: $words:literal),*) => {$(
        impl SettingValue for $type {
            fn describe() -> String {
                $words.to_string()
            }
        }
    )*};
}
setting_value!(f64: "a number", usize: "a whole number", u64: "a whole number", bool: "true or false", String: "some text");

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
}

/// Values that a range can be asked about; a list has to be within it element by element, and not empty.
pub trait Within<S> {
    /// Whether `bounds` contain the value.
    fn within(&self, bounds: &impl RangeBounds<S>) -> bool;
}

impl Within<f64> for f64 {
    fn within(&self, bounds: &impl RangeBounds<f64>) -> bool {
        self.is_finite() && bounds.contains(self)
    }
}

impl Within<usize> for usize {
    fn within(&self, bounds: &impl RangeBounds<usize>) -> bool {
        bounds.contains(self)
    }
}

impl<S, T: Within<S>> Within<S> for Vec<T> {
    fn within(&self, bounds: &impl RangeBounds<S>) -> bool {
        !self.is_empty() && self.iter().all(|value| value.within(bounds))
    }
}

impl<S, T: Within<S>> Within<S> for Option<T> {
    fn within(&self, bounds: &impl RangeBounds<S>) -> bool {
        self.as_ref().is_none_or(|value| value.within(bounds))
    }
}

/// A plugin chosen by name, with settings of its own: `"sum_squares"`, or `{ name = "sum_squares", positive = "low" }`,
/// or `"idx:DIR"` where the plugin says which setting stands behind the colon.
pub struct Pick<T: ?Sized> {
    /// The registered name.
    pub name: String,
    /// The settings that were given to it.
    pub settings: Table,
    kind: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Pick<T> {
    /// The plugin called `name`, as it comes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            settings: Table::new(),
            kind: PhantomData,
        }
    }
}

impl<T: ?Sized> From<&str> for Pick<T> {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl<T: ?Sized> Clone for Pick<T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            settings: self.settings.clone(),
            kind: PhantomData,
        }
    }
}

impl<T: ?Sized> PartialEq for Pick<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.settings == other.settings
    }
}

impl<T: ?Sized> std::fmt::Debug for Pick<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.settings)
    }
}

impl<T: ?Sized> Serialize for Pick<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.settings.is_empty() {
            return self.name.serialize(serializer);
        }
        let mut table = self.settings.clone();
        table.insert("name".into(), Value::String(self.name.clone()));
        table.serialize(serializer)
    }
}

impl<'de, T: ?Sized> Deserialize<'de> for Pick<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut settings = match Value::deserialize(deserializer)? {
            Value::String(name) => return Ok(Self::new(name)),
            Value::Table(table) => table,
            _ => {
                return Err(D::Error::custom(
                    "expected a name, or a table with a `name`",
                ))
            }
        };
        match settings.remove("name") {
            Some(Value::String(name)) => Ok(Self {
                name,
                settings,
                kind: PhantomData,
            }),
            _ => Err(D::Error::custom("expected a table with a `name`")),
        }
    }
}

impl<T: crate::plugin::registry::Kind + ?Sized> SettingValue for Pick<T> {
    fn describe() -> String {
        format!("the name of a registered {0} (`onward list {0}`), or a table with `name` and its settings", T::KIND)
    }

    fn kind() -> Option<&'static str> {
        Some(T::KIND)
    }
}

/// One value for all layers, or a list with one for each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Each<T> {
    /// The same for all.
    All(T),
    /// One for each, from the first on.
    List(Vec<T>),
}

impl<T> Each<T> {
    /// That of layer `index` of `count`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Setting`] for `key` if there is a list, and not of `count`.
    pub fn of(&self, key: &str, index: usize, count: usize) -> Result<&T>
    where
        T: Serialize,
    {
        match self {
            Self::All(value) => Ok(value),
            Self::List(values) if values.len() == count => Ok(&values[index]),
            Self::List(values) => {
                let found = Value::try_from(values).unwrap_or(Value::Array(Vec::new()));
                let expected = format!(
                    "one for all layers, or a list of {count}, one for each; found {}",
                    values.len()
                );
                Err(unfit(key, &found, expected))
            }
        }
    }
}

impl<T> From<&str> for Each<T>
where
    T: for<'a> From<&'a str>,
{
    fn from(name: &str) -> Self {
        Self::All(name.into())
    }
}

impl<T: SettingValue> SettingValue for Each<T> {
    fn describe() -> String {
        format!("{}; or a list of them, one for each layer", T::describe())
    }

    fn kind() -> Option<&'static str> {
        T::kind()
    }
}

/// Declares a struct of [`Settings`]: for every field a line of help, a type, a default and, after `in`, a range.
///
/// ```
/// onward::settings! {
///     /// Settings of a dense layer.
///     pub struct Dense {
///         /// How many units.
///         units: usize = 1000, in 1..;
///         /// Probability that a unit is silenced in a step.
///         dropout: f64 = 0., in 0. ..1.;
///         /// `rate` is accepted as well.
///         lr | rate: f64 = 0.01, in f64::MIN_POSITIVE..;
///     }
/// }
/// use onward::settings::Settings;
/// assert_eq!(Dense::default().units, 1000);
/// assert_eq!(Dense::describe()[1].allowed, "a number, at least 0 and less than 1");
/// let error = Dense::read(&toml::toml! { dropout = 1.5 }).unwrap_err();
/// assert!(error.to_string().contains("less than 1"));
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {$(
            $(#[doc = $help:literal])+
            $field:ident $(| $alias:ident)? : $type:ty = $default:expr $(, in $range:expr)?;
        )*}
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, $crate::export::serde::Serialize, $crate::export::serde::Deserialize)]
        #[serde(crate = "onward_core::export::serde", default, deny_unknown_fields)]
        $vis struct $name {$(
            $(#[doc = $help])+
            pub $field: $type,
        )*}

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::settings::Settings for $name {
            fn describe() -> Vec<$crate::settings::Setting> {
                let defaults = Self::default();
                let _ = &defaults;
                vec![$(
                    $crate::settings::setting(
                        stringify!($field),
                        $crate::settings!(@alias $($alias)?),
                        &defaults.$field,
                        $crate::settings!(@range $($range)?),
                        concat!($($help),+),
                    ),
                )*]
            }

            fn read(table: &$crate::export::Table) -> $crate::Result<Self> {
                let defaults = Self::default();
                let _ = (table, &defaults);
                Ok(Self {$(
                    $field: {
                        let value = $crate::settings::value(table, stringify!($field), defaults.$field)?;
                        $($crate::settings::check(stringify!($field), &value, &($range))?;)?
                        value
                    },
                )*})
            }
        }
    };
    (@alias) => { None };
    (@alias $alias:ident) => { Some(stringify!($alias)) };
    (@range) => { None };
    (@range $range:expr) => { Some($crate::settings::words(&($range))) };
    ($($other:tt)*) => {
        compile_error!(
            "`settings!` takes a struct; every setting has a line of help, a type, a default, and a range if need be:\n\
             \n    /// What it does.\
             \n    rate: f64 = 0.01, in 0. ..=1.;"
        );
    };
}

/// Declares an enumeration whose names are the values of a setting, in `snake_case`.
///
/// ```
/// onward::choices! {
///     /// In what order the layers learn.
///     pub enum Order {
///         /// All of them in every step.
///         Interleaved = "interleaved",
///         /// One after the other.
///         Greedy = "greedy",
///     }
/// }
/// use onward::settings::SettingValue;
/// assert_eq!(Order::describe(), "one of interleaved, greedy");
/// ```
#[macro_export]
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            $crate::export::serde::Serialize, $crate::export::serde::Deserialize,
        )]
        #[serde(crate = "onward_core::export::serde")]
        $vis enum $name {$(
            $(#[$doc])*
            #[serde(rename = $word)]
            $variant,
        )*}

        impl $crate::settings::SettingValue for $name {
            fn describe() -> String {
                format!("one of {}", [$($word),*].join(", "))
            }
        }
    };
}

#[doc(hidden)]
pub fn setting<T: SettingValue>(
    key: &'static str,
    alias: Option<&'static str>,
    default: &T,
    range: Option<String>,
    help: &str,
) -> Setting {
    let allowed = [Some(T::describe()), range]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    Setting {
        key,
        alias,
        default: Value::try_from(default).ok(),
        allowed,
        help: help.trim().into(),
        kind: T::kind(),
    }
}

#[doc(hidden)]
pub fn value<T: SettingValue>(table: &Table, key: &str, default: T) -> Result<T> {
    match table.get(key) {
        None => Ok(default),
        Some(value) => value
            .clone()
            .try_into()
            .map_err(|_| unfit(key, value, T::describe())),
    }
}

#[doc(hidden)]
pub fn check<S: Display + PartialOrd + Into<Number> + Copy, T: Within<S> + SettingValue>(
    key: &str,
    value: &T,
    range: &impl RangeBounds<S>,
) -> Result<()> {
    if value.within(range) {
        return Ok(());
    }
    let found = Value::try_from(value).unwrap_or(Value::String(String::new()));
    Err(unfit(
        key,
        &found,
        format!("{}, {}", T::describe(), words(range)),
    ))
}

fn unfit(key: &str, found: &Value, expected: String) -> Error {
    Error::Setting {
        key: key.into(),
        value: found.to_string(),
        origin: "the settings".into(),
        expected,
    }
}

#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Number {
    Whole(usize),
    Real(f64),
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// A range in words: the smallest positive number as a bound reads "greater than 0", the lowest of all "finite".
#[doc(hidden)]
pub fn words<S: Display + Into<Number> + Copy>(range: &impl RangeBounds<S>) -> String {
    let start = match range.start_bound() {
        Bound::Included(&start) if matches!(start.into(), Number::Real(f64::MIN_POSITIVE)) => {
            Some("greater than 0".to_string())
        }
        Bound::Included(&start) if matches!(start.into(), Number::Real(f64::MIN)) => {
            Some("finite".to_string())
        }
        Bound::Included(start) => Some(format!("at least {start}")),
        Bound::Excluded(start) => Some(format!("greater than {start}")),
        Bound::Unbounded => None,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => Some(format!("at most {end}")),
        Bound::Excluded(end) => Some(format!("less than {end}")),
        Bound::Unbounded => None,
    };
    [start, end]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ")
}
