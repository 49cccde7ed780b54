//! Settings that have no effect beside others.

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
}
