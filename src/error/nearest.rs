//! Suggestions for a name that is not known.

use std::path::Path;

/// As [`nearest`]; for a path in the place of a data set, the data set that reads it.
pub(super) fn meant(kind: &str, given: &str, known: &[String]) -> String {
    let path = Path::new(given);
    let is_path = given.contains('/') || path.exists() || path.extension().is_some();
    if kind == "data" && is_path && !given.contains(':') {
        return match path.is_dir() || path.extension().is_none() {
            true if has_idx(path) => format!(", did you mean `idx:{given}`?"),
            true => format!(", did you mean `folder:{given}`?"),
            false if is_table(path) => "; tables and arrays are data of your own: a data set \
                                        in Rust (`onward new NAME --kind data`), or arrays in \
                                        Python"
                .into(),
            false => format!(", did you mean `text:{given}`?"),
        };
    }
    nearest(given, known)
}

/// Whether a folder has files in IDX format, named as for MNIST.
fn has_idx(folder: &Path) -> bool {
    let name = "train-images-idx3-ubyte";
    [name, &format!("{name}.gz")]
        .iter()
        .any(|name| folder.join(name).exists())
}

/// Whether a file has the ending of a table or an array.
fn is_table(path: &Path) -> bool {
    const ENDINGS: [&str; 7] = ["csv", "tsv", "npy", "npz", "parquet", "arff", "mat"];
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.to_lowercase().as_str()))
}

/// What to do about a name that is like no known one: it may be that of a plugin that is
/// not in the program.
pub(super) fn linked(kind: &str, given: &str, known: &[String]) -> &'static str {
    match meant(kind, given, known).is_empty() {
        true => {
            "; a plugin of another crate must be linked into the program: `use your_crate as _;`"
        }
        false => "",
    }
}

/// Names of other programs, and ours.
const ELSEWHERE: [(&str, &str); 14] = [
    ("layers", "hidden"),
    ("num_layers", "hidden"),
    ("n_layers", "hidden"),
    ("hidden_size", "hidden"),
    ("widths", "hidden"),
    ("d_model", "hidden"),
    ("threshold", "theta"),
    ("scheduler", "schedule"),
    ("batchnorm", "norm"),
    ("early_stopping", "patience"),
    ("dtype", "precision"),
    ("context", "window"),
    ("context_length", "window"),
    ("block_size", "window"),
];

/// The most names that are suggested.
const MOST: usize = 6;

/// Settings that are flags of the program.
const FLAGS: [&str; 6] = ["preset", "device", "out", "threads", "config", "data_dir"];

/// As [`nearest`]; for a setting with its whole path, or the flag that sets it.
fn nearest_setting(given: &str, known: &[String]) -> String {
    let flag = given.replace('-', "_");
    if flag == "preset" {
        return ", did you mean the flag --preset, or a method such as progressive:hinton?".into();
    }
    if FLAGS.contains(&&*flag) {
        return format!(", did you mean the flag --{}?", flag.replace('_', "-"));
    }
    let place = given.rfind('.').map_or("", |dot| &given[..=dot]);
    let whole = |name: &str| match name.contains('.') {
        true => name.to_string(),
        false => format!("{place}{name}"),
    };
    suggested(close(given, known).into_iter().map(whole))
}

/// The settings that are close to the given one, or else all that are known at its place.
pub(super) fn nearest_or_all(given: &str, known: &[String]) -> String {
    let near = nearest_setting(given, known);
    match (near.is_empty(), known.is_empty()) {
        (true, true) => "; no settings are known here".into(),
        (true, false) => format!("; known here: {}", known.join(", ")),
        (false, _) => near,
    }
}

/// `, did you mean …?` with the known names that are close to the given one, else
/// nothing.
pub(crate) fn nearest(given: &str, known: &[String]) -> String {
    suggested(close(given, known).into_iter().map(String::from))
}

/// The known names that are close to the given one: the same setting within a plugin, a
/// slip of the keys, or names with the same words.
pub(crate) fn close<'a>(given: &str, known: &'a [String]) -> Vec<&'a str> {
    let last = last_part(given).to_lowercase();
    let names = |is_it: &dyn Fn(&str) -> bool| -> Vec<&'a str> {
        let names = known.iter().map(String::as_str);
        names.filter(|name| is_it(name)).collect()
    };
    let within = names(&|name| name.ends_with(&format!(".{last}")));
    if let Some(first) = within.first() {
        return vec![first];
    }
    let slip = known
        .iter()
        .map(|name| (slips(&last, &last_part(name).to_lowercase()), name))
        .filter(|(slips, name)| *slips <= (last.len().min(last_part(name).len()) / 3).max(1))
        .min_by_key(|(slips, name)| (*slips, name.matches('.').count(), *name));
    if let Some((_, name)) = slip.filter(|_| last.len() > 1) {
        return vec![name];
    }
    let elsewhere = ELSEWHERE.iter().find(|(theirs, _)| *theirs == last);
    if let Some((_, ours)) = elsewhere {
        if let Some(name) = names(&|name| last_part(name) == *ours).first() {
            return vec![name];
        }
    }
    let with_it = names(&|name| has_words(name, &last));
    match with_it.is_empty() {
        false => with_it,
        true => names(&|name| has_words(&last, name)),
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The number of slips of the keys that make one name of the other. How words are joined
/// does not count.
fn slips(a: &str, b: &str) -> usize {
    let joined = |name: &str| name.replace(['_', '-', ' '], "");
    strsim::damerau_levenshtein(&joined(a), &joined(b))
}

/// Whether all words of `few` are words of `name`.
fn has_words(name: &str, few: &str) -> bool {
    let words = |name: &str| -> Vec<String> {
        let last = last_part(name).to_lowercase();
        let words = last.split(['_', '-', ' ']).map(String::from);
        words.filter(|word| !word.is_empty()).collect()
    };
    let (all, few) = (words(name), words(few));
    !few.is_empty() && few.iter().all(|word| all.contains(word))
}

fn suggested(names: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = names.take(MOST).map(|name| format!("`{name}`")).collect();
    match &shown[..] {
        [] => String::new(),
        [name] => format!(", did you mean {name}?"),
        several => format!(", did you mean one of {}?", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggests(given: &str, known: &[&str]) -> String {
        let known: Vec<String> = known.iter().map(|name| name.to_string()).collect();
        nearest(given, &known)
    }

    const KNOWN: [&str; 12] = [
        "seed",
        "hidden",
        "lr",
        "head_rule",
        "head_lr",
        "theta",
        "schedule",
        "layer.dropout",
        "data.window",
        "weight_decay",
        "standardise",
        "cifar-10",
    ];

    #[test]
    fn a_slip_of_the_keys_is_mended() {
        for (given, expected) in [
            ("hiden", "hidden"),
            ("LR", "lr"),
            ("lt", "lr"),
            ("weigth_decay", "weight_decay"),
            ("weightdecay", "weight_decay"),
            ("standarise", "standardise"),
            ("cifar10", "cifar-10"),
            ("sampler.dropout", "layer.dropout"),
        ] {
            let expected = format!(", did you mean `{expected}`?");
            assert_eq!(suggests(given, &KNOWN), expected, "{given}");
        }
    }

    #[test]
    fn a_part_of_names_suggests_those_names_and_not_another_short_one() {
        let of_head = ", did you mean one of `head_rule`, `head_lr`?";
        assert_eq!(suggests("head", &KNOWN), of_head);
        assert_eq!(suggests("decay", &KNOWN), ", did you mean `weight_decay`?");
        assert_eq!(
            suggests("lr_schedule", &KNOWN),
            ", did you mean `schedule`?"
        );
        assert_eq!(suggests("cifar", &KNOWN), ", did you mean `cifar-10`?");
    }

    #[test]
    fn a_setting_is_suggested_with_its_path_and_a_flag_as_a_flag() {
        let known = ["size".to_string(), "layer.dropout".to_string()];
        for (given, expected) in [
            ("data.sise", "`data.size`"),
            ("dropuot", "`layer.dropout`"),
            (
                "preset",
                "the flag --preset, or a method such as progressive:hinton",
            ),
            ("data-dir", "the flag --data-dir"),
        ] {
            let expected = format!(", did you mean {expected}?");
            assert_eq!(nearest_setting(given, &known), expected);
        }
    }

    #[test]
    fn names_of_other_programs_are_known() {
        assert_eq!(suggests("d_model", &KNOWN), ", did you mean `hidden`?");
        assert_eq!(
            suggests("context_length", &KNOWN),
            ", did you mean `data.window`?"
        );
        assert_eq!(suggests("threshold", &KNOWN), ", did you mean `theta`?");
    }

    #[test]
    fn nothing_is_suggested_for_a_name_far_from_all_others() {
        for given in ["sampler.banana", "x", "", "bead", "héad"] {
            assert_eq!(suggests(given, &KNOWN[..6]), "", "{given}");
        }
    }
}
