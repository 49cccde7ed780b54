//! A data set from folders of pictures, one for each class.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::listing::{ending, entries, folders_in, is_picture};
use super::parts::{shared, Parts};
use super::{example, open, Seen, FORMATS};
use crate::data::images::Images;
use crate::data::pixels::Collector;
use crate::data::Room;
use crate::data::{Content, DataSet, ExampleSpec, Framing};
use crate::error::{notify, Error, Result};
use crate::flow::random::{shuffle, stream};

crate::choices! {
    /// The handling of images that cannot be read.
    pub enum Broken {
        /// Refuse the data set, with the number of broken images and the first of them.
        Refuse = "refuse",
        /// Skip broken images, with a warning that states their number.
        Skip = "skip",
    }
}

/// Reads a data set from folders, one per class: `<dir>/<class>/<picture>`, resized to
/// `shape`.
///
/// If `<dir>/train/` and `<dir>/test/` exist, these are the parts, and `<dir>/val/`, if
/// it exists, is the validation part. Their classes are matched by name. Otherwise a
/// random sixth of the pictures of each class is the test part; it stays the same as long
/// as the files do. Without a folder for it, a sixth of the remaining pictures of each
/// class is the validation part. Pictures for which there is no `room` are kept in a
/// temporary file, and read batch by batch.
///
/// # Errors
/// [`Error::File`] and [`Error::Data`] for folders that cannot be read or have no classes
/// or pictures, for classes that only a part has, and for broken pictures, unless
/// `broken` is `skip`.
pub fn data_set(dir: &Path, shape: [usize; 3], broken: Broken, room: &Room) -> Result<DataSet> {
    if dir.is_file() {
        let problem = "is a file, expected the folder that has a folder for each class";
        return Err(Error::data(dir, problem));
    }
    let parts = Parts::of(dir)?;
    let first = parts.train.as_deref().unwrap_or(dir);
    let classes = folders_in(first)?;
    if classes.len() < 2 || classes.len() > 256 {
        return Err(Error::data(first, no_classes(first, &classes)));
    }
    let names = classes
        .iter()
        .map(|name| name.to_string_lossy().into_owned());
    let spec = ExampleSpec::new(&shape, names.collect(), Content::Picture(Framing::Whole));
    let reader = Reader {
        classes,
        spec: &spec,
        broken,
        room,
    };
    let (source, files, validation, test) = match (&parts.train, &parts.test) {
        (Some(train), Some(test)) => {
            let validation = parts.validation.as_deref();
            let validation = validation
                .map(|dir| reader.part(dir, "validation"))
                .transpose()?;
            (
                &**train,
                reader.listed(train, true)?,
                validation,
                reader.part(test, "test")?,
            )
        }
        _ => {
            let (files, test) = sixth(reader.listed(dir, true)?);
            (dir, files, None, reader.read(dir, "test", test)?)
        }
    };
    let (train, validation) = match validation {
        Some(validation) => (reader.read(source, TRAINING, files)?, validation),
        None => {
            let (train, validation) = sixth(files);
            (
                reader.read(source, TRAINING, train)?,
                reader.read(source, "validation", validation)?,
            )
        }
    };
    let learned: BTreeSet<u8> = train.labels().iter().copied().collect();
    if let Some(lost) = (0..spec.classes.len()).find(|class| !learned.contains(&(*class as u8))) {
        let name = &spec.classes[lost];
        let problem = format!("of the class `{name}` no picture is left to learn from");
        return Err(Error::data(dir, problem));
    }
    let [mut of_train, split_off, of_test] =
        [&train, &validation, &test].map(|part| part.labels().len());
    if parts.validation.is_none() {
        of_train += split_off;
    }
    if of_train < 6 || of_test == 0 {
        let found = of_train + of_test;
        let problem =
            format!("found {found} images, expected at least 6 for training and 1 for testing");
        return Err(Error::data(dir, problem));
    }
    for (name, part) in [("validation", &validation), ("test", &test)] {
        if let Some(warning) = shared(&train, part, name)? {
            notify(format_args!("warning: {}: {warning}", dir.display()));
        }
    }
    Ok(DataSet {
        spec,
        train: Arc::new(train),
        validation: Arc::new(validation),
        test: Arc::new(test),
        text: None,
    })
}

/// Why these folders are not classes.
fn no_classes(dir: &Path, classes: &[OsString]) -> String {
    let count = classes.len();
    let noun = if count == 1 { "folder" } else { "folders" };
    let problem = format!("found {count} {noun}, expected one for each class, 2 to 256");
    let inside = match classes {
        [only] => dir.join(only),
        [] => {
            let paths = entries(dir).unwrap_or_default();
            let loose = paths.iter().filter(|path| is_picture(path)).count();
            return match loose {
                0 => format!(
                    "{problem}; put pictures into folders with the names of their classes, as in \
                     {}",
                    dir.join("cat").join("1.png").display()
                ),
                _ => format!(
                    "{problem}; {loose} pictures lie in it: put those of each class into a \
                     folder with the name of the class"
                ),
            };
        }
        _ => return problem,
    };
    match folders_in(&inside) {
        Ok(inner) if inner.len() >= 2 => format!(
            "{problem}; {} has {} folders: name that one",
            inside.display(),
            inner.len()
        ),
        _ => problem,
    }
}

/// The name of the training part in messages.
const TRAINING: &str = "training";

/// The pictures that are decoded at a time.
const DECODED: usize = 1024;

/// A part whose brightest pixel is below this is dark: 12 bits in 16 reach 16 of 255.
const DARK: u8 = 32;

/// A picture with its class.
type Listed = (PathBuf, u8);

/// All but a sixth of the pictures of each class, and that sixth, in their order. The
/// only picture of a class is not split off.
fn sixth(files: Vec<Listed>) -> (Vec<Listed>, Vec<Listed>) {
    let mut sizes = BTreeMap::new();
    files
        .iter()
        .for_each(|(_, class)| *sizes.entry(*class).or_insert(0) += 1);
    let mut by_class: Vec<usize> = (0..files.len()).collect();
    by_class.retain(|&index| sizes[&files[index].1] > 1);
    by_class.sort_by_key(|&index| files[index].1);
    let chosen: BTreeSet<usize> = by_class.into_iter().skip(5).step_by(6).collect();
    let (sixth, rest): (Vec<_>, Vec<_>) = files
        .into_iter()
        .enumerate()
        .partition(|(index, _)| chosen.contains(index));
    let bare = |files: Vec<(usize, Listed)>| files.into_iter().map(|(_, file)| file).collect();
    (bare(rest), bare(sixth))
}

/// Reads the parts of a data set with these classes.
struct Reader<'a> {
    classes: Vec<OsString>,
    spec: &'a ExampleSpec,
    broken: Broken,
    room: &'a Room,
}

impl Reader<'_> {
    /// The pictures of a folder of classes, other than the training part.
    fn part(&self, dir: &Path, name: &str) -> Result<Images> {
        if let Some(other) = folders_in(dir)?
            .into_iter()
            .find(|name| !self.classes.contains(name))
        {
            let problem = format!(
                "has a class `{}`, which the training part has not",
                other.to_string_lossy()
            );
            return Err(Error::data(dir, problem));
        }
        self.read(dir, name, self.listed(dir, false)?)
    }

    /// All pictures with their classes, in a fixed random order. Every class must have
    /// one if this is the training part.
    fn listed(&self, dir: &Path, is_training: bool) -> Result<Vec<Listed>> {
        let (mut files, mut others) = (Vec::new(), BTreeMap::new());
        for (class, name) in self.classes.iter().enumerate() {
            let folder = dir.join(name);
            let before = files.len();
            let mut here = BTreeMap::new();
            for path in if folder.is_dir() {
                entries(&folder)?
            } else {
                Vec::new()
            } {
                match is_picture(&path) {
                    true => files.push((path, class as u8)),
                    false => *here.entry(ending(&path)).or_insert(0) += 1,
                }
            }
            if files.len() == before {
                let found = count_endings(&here);
                let problem = format!("found no pictures ({FORMATS}){found}");
                if is_training {
                    return Err(Error::data(folder, problem));
                }
                notify(format_args!("warning: {}: {problem}", folder.display()));
            }
            for (ending, count) in here {
                *others.entry(ending).or_insert(0) += count;
            }
        }
        if !others.is_empty() {
            let all: usize = others.values().sum();
            notify(format_args!(
                "warning: {}: {all} of {} entries are no pictures that can be read, and are \
                 left out{}",
                dir.display(),
                all + files.len(),
                count_endings(&others)
            ));
        }
        shuffle(&mut stream(0, "test part", 0), &mut files);
        Ok(files)
    }

    /// Decodes the pictures of the part with this name.
    fn read(&self, dir: &Path, part: &str, files: Vec<Listed>) -> Result<Images> {
        use rayon::prelude::*;
        let all = files.len();
        let bytes = |path: &Path| match example(&*open(path)?, self.spec)? {
            Seen::Example { bytes, .. } => Ok(bytes),
            Seen::Nothing(contrast) => Err(Error::data(path, format!("shows nothing: {contrast}"))),
        };
        let size: usize = self.spec.shape.iter().product();
        let mut pixels = Collector::new(self.room, (all * size) as u64, dir.display())?;
        let (mut labels, mut faults, mut brightest) = (Vec::new(), Vec::new(), 0);
        for files in files.chunks(DECODED) {
            let decoded = files.par_iter().map(|(path, _)| bytes(path));
            let decoded: Vec<Result<Vec<u8>>> = decoded.collect();
            for (decoded, (_, class)) in decoded.into_iter().zip(files) {
                match decoded {
                    Ok(bytes) => {
                        brightest = brightest.max(bytes.iter().copied().max().unwrap_or(0));
                        pixels.add(&bytes)?;
                        labels.push(*class);
                    }
                    Err(error) => faults.push(error.to_string()),
                }
            }
        }
        if let Some(first) = faults.first() {
            let problem = format!(
                "{} of the {all} images of the {part} part cannot be read; the first error: \
                 {first}",
                faults.len()
            );
            if self.broken == Broken::Refuse {
                let cure = "repair or remove them; a new training leaves them out with --set \
                            data.broken=skip";
                return Err(Error::data(dir, format!("{problem}; {cure}")));
            }
            notify(format_args!(
                "warning: {}: {problem}; they are left out",
                dir.display()
            ));
        }
        if part == TRAINING && brightest < DARK && !labels.is_empty() {
            notify(format_args!(
                "warning: {}: the {part} part is dark: no pixel is above {brightest} of 255; of \
                 pictures with 12 bits stored in 16, scale the numbers to all 16 first",
                dir.display()
            ));
        }
        let shape = [self.spec.shape[0], self.spec.shape[1], self.spec.shape[2]];
        Images::of(pixels.finish(labels.len(), size)?, labels, shape)
    }
}

/// `: 3 .heic, 1 .txt`.
fn count_endings(counts: &BTreeMap<String, usize>) -> String {
    let counted = counts.iter().map(|(ending, count)| match ending.as_str() {
        "" => format!("{count} without an ending"),
        "folder" => format!("{count} folders"),
        _ => format!("{count} .{ending}"),
    });
    match counted.collect::<Vec<_>>() {
        counted if counted.is_empty() => String::new(),
        counted => format!(": {}", counted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma};

    fn folder(sizes: &[(u32, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (class, value) in [("dark", 20u8), ("light", 220)] {
            std::fs::create_dir(folder.path().join(class)).unwrap();
            for (index, &(width, height)) in sizes.iter().enumerate() {
                let image = GrayImage::from_pixel(width, height, Luma([value]));
                let ending = if index % 2 == 0 { "png" } else { "JPG" };
                image
                    .save(folder.path().join(class).join(format!("{index}.{ending}")))
                    .unwrap();
            }
        }
        folder
    }

    #[test]
    fn a_sixth_of_every_class_is_split_off() {
        let alone: Vec<Listed> = (0..20)
            .map(|class| (format!("{class}").into(), class))
            .collect();
        assert!(sixth(alone).1.is_empty());
        let classes = [0u8, 1, 0, 2, 0, 0, 1, 0, 2, 1, 1, 0, 2, 1, 1, 2, 2, 2];
        let files = classes.iter().enumerate();
        let files: Vec<Listed> = files
            .map(|(i, class)| (i.to_string().into(), *class))
            .collect();
        let (rest, sixth) = sixth(files.clone());
        let mut of_class: Vec<u8> = sixth.iter().map(|(_, class)| *class).collect();
        of_class.sort_unstable();
        assert_eq!(of_class, [0, 1, 2]);
        // The random order stays.
        let kept: Vec<Listed> = files
            .into_iter()
            .filter(|file| !sixth.contains(file))
            .collect();
        assert_eq!(rest, kept);
    }

    fn read(dir: &Path, shape: [usize; 3], broken: Broken) -> Result<DataSet> {
        data_set(dir, shape, broken, &Room::default())
    }

    #[test]
    fn pictures_of_any_size_become_examples() -> Result<()> {
        let folder = folder(&[(5, 9), (40, 30), (28, 28), (1, 1), (60, 7), (8, 8)]);
        let data = read(folder.path(), [3, 4, 6], Broken::Refuse)?;
        assert_eq!(data.spec.classes, ["dark", "light"]);
        assert_eq!(
            (data.train.len(), data.validation.len(), data.test.len()),
            (9, 1, 2)
        );
        let batch = data.train.batch(&[0, 1, 2, 3, 4, 5, 6, 7, 8], None)?;
        let rows = batch.rows().to_vec2::<f32>()?;
        for (row, &label) in rows.iter().zip(batch.labels()?) {
            let expected = [20., 220.][label as usize] / 255.;
            assert!(
                row.len() == 72 && row.iter().all(|value| (value - expected).abs() < 0.02),
                "{label}: {row:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_broken_picture_is_an_error_unless_skipping_is_set() -> Result<()> {
        let folder = folder(&[(8, 8); 8]);
        std::fs::write(
            folder.path().join("dark").join("0.png"),
            b"\x89PNG\r\n\x1a\nnothing",
        )
        .unwrap();
        std::fs::write(folder.path().join("dark").join("1.JPG"), b"hello").unwrap();
        let error = read(folder.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(" part cannot be read") && error.contains("broken=skip"),
            "{error}"
        );
        let data = read(folder.path(), [1, 4, 4], Broken::Skip)?;
        let lengths = |data: &DataSet| [&data.train, &data.validation, &data.test].map(|p| p.len());
        assert_eq!(lengths(&data).iter().sum::<usize>(), 14);
        // The same in a temporary file.
        let room = Room::default().at_most(0);
        let stored = data_set(folder.path(), [1, 4, 4], Broken::Skip, &room)?;
        assert_eq!(lengths(&stored), lengths(&data));
        assert_eq!(stored.train.fingerprint()?, data.train.fingerprint()?);
        Ok(())
    }

    #[test]
    fn a_folder_without_classes_or_pictures_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let file = empty.path().join("a.png");
        GrayImage::new(4, 4).save(&file).unwrap();
        let error = read(&file, [1, 4, 4], Broken::Refuse).err().unwrap();
        assert!(error.to_string().contains("is a file"), "{error}");
        let error = read(empty.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("one for each class"), "{error}");
        let folder = folder(&[(8, 8); 4]);
        std::fs::create_dir(folder.path().join("other")).unwrap();
        // What is in another folder is not counted here.
        std::fs::write(folder.path().join("dark/notes.txt"), "x").unwrap();
        std::fs::write(folder.path().join("other/a.csv"), "x").unwrap();
        let error = read(folder.path(), [1, 4, 4], Broken::Refuse)
            .err()
            .unwrap()
            .to_string();
        let expected = format!("found no pictures ({FORMATS}): 1 .csv");
        assert!(error.ends_with(&expected), "{error}");
    }
}
