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

use super::{table, Hub, Writer};
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
    if files.iter().all(|file| target.join(file).is_file()) {
        return Ok(()); // downloaded by the other process
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
        fs::rename(&whole, &target).map_err(Error::file("write", &target))
    });
    // If this fails, the next download removes it.
    let _ = fs::remove_dir_all(&part);
    done
}

/// Locks the download of a data set: one process downloads it, and others wait.
fn lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!(".{name}.lock"));
    let file = File::create(&path).map_err(Error::file("create", &path))?;
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
    let client = HFClientSync::from_inner(client).map_err(|error| fault(repository, &error))?;
    let tables = patiently(&folder, PATIENCE, move |total| {
        // Only for the progress bar; errors are reported by the download below.
        total.store(
            size_on_hub(&client, repository).unwrap_or(0),
            Ordering::Relaxed,
        );
        from_hub(&client, repository.into())
    });
    let tables = tables.map_err(|source| Error::File {
        action: "download",
        path: repository.into(),
        source,
    })?;
    let tables = tables.map_err(|error| fault(repository, &error))?;
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
    Ok([part("training", hub.train)?, part("test", hub.test)?])
}

/// An error with the outermost and the innermost cause: the failed action and the reason.
fn fault(repository: &str, error: &dyn std::error::Error) -> Error {
    let mut text = error.to_string();
    let inner = std::iter::successors(error.source(), |error| error.source())
        .last()
        .map(|error| error.to_string());
    if let Some(inner) = inner.filter(|inner| !text.contains(inner.as_str())) {
        text = format!("{text}: {inner}");
    }
    Error::File {
        action: "download",
        path: repository.into(),
        source: std::io::Error::other(text),
    }
}

/// The size of the tables of a repository in bytes.
fn size_on_hub(client: &HFClientSync, repository: &str) -> HFResult<u64> {
    let (owner, name) = hf_hub::split_id(repository);
    let repository = client.dataset(owner, name);
    let files = repository
        .info()
        .revision(REVISION)
        .send()?
        .siblings
        .unwrap_or_default();
    let tables = files
        .into_iter()
        .map(|file| file.rfilename)
        .filter(|name| name.ends_with(".parquet"));
    let size = |table| {
        Ok(repository
            .get_file_metadata()
            .filepath(table)
            .revision(REVISION)
            .send()?
            .file_size)
    };
    tables.map(size).sum()
}

/// The result of `work`, or an error if the folder that it writes does not grow during
/// `patience`.
///
/// Progress is shown on a terminal, relative to the total size that `work` reports. After
/// an error, `work` keeps running in its thread.
fn patiently<T: Send + 'static>(
    folder: &Path,
    patience: Duration,
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
        if now != size {
            (size, grown) = (now, Instant::now());
            bar.set_position(size);
        }
        if grown.elapsed() > patience {
            let why = format!("no data received for {} seconds", patience.as_secs());
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
        assert_eq!(patiently(folder.path(), patience, |_| 3).unwrap(), 3);
        let error = patiently(folder.path(), patience, |_| {
            std::thread::sleep(Duration::from_secs(5))
        })
        .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let path = folder.path().join("growing");
        let slow = move |_: &AtomicU64| {
            (1..10).for_each(|size| {
                std::thread::sleep(Duration::from_millis(100));
                fs::write(&path, vec![0; size]).unwrap();
            })
        };
        patiently(folder.path(), patience, slow).unwrap();
    }
}
