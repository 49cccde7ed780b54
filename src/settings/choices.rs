//! Enumerations that a setting can have as its type.

use serde::de::{Deserialize, Deserializer, Error};

/// Declares an enumeration for a setting; its values are words in `snake_case`.
///
/// ```
/// onward_core::choices! {
///     /// The order in which layers learn.
///     pub enum Order {
///         /// All layers in every step.
///         Interleaved = "interleaved",
///         /// One layer after the other.
///         Greedy = "greedy",
///     }
/// }
/// use onward_core::settings::SettingValue;
///
/// assert_eq!(Order::describe(), "one of interleaved, greedy");
/// assert_eq!(Order::Greedy.word(), "greedy");
/// ```
#[macro_export]
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $($(#[doc = $help:literal])* $variant:ident = $word:literal),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {$(
            $(#[doc = $help])*
            $variant,
        )*}

        impl $name {
            /// All words, in the order of their declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// Every word with its meaning.
            pub const CHOICES: &'static [$crate::settings::Choice] = &[$(
                $crate::settings::Choice {
                    word: $word,
                    meaning: concat!($($help),*),
                }
            ),*];

            /// The word for it in the configuration.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::export::serde::Serialize for $name {
            fn serialize<S>(&self, serializer: S) -> Result<S::Ok, S::Error>
            where
                S: $crate::export::serde::Serializer,
            {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> $crate::export::serde::Deserialize<'de> for $name {
            fn deserialize<D>(deserializer: D) -> Result<Self, D::Error>
            where
                D: $crate::export::serde::Deserializer<'de>,
            {
                let index = $crate::settings::choices::position(deserializer, Self::WORDS)?;
                Ok([$(Self::$variant),*][index])
            }
        }

        impl $crate::settings::SettingValue for $name {
            fn describe() -> String {
                format!("one of {}", Self::WORDS.join(", "))
            }

            fn choices() -> &'static [$crate::settings::Choice] {
                Self::CHOICES
            }
        }
    };
}

/// The position of a word in a list of words.
#[doc(hidden)]
pub fn position<'de, D: Deserializer<'de>>(
    deserializer: D,
    words: &[&str],
) -> Result<usize, D::Error> {
    let found = String::deserialize(deserializer)?;
    let position = words.iter().position(|word| *word == found);
    position.ok_or_else(|| D::Error::custom(format!("expected one of {}", words.join(", "))))
}
