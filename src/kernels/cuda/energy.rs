//! The energy that a GPU uses, as NVIDIA's management library tells it.

use candle_core::Device;
use nvml_wrapper::Nvml;

use crate::kernels::energy::Reader;

/// The counter of a GPU, in millijoules; `None` if the library is missing.
pub(in crate::kernels) fn millijoules(device: &Device) -> Option<Reader> {
    let Device::Cuda(gpu) = device else {
        return None;
    };
    let id = gpu.cuda_stream().context().uuid().ok()?;
    let hex: String = id
        .bytes
        .iter()
        .map(|byte| format!("{:02x}", *byte as u8))
        .collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
    let name = format!("GPU-{}", parts.join("-"));
    let library = Nvml::init().ok()?;
    Some(Box::new(move || {
        let gpu = library.device_by_uuid(name.as_str()).ok()?;
        gpu.total_energy_consumption().ok()
    }))
}
