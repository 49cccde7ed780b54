//! Presets: named sets of settings.

use crate::error::{Error, Result};
use crate::plugin::registry::Info;

/// A named set of settings that belong together, such as those of a paper.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name, as in `--preset nebuly`.
    pub name: &'static str,
    /// The paper or program of these settings.
    pub about: &'static str,
    /// The settings, as TOML.
    pub settings: &'static str,
}

/// A preset that a file adds to a plugin of another file or package.
#[doc(hidden)]
pub struct Added {
    pub kind: &'static str,
    pub plugin: &'static str,
    pub package: &'static str,
    pub preset: Preset,
}

inventory::collect!(Added);

/// The presets that were added to a plugin, sorted by name.
pub(super) fn added_to(kind: &str, plugin: &str) -> Vec<&'static Preset> {
    let all = inventory::iter::<Added>();
    let of_plugin = all.filter(|added| added.kind == kind && added.plugin == plugin);
    let mut presets: Vec<&'static Added> = of_plugin.collect();
    presets.sort_by_key(|added| (added.preset.name, added.package));
    presets.into_iter().map(|added| &added.preset).collect()
}

/// The preset of a plugin with this name, if there is one.
///
/// # Errors
/// [`Error::DuplicatePlugin`] if two have the name.
pub(super) fn named(info: &Info, name: &str) -> Result<Option<&'static Preset>> {
    let presets = info.presets();
    let mut found = presets.into_iter().filter(|preset| preset.name == name);
    let first = found.next();
    if found.next().is_some() {
        let all = inventory::iter::<Added>().filter(|added| {
            (added.kind, added.plugin, added.preset.name) == (info.kind, info.name, name)
        });
        let mut packages: Vec<&str> = all.map(|added| added.package).collect();
        if info.own_presets.iter().any(|own| own.name == name) {
            packages.push(info.package);
        }
        packages.sort_unstable();
        return Err(Error::DuplicatePlugin {
            kind: "preset",
            name: name.into(),
            first: packages[0].into(),
            second: packages[1].into(),
        });
    }
    Ok(first)
}

/// Adds a preset to a plugin of another file or package: the kind and name of the plugin,
/// then name, description and settings of the preset. So a rule can bring the settings of
/// its paper in its own file. The preset is used instead of the default one, so it names
/// the sampler too.
///
/// ```
/// onward::preset! {
///     dyn onward::Architecture, "progressive", "small", "one layer of 50 units (an example)",
///     "hidden = [50]\nsampler = \"label_overlay\""
/// }
/// let run = onward::Run::builder("progressive").preset("small").data("digits").build()?;
/// assert_eq!(run.architecture().net().blocks.len(), 1);
/// # Ok::<(), onward::Error>(())
/// ```
#[macro_export]
macro_rules! preset {
    ($kind:ty, $plugin:literal, $name:literal, $about:expr, $settings:expr $(,)?) => {
        $crate::export::inventory::submit! {
            $crate::plugin::preset::Added {
                kind: $crate::plugin::registry::is_a_kind::<$kind>(),
                plugin: $plugin,
                package: env!("CARGO_PKG_NAME"),
                preset: $crate::plugin::preset::Preset {
                    name: $crate::plugin::registry::is_a_name($name),
                    about: $crate::plugin::registry::is_a_line($about),
                    settings: $settings,
                },
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn twice(package: &'static str) -> Added {
        Added {
            kind: "goodness",
            plugin: "toy",
            package,
            preset: Preset {
                name: "twice",
                about: "registered twice, for this test",
                settings: "",
            },
        }
    }

    inventory::submit! { twice("one") }
    inventory::submit! { twice("two") }
    crate::preset! {
        dyn crate::GoodnessFn, "toy", "once", "registered once, for this test", ""
    }

    fn toy() -> Info {
        Info::new("goodness", "toy", "", "tests", "", &Vec::new, &|_| Ok(()))
    }

    #[test]
    fn added_presets_are_found_by_kind_and_name() {
        let names: Vec<_> = toy().presets().iter().map(|preset| preset.name).collect();
        assert_eq!(names, ["once", "twice", "twice"]);
        assert_eq!(named(&toy(), "once").unwrap().unwrap().name, "once");
        assert!(named(&toy(), "never").unwrap().is_none());
        let other = Info {
            kind: "layer",
            ..toy()
        };
        assert!(other.presets().is_empty());
    }

    #[test]
    fn a_preset_of_two_packages_is_refused_with_both() {
        let error = named(&toy(), "twice").unwrap_err().to_string();
        assert!(
            error.contains("one in package one, one in package two"),
            "{error}"
        );
    }
}
