//! Settings that are refused where it is not known who set them.

use std::fmt::Display;

use super::Error;

impl Error {
    /// An [`Error::Setting`] by what does not know the sources, such as a plugin. The builder
    /// of a run names the source that set it.
    pub fn refused(
        key: impl Into<String>,
        value: impl Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::setting(key, value, "", expected)
    }

    /// The same with the origin of the setting, given its key, if it was refused without one.
    pub(crate) fn with_origin(self, of: &dyn Fn(&str) -> Option<String>) -> Self {
        match self {
            Self::Setting {
                key,
                value,
                origin,
                expected,
            } if origin.is_empty() => {
                let origin = of(&key).unwrap_or(origin);
                Self::setting(key, value, origin, expected)
            }
            Self::At { place, source } => Self::At {
                place,
                source: Box::new(source.with_origin(of)),
            },
            other => other,
        }
    }
}
