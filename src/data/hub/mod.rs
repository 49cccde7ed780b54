//! Download of data sets whose files are missing, with a check of their contents.

use std::path::{Path, PathBuf};

use crate::data::files::there;
use crate::data::find;
use crate::data::images::Images;
use crate::data::DataSet;
use crate::error::{notify, Error, Result};
use crate::flow::examples::Split;

mod checksums;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod table;

/// Images on the Hugging Face hub, with their expected contents.
#[derive(Clone, Copy, Debug)]
pub struct Hub {
    /// The repository, `owner/name`.
    pub repository: &'static str,
    /// The columns of the images and of their classes.
    pub columns: [&'static str; 2],
    /// The shape of an image, `[channels, height, width]`; grey or colour.
    pub shape: [usize; 3],
    /// The number of training images of each class.
    pub train: &'static [usize],
    /// The number of test images of each class. The total must differ from that of the
    /// training images.
    pub test: &'static [usize],
    /// The content of the training and the test part, if it is known: for each part the
    /// sum, modulo 2¹²⁸, of the first 16 bytes (the lowest first) of the SHA-256 of each
    /// image's label and pixels, in hexadecimal. Other images are then refused.
    pub content: Option<[&'static str; 2]>,
}

/// The images of a downloaded table, or a message: for the fuzzing of what is read.
#[cfg(feature = "hub")]
#[doc(hidden)]
pub fn images_of_table(file: std::fs::File, hub: &Hub, counts: &[usize]) -> Result<Images, String> {
    let reader = parquet::file::reader::SerializedFileReader::new(file);
    let reader = reader.map_err(|error| error.to_string())?;
    table::images(&reader, hub, counts)
}

/// Writes the files of a data set into a folder, given the training and the test part.
pub type Writer = fn(folder: &Path, train: &Images, test: &Images) -> Result<()>;

impl Hub {
    /// Provides the files of the data set `name`. If no folder of `looked` has one of
    /// them, the images are downloaded and checked, and `write` writes all files into the
    /// cache, or none.
    ///
    /// # Errors
    /// [`Error::MissingData`] with the reason why the download failed: no network, no
    /// cache, unexpected images, or a program built without the feature `hub`.
    pub fn provide(
        &self,
        looked: Vec<PathBuf>,
        cache: Option<&Path>,
        name: &str,
        files: &[&str],
        write: Writer,
    ) -> Result<()> {
        let of_cache = cache.map(|cache| cache.join(name));
        let found = files.iter().find_map(|file| find(&looked, name, file).ok());
        match (found, &of_cache) {
            (Some(found), Some(folder)) if found.starts_with(folder) => {
                let Some(damage) = checksums::damage(folder, files) else {
                    return Ok(());
                };
                notify(format_args!(
                    "{}: {damage}; downloading {name} again",
                    folder.display()
                ));
            }
            (Some(_), _) => return Ok(()), // the user's own files
            (None, _) => (),
        }
        let no_cache = "there is no cache folder for the download: set $XDG_CACHE_HOME \
                        or $HOME";
        let fetched = match cache {
            Some(cache) => self
                .fetch(cache, name, files, write)
                .map_err(|error| error.to_string()),
            None => Err(no_cache.into()),
        };
        let file = files.join(", ");
        fetched.map_err(|why| {
            let reasons = [there(&looked), why];
            let reasons = reasons.into_iter().filter(|reason| !reason.is_empty());
            Error::MissingData {
                name: name.into(),
                file,
                why: reasons.collect::<Vec<_>>().join("; "),
                looked,
            }
        })
    }

    /// Warns if the test part has other numbers of images of the classes than this data
    /// set: files of another one may have the same names.
    ///
    /// # Errors
    /// Errors of the examples.
    pub fn recognise(&self, name: &str, data: &DataSet) -> Result<()> {
        let found = data.class_counts(Split::Test)?;
        let mut counts = self.test.iter().zip(&found).zip(&data.spec.classes);
        if let Some(((expected, found), class)) = counts.find(|((a, b), _)| a != b) {
            notify(format_args!(
                "warning: these are not the images of {name}, or not all: found {found} test \
                 images of class {class}, expected {expected}; to train on images of your own, \
                 use --data idx:DIR or folder:DIR"
            ));
        }
        Ok(())
    }

    #[cfg(not(feature = "hub"))]
    fn fetch(&self, _: &Path, _: &str, _: &[&str], _: Writer) -> Result<()> {
        let why = "this program was built without downloads; install it with `--features \
                   hub`";
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, why);
        Err(Error::File {
            action: "download",
            path: self.repository.into(),
            source,
        })
    }

    #[cfg(feature = "hub")]
    fn fetch(&self, cache: &Path, name: &str, files: &[&str], write: Writer) -> Result<()> {
        fetch::fetch(self, cache, name, files, write)
    }
}
