//! The download through candle-datasets into a cache, which has complete data sets only.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_datasets::hub::{from_hub, FileReader};
use hf_hub::{HFClientBuilder, HFClientSync, HFResult};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{checksums, table, Hub, Writer};
use crate::data::images::Images;
use crate::error::{notify, Error, Result};

/// The time without new data after which a download is stopped. The client itself has no
/// such limit.
const PATIENCE: Duration = Duration::from_secs(60);
/// The revision with the parquet tables of every data set on the hub, which
/// candle-datasets reads.
const REVISION: &str = "refs/convert/parquet";

pub(super) fn fetch(
    hub: &Hub,
    cache: &Path,
    name: &str,
    files: &[&str],
    write: Writer,
) -> Result<()> {
    fs::create_dir_all(cache).map_err(Error::file("create", cache))?;
    let target = cache.join(name);
    let _lock = lock(cache, name)?;
    if checksums::are_ours(&target) && checksums::damage(&target, files).is_none() {
        return Ok(()); // downloaded by the other process
    }
    if target.exists() && !checksums::are_ours(&target) {
        let problem = "has other files than this data set needs; complete them, or move them away \
                       to download it here";
        return Err(Error::data(target, problem));
    }
    let part = cache.join(format!(".{name}.part"));
    if part.exists() {
        // Left by a killed process.
        fs::remove_dir_all(&part).map_err(Error::file("remove", &part))?;
    }
    let done = fetch_into(hub, &part, name).and_then(|[train, test]| {
        let whole = part.join("whole");
        fs::create_dir_all(&whole).map_err(Error::file("create", &whole))?;
        write(&whole, &train, &test)?;
        checksums::write(&whole, files)?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(Error::file("remove", &target))?;
        }
        fs::rename(&whole, &target).map_err(Error::file("write", &target))
    });
    // If this fails, the next download removes it.
    let _ = fs::remove_dir_all(&part);
    done
}

/// Locks the download of a data set: one process downloads it, and others wait.
fn lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!(".{name}.lock"));
    // A cache may be shared: a link could lead to a file of somebody.
    if fs::symlink_metadata(&path).is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(
            path,
            "is not a file, but a link or a pipe; remove it",
        ));
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(Error::file("create", &path))?;
    if file.try_lock().is_err() {
        notify(format_args!(
            "waiting for another process that downloads {name}"
        ));
        file.lock().map_err(Error::file("lock", &path))?;
    }
    Ok(file)
}

fn fetch_into(hub: &Hub, part: &Path, name: &str) -> Result<[Images; 2]> {
    let (repository, folder) = (hub.repository, part.join("hub"));
    // These data are public: no token is sent to whatever server is asked for them.
    std::env::set_var("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    // The only way to move the client's second cache, which would store the same bytes in
    // the user's home.
    std::env::set_var("HF_XET_CACHE", folder.join("xet"));
    let client = HFClientBuilder::new()
        .cache_dir(&folder)
        .retry_max_attempts(2)
        .build();
    let client = client.map_err(|error| fault(repository, &error))?;
    notify(format_args!(
        "downloading {name} from {}/datasets/{repository}",
        client.endpoint()
    ));
    let within = folder.clone();
    let tables = patiently(&folder, PATIENCE, hub.most(), move |total| {
        confine(&within)?;
        // It starts threads, which are confined as the one that they are started from.
        let client = HFClientSync::from_inner(client).map_err(|error| causes(&error))?;
        let about = Announced::of(&client, repository).map_err(|error| causes(&error))?;
        total.store(about.size, Ordering::Relaxed);
        match about.odd {
            Some(odd) => Err(odd),
            None => from_hub(&client, repository.into()).map_err(|error| causes(&error)),
        }
    });
    let tables = tables.map_err(|source| Error::File {
        action: "download",
        path: repository.into(),
        source,
    })?;
    let tables = tables.map_err(|why| failed(repository, why))?;
    // Parts are recognised by their sizes: candle-datasets gives no names.
    let rows = |table: &dyn FileReader| {
        usize::try_from(table.metadata().file_metadata().num_rows()).unwrap_or(0)
    };
    let part = |name: &str, counts: &[usize]| {
        let size: usize = counts.iter().sum();
        let mut fitting = tables.iter().filter(|table| rows(*table) == size);
        let (Some(table), None) = (fitting.next(), fitting.next()) else {
            let found: Vec<usize> = tables.iter().map(|table| rows(table)).collect();
            return Err(Error::data(
                repository,
                format!(
                    "expected one table of {size} {name} images, found tables of \
                     {found:?} rows"
                ),
            ));
        };
        table::images(table, hub, counts).map_err(|problem| {
            Error::data(
                repository,
                format!("the table of {size} {name} images: {problem}"),
            )
        })
    };
    let parts = [part("training", hub.train)?, part("test", hub.test)?];
    for ((images, name), wanted) in parts
        .iter()
        .zip(["training", "test"])
        .zip(hub.content.into_iter().flatten())
    {
        let found = content(images)?;
        if found != wanted {
            let problem = format!(
                "the {name} images are not those of this data set: expected the content \
                 {wanted}, found {found}; nothing was kept"
            );
            return Err(Error::data(repository, problem));
        }
    }
    Ok(parts)
}

/// Lets this thread, and those that it starts, write to a folder alone: the client makes
/// paths of what a server says, and a server may say one thing when it is asked and
/// another when it is asked again.
///
/// Kernels before Linux 5.13 and other systems cannot do this; there, what a server says
/// first ([`Announced`]) is all that is checked.
#[cfg(target_os = "linux")]
fn confine(folder: &Path) -> Result<(), String> {
    use landlock::{path_beneath_rules, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, ABI};
    let writing = AccessFs::from_write(ABI::V3);
    Ruleset::default()
        .handle_access(writing)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules([folder], writing)))
        .and_then(|rules| rules.restrict_self())
        .map_err(|error| format!("cannot confine the download to its folder: {error}"))?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn confine(_: &Path) -> Result<(), String> {
    Ok(())
}

impl Hub {
    /// The bytes that a download may have: packed images are smaller than their pixels.
    fn most(&self) -> u64 {
        let images: usize = self.train.iter().chain(self.test).sum();
        let pixels: usize = self.shape.iter().product();
        (64 << 20) + 2 * (images * pixels) as u64
    }
}

/// The content of images in any order: [`Hub::content`].
fn content(images: &Images) -> Result<String> {
    let of_image = |(index, label): (usize, &u8)| -> Result<u128> {
        let hash = Sha256::new()
            .chain_update([*label])
            .chain_update(images.image(index)?)
            .finalize();
        let mut low = [0; 16];
        low.copy_from_slice(&hash[..16]);
        Ok(u128::from_le_bytes(low))
    };
    let all = images.labels().par_iter().enumerate().map(of_image);
    let sum = all.try_reduce(|| 0, |a, b| Ok(a.wrapping_add(b)))?;
    Ok(format!("{sum:032x}"))
}

fn fault(repository: &str, error: &dyn std::error::Error) -> Error {
    failed(repository, causes(error))
}

fn failed(repository: &str, why: String) -> Error {
    Error::File {
        action: "download",
        path: repository.into(),
        source: std::io::Error::other(why),
    }
}

/// The outermost and the innermost cause: the failed action and the reason.
fn causes(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let inner = std::iter::successors(error.source(), |error| error.source())
        .last()
        .map(|error| error.to_string());
    match inner.filter(|inner| !text.contains(inner.as_str())) {
        Some(inner) => format!("{text}: {inner}"),
        None => text,
    }
}

/// What a server says of the tables of a repository.
#[derive(Default)]
struct Announced {
    /// Their size in bytes.
    size: u64,
    /// A name that could lead out of the cache, if there is one: the client uses them as
    /// paths.
    odd: Option<String>,
}

impl Announced {
    fn of(client: &HFClientSync, repository: &str) -> HFResult<Self> {
        let (owner, name) = hf_hub::split_id(repository);
        let repository = client.dataset(owner, name);
        let info = repository.info().revision(REVISION).send()?;
        let files = info.siblings.unwrap_or_default().into_iter();
        let files = files.map(|file| file.rfilename);
        let files: Vec<String> = files.filter(|file| file.ends_with(".parquet")).collect();
        let mut announced = Self::default();
        if let Some(file) = files.iter().find(|file| !file.split('/').all(is_plain)) {
            announced.odd = Some(format!("refused a file of the name {file:?}"));
            return Ok(announced);
        }
        for file in files {
            let about = repository.get_file_metadata().filepath(file);
            let about = about.revision(REVISION).send()?;
            for mark in [&about.etag, &about.commit_hash] {
                if !is_plain(mark) {
                    announced.odd = Some(format!("refused a file with the mark {mark:?}"));
                    return Ok(announced);
                }
            }
            announced.size = announced.size.saturating_add(about.file_size);
        }
        Ok(announced)
    }
}

/// Whether this is the name of one file, and nothing that leads elsewhere.
fn is_plain(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name != ".." && name != "." && name.chars().all(is_allowed)
}

/// The bytes that have to arrive within the time of patience.
const STEP: u64 = 1 << 16;

/// The result of `work`, or an error if the folder that it writes hardly grows during
/// `patience`, or to more than `most` bytes.
///
/// Progress is shown on a terminal, relative to the total size that `work` reports. After
/// an error, `work` keeps running in its thread.
fn patiently<T: Send + 'static>(
    folder: &Path,
    patience: Duration,
    most: u64,
    work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
) -> std::io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    let total = Arc::new(AtomicU64::new(0));
    let expected = total.clone();
    std::thread::Builder::new()
        .name("download".into())
        .spawn(move || sender.send(work(&total)))?;
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let show =
        |template| ProgressStyle::with_template(template).map_or((), |style| bar.set_style(style));
    show("{spinner} {bytes} {bytes_per_sec}");
    let (mut size, mut grown) = (0, Instant::now());
    loop {
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Ok(done) => {
                bar.finish_and_clear();
                return Ok(done);
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(std::io::Error::other("the download thread panicked"))
            }
            Err(RecvTimeoutError::Timeout) => bar.tick(),
        }
        let expected = expected.load(Ordering::Relaxed);
        if expected > 0 && bar.length().is_none() {
            bar.set_length(expected);
            show(
                "{spinner} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} \
                 left",
            );
        }
        let now = size_of(folder);
        bar.set_position(now);
        // A server that sends a byte now and then is as good as none.
        if now.abs_diff(size) >= STEP {
            (size, grown) = (now, Instant::now());
        }
        if now > most {
            let why = format!("more than {} MB were sent; expected less", most >> 20);
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
        }
        if grown.elapsed() > patience {
            let why = format!(
                "hardly any data received for {} seconds",
                patience.as_secs()
            );
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
        }
    }
}

/// The size in bytes of all files in and below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0, // renamed in the meantime
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_download_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(300);
        assert_eq!(
            patiently(folder.path(), patience, u64::MAX, |_| 3).unwrap(),
            3
        );
        let error = patiently(folder.path(), patience, u64::MAX, |_| {
            std::thread::sleep(Duration::from_secs(5))
        })
        .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        // Each in a folder of its own, since one that was given up is still written to.
        let run = |step: usize, most| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("growing");
            patiently(folder.path(), patience, most, move |_| {
                (1..10).for_each(|size| {
                    std::thread::sleep(Duration::from_millis(100));
                    // The folder is removed once the test has its answer.
                    let _ = fs::write(&path, vec![0; size * step]);
                })
            })
        };
        run(1 << 16, u64::MAX).unwrap();
        let error = run(1, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let error = run(1 << 16, 200_000).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    }
}
