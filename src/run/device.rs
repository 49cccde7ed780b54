//! The device of a run, and the user's cache folder.

use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::{Device, DeviceLocation};

use crate::error::{Error, Result};
use crate::kernels;

/// Opens the device with this name: `cpu`, `cuda`, `cuda:1`, `metal`; `auto` is the first
/// GPU that this program can use, else the CPU.
///
/// # Errors
/// [`Error::Device`] if there is no such device, or the program was built without support
/// for it.
pub(super) fn open(name: &str) -> Result<Device> {
    let fault = |problem: String| Error::Device {
        name: name.into(),
        problem,
    };
    if name == "auto" {
        let gpu = ["cuda", "metal"]
            .into_iter()
            .find_map(|kind| open(kind).ok());
        return Ok(gpu.unwrap_or(Device::Cpu));
    }
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
        #[cfg(feature = "cuda")]
        "cuda" => kernels::cuda::open(number),
        "metal" => Device::new_metal(number).map_err(|error| fault(error.to_string())),
        _ => Err(fault("expected auto, cpu, cuda, cuda:N or metal".into())),
    }
}

/// The device for people: `CPU, 8 threads`, `cuda:0, NVIDIA H200`.
pub(super) fn describe(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => match rayon::current_num_threads() {
            1 => "CPU, 1 thread".into(),
            threads => format!("CPU, {threads} threads"),
        },
        DeviceLocation::Cuda { gpu_id } => {
            let name = kernels::gpu_name(device).map_or(String::new(), |name| format!(", {name}"));
            format!("cuda:{gpu_id}{name}")
        }
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
