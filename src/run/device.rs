//! The device of a run, and the user's cache folder.

use std::path::PathBuf;

use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::Device;

use crate::error::{Error, Result};

/// Opens the device with this name: `cpu`, `cuda`, `cuda:1`, `metal`.
///
/// # Errors
/// [`Error::Device`] if there is no such device, or the program was built without support
/// for it.
pub(super) fn open(name: &str) -> Result<Device> {
    let fault = |problem: String| Error::Device {
        name: name.into(),
        problem,
    };
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number = number.parse();
    let number =
        number.map_err(|_| fault("expected a number after the colon, as in cuda:1".into()))?;
    let missing = || {
        fault(format!(
            "this program was built without {kind}; build with --features {kind}"
        ))
    };
    match kind {
        "cpu" if name == "cpu" => Ok(Device::Cpu),
        "cuda" if !cuda_is_available() => Err(missing()),
        "metal" if !metal_is_available() => Err(missing()),
        // One stream for all threads: blocks learn on several threads, and candle's
        // default is one stream per thread.
        "cuda" => Device::new_cuda_with_stream(number).map_err(|error| fault(error.to_string())),
        "metal" => Device::new_metal(number).map_err(|error| fault(error.to_string())),
        _ => Err(fault("expected cpu, cuda, cuda:N or metal".into())),
    }
}

/// The folder `onward` in the user's cache.
pub(super) fn cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        let folder = std::env::var_os(name).filter(|folder| !folder.is_empty());
        folder.map(PathBuf::from)
    };
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("onward"))
}
