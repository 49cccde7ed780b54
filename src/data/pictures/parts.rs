//! The folders of the training, validation and test part.

use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::ffi::OsString;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use super::listing::folders_in;
use crate::data::images::Images;
use crate::error::{Error, Result};

/// The names of the folders of each part, in small letters.
const TRAINING: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 4] = ["val", "valid", "validation", "dev"];
const TEST: [&str; 2] = ["test", "testing"];

/// The folders of the parts.
pub(super) struct Parts {
    pub train: Option<PathBuf>,
    pub validation: Option<PathBuf>,
    pub test: Option<PathBuf>,
}

impl Parts {
    /// Finds them in a folder; none if it holds classes instead.
    ///
    /// # Errors
    /// [`Error::Data`] for a training part without a test part; [`Error::File`].
    pub fn of(dir: &Path) -> Result<Self> {
        let folders = folders_in(dir)?;
        let find = |names: &[&str]| {
            let is_one =
                |name: &&OsString| names.contains(&name.to_string_lossy().to_lowercase().as_str());
            folders.iter().find(is_one).map(|name| dir.join(name))
        };
        let parts = Self {
            train: find(&TRAINING),
            validation: find(&VALIDATION),
            test: find(&TEST),
        };
        // A class may be called `test`; a part alone is a mistake if it holds classes.
        let holds_classes = |part: &Option<PathBuf>| {
            let found = part.as_ref().map(|dir| folders_in(dir));
            matches!(found, Some(Ok(found)) if !found.is_empty())
        };
        match (&parts.train, &parts.test) {
            (Some(_), None) if holds_classes(&parts.train) => {
                let other = match &parts.validation {
                    Some(other) => format!(
                        "; rename {} to test, or move its pictures to the training part",
                        other.display()
                    ),
                    None => "; add one, or name the training folder itself, of which a sixth \
                             is then the test part"
                        .into(),
                };
                let problem = format!("has a training part, but no folder `test`{other}");
                Err(Error::data(dir, problem))
            }
            (Some(_), Some(_)) => Ok(parts),
            _ => Ok(Self {
                train: None,
                validation: None,
                test: None,
            }),
        }
    }
}

/// A warning if a twentieth of the pictures of a part are in the training part too: a
/// network that knows them by heart has a lower error than on other pictures.
///
/// # Errors
/// As [`Images::image`].
pub(super) fn shared(train: &Images, part: &Images, name: &str) -> Result<Option<String>> {
    let known = checksums(train).collect::<Result<HashSet<u64>>>()?;
    let (mut found, all) = (0, part.labels().len());
    for sum in checksums(part) {
        found += usize::from(known.contains(&sum?));
    }
    Ok((found > 0 && 20 * found >= all).then(|| {
        format!(
            "{found} of the {all} {name} pictures are in the training part too, so the {name} \
             error is too low for other pictures"
        )
    }))
}

/// A number for each picture, the same for the same picture.
fn checksums(images: &Images) -> impl Iterator<Item = Result<u64>> + '_ {
    (0..images.labels().len()).map(|index| {
        let mut hasher = DefaultHasher::new();
        hasher.write(&images.image(index)?);
        Ok(hasher.finish())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_are_in_two_parts_are_counted() -> Result<()> {
        let part = |values: &[u8]| {
            let pixels = values.iter().flat_map(|value| [*value; 4]).collect();
            Images::new(pixels, vec![0; values.len()], [1, 2, 2]).unwrap()
        };
        let train = part(&[1, 2, 3, 4]);
        assert_eq!(shared(&train, &part(&[5, 6, 7]), "test")?, None);
        let warned = shared(&train, &part(&[5, 2, 3]), "test")?.unwrap();
        assert!(warned.starts_with("2 of the 3 test pictures"), "{warned}");
        let many: Vec<u8> = (4..34).collect();
        assert_eq!(shared(&train, &part(&many), "test")?, None);
        Ok(())
    }
}
