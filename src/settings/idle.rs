//! Settings that have no effect beside others.

use toml::{Table, Value};

/// A setting without an effect, and why.
///
/// A plugin lists them with `.idle(…)` in [`register!`](crate::register), so that
/// people who set one are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Idle {
    /// The key of the setting.
    pub key: &'static str,
    /// The reason, as it stands after a colon.
    pub because: String,
}

impl Idle {
    /// Several settings for one reason.
    pub fn all(keys: &[&'static str], because: impl Into<String>) -> Vec<Self> {
        let because = because.into();
        let idle = |&key: &&'static str| Self {
            key,
            because: because.clone(),
        };
        keys.iter().map(idle).collect()
    }

    /// The epochs after the first, where a network is solved for from the same inputs in
    /// each of them. `settings` are all of a run.
    ///
    /// Inputs differ by augmentation, dropout, and batch normalisation. A head that learns
    /// beside the layers needs the epochs.
    pub fn more_epochs(settings: &Table) -> Vec<Self> {
        let number = |key: &str| settings.get(key).and_then(Value::as_integer);
        let has_head = settings.get("head") != Some(&false.into());
        let is_beside = has_head && number("probe_epochs").unwrap_or(0) == 0;
        if number("epochs").unwrap_or(1) < 2 || is_beside || changes_inputs(settings) {
            return Vec::new();
        }
        let because = "every epoch solves the same equations: one is enough";
        Self::all(&["epochs"], because)
    }
}

fn changes_inputs(settings: &Table) -> bool {
    let is_positive = |value: &Value| {
        let number = value.as_integer().map(|number| number as f64);
        number
            .or(value.as_float())
            .is_some_and(|number| number > 0.)
    };
    settings.iter().any(|(key, value)| match (&**key, value) {
        ("shift" | "dropout", value) => is_positive(value),
        ("flip", value) => *value == true.into(),
        ("norm" | "input_norm", value) => *value == "batch".into(),
        (_, Value::Table(inner)) => changes_inputs(inner),
        (_, Value::Array(all)) => all.iter().filter_map(Value::as_table).any(changes_inputs),
        _ => false,
    })
}
