//! Plugins chosen by name, for all layers or for each layer.

use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use super::SettingValue;
use crate::error::{Error, Result};

/// A kind of plugin: one of the four traits, or a data set.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of plugin",
    label = "this is not a kind of plugin",
    note = "the kinds are dyn GoodnessFn, dyn LocalLayer, dyn NegativeSampler, dyn \
            Architecture, and DataSet"
)]
pub trait PluginKind: 'static {
    /// The word for it in messages and in `onward list`.
    const KIND: &'static str;
}

/// A plugin chosen by name, with its settings.
///
/// In the configuration it is a name, `"sum_squares"`; a table,
/// `{ name = "sum_squares", positive = "low" }`; or `"idx:DIR"` for a plugin with an
/// argument.
pub struct Pick<T: ?Sized> {
    /// The registered name.
    pub name: String,
    /// The given settings.
    pub settings: Table,
    kind: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> Pick<T> {
    /// The plugin called `name` with its default settings.
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

impl<T: PluginKind + ?Sized> SettingValue for Pick<T> {
    fn describe() -> String {
        format!(
            "the name of a registered {0} (`onward list {0}`), or a table with `name` \
             and its settings",
            T::KIND
        )
    }

    fn kind() -> Option<&'static str> {
        Some(T::KIND)
    }
}

/// One value for all layers, or a list with one value per layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Each<T> {
    /// One value for all layers.
    All(T),
    /// One value per layer, starting at the first layer.
    List(Vec<T>),
}

impl<T> Each<T> {
    /// The value for layer `index` of `count`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Setting`] for `key` if it is a list of another length than `count`.
    pub fn of(&self, key: &str, index: usize, count: usize) -> Result<&T>
    where
        T: Serialize,
    {
        match self {
            Self::All(value) => Ok(value),
            Self::List(values) if values.len() == count => Ok(&values[index]),
            Self::List(values) => Err(Error::refused(
                key,
                in_short(&Value::try_from(values).unwrap_or(Value::Array(Vec::new()))),
                format!(
                    "one for all layers, or a list of {count}; found {}",
                    values.len()
                ),
            )),
        }
    }
}

/// A list with plugins by their names alone.
fn in_short(list: &Value) -> String {
    let name = |value: &Value| value.get("name").unwrap_or(value).to_string();
    let names: Vec<String> = list.as_array().into_iter().flatten().map(name).collect();
    format!("[{}]", names.join(", "))
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
