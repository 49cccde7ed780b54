//! The variables of a run: named, ordered and initialised from the seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_nn::Init;
use flate2::Crc;
use rand_distr::{Distribution, StandardNormal, StandardUniform};

use crate::error::{Error, Result};
use crate::flow::random;
use crate::kernels;

/// A scope in the tree of a run's variables, such as `blocks.0.layer`. Cheap to clone.
///
/// Every variable made here has a name. It is listed in the order of the names, and
/// saved, restored, counted and checked for locality automatically. Its initial value
/// depends on the seed, the name and the shape, not on the order of creation.
///
/// Layers written with candle use [`Vars::builder`]:
/// `candle_nn::linear(inputs, units, vars.builder())`.
#[derive(Clone)]
pub struct Vars {
    tree: Arc<Mutex<Tree>>,
    prefix: String,
}

struct Tree {
    seed: u64,
    dtype: DType,
    device: Device,
    entries: BTreeMap<String, Entry>,
    /// The number of changes that each scope reported.
    changes: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Entry {
    var: Var,
    role: VarRole,
}

/// The purpose of a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum VarRole {
    /// Learns from gradients.
    Learned,
    /// Part of the model, but not changed by gradients.
    Buffer,
    /// Needed to resume training, but not part of the model.
    State,
}

impl VarRole {
    /// The method that makes such a variable.
    fn word(self) -> &'static str {
        match self {
            Self::Learned => "get",
            Self::Buffer => "buffer",
            Self::State => "state",
        }
    }
}

/// The largest number of elements of a variable. A larger width is assumed to be a typing
/// error.
const LARGEST: usize = 1 << 31;

impl Vars {
    /// An empty tree.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        let tree = Tree {
            seed,
            dtype,
            device: device.clone(),
            entries: BTreeMap::new(),
            changes: BTreeMap::new(),
        };
        Self {
            tree: Arc::new(Mutex::new(tree)),
            prefix: String::new(),
        }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        // A panic in another thread cannot leave the map in an invalid state: every
        // change is one insertion.
        self.tree
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The scope `name` below this one.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self {
            tree: self.tree.clone(),
            prefix: self.path(&name.to_string()),
        }
    }

    /// The full name of `name` in this scope.
    pub fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// The element type of every variable.
    pub fn dtype(&self) -> DType {
        self.tree().dtype
    }

    /// The device of every variable.
    pub fn device(&self) -> Device {
        self.tree().device.clone()
    }

    /// The learned variable `name`, initialised with `init` if it is new.
    ///
    /// # Errors
    /// [`Error::Shape`] if it exists with another shape; [`Error::Usage`] if it exists as
    /// another kind of variable, or is too large for memory.
    pub fn get(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.entry(name, shape.into(), init, self.dtype(), VarRole::Learned)
    }

    /// A variable that gradients do not change, such as a running mean. It is part of the
    /// model.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn buffer(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        self.entry(name, shape.into(), init, self.dtype(), VarRole::Buffer)
    }

    /// A variable that only training needs, such as a sum over an epoch or a pool of
    /// samples. It starts at zero and can have any element type. It is saved for
    /// resuming, and is not part of the model.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn state(&self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Var> {
        self.entry(name, shape.into(), Init::Const(0.), dtype, VarRole::State)
    }

    fn entry(
        &self,
        name: &str,
        shape: Shape,
        init: Init,
        dtype: DType,
        role: VarRole,
    ) -> Result<Var> {
        let path = self.path(name);
        let mut tree = self.tree();
        if let Some(entry) = tree.entries.get(&path) {
            if entry.var.shape() != &shape {
                let expected = format!("{:?}", shape.dims());
                return Err(Error::shape(path, entry.var.dims(), expected));
            }
            if (entry.role, entry.var.dtype()) != (role, dtype) {
                let named = |role: VarRole, dtype: DType| {
                    format!("a variable from `Vars::{}` of {dtype:?}", role.word())
                };
                let problem = format!(
                    "expected {}, found {} with this name",
                    named(role, dtype),
                    named(entry.role, entry.var.dtype())
                );
                return Err(Error::usage(path, problem));
            }
            return Ok(entry.var.clone());
        }
        let dims = shape.dims();
        let count = dims
            .iter()
            .try_fold(1usize, |count, &dim| count.checked_mul(dim));
        let Some(count) = count.filter(|&count| count <= LARGEST) else {
            let problem =
                format!("a variable of shape {dims:?} is too large; the limit is 2^31 elements");
            return Err(Error::usage(path, problem));
        };
        let bytes = count.saturating_mul(dtype.size_in_bytes());
        tree.check_memory(&path, dims, bytes)?;
        let values = draw(tree.seed, &path, &shape, count, init);
        let tensor = Tensor::from_vec(values, shape, &tree.device)?.to_dtype(dtype)?;
        let var = Var::from_tensor(&tensor)?;
        tree.entries.insert(
            path,
            Entry {
                var: var.clone(),
                role,
            },
        );
        Ok(var)
    }

    /// A candle `VarBuilder` for this scope. Everything that `candle_nn` makes with it is
    /// seeded, saved and learned.
    pub fn builder(&self) -> VarBuilder<'static> {
        let backend: Box<dyn SimpleBackend> = Box::new(self.clone());
        VarBuilder::from_backend(backend, self.dtype(), self.device())
    }

    /// All variables in and below this scope, by full name, in the order of the names.
    pub fn all(&self) -> Vec<(String, Var)> {
        self.entries(|_| true)
    }

    /// The variables that learn from gradients.
    pub fn learned(&self) -> Vec<(String, Var)> {
        self.entries(|role| role == VarRole::Learned)
    }

    /// The variables of the model: learned variables and buffers.
    pub fn model(&self) -> Vec<(String, Var)> {
        self.entries(|role| role != VarRole::State)
    }

    /// The variables that only training needs; see [`Vars::state`].
    pub fn training_state(&self) -> Vec<(String, Var)> {
        self.entries(|role| role == VarRole::State)
    }

    /// The variables of the model that gradients do not change; see [`Vars::buffer`].
    pub(crate) fn buffers(&self) -> Vec<(String, Var)> {
        self.entries(|role| role == VarRole::Buffer)
    }

    /// A checksum of the values of the model's variables in and below this scope.
    ///
    /// # Errors
    /// Errors of candle.
    pub(crate) fn checksum(&self) -> Result<u32> {
        let mut crc = Crc::new();
        for (_, var) in self.model() {
            let values = var.as_detached_tensor().to_device(&Device::Cpu)?;
            let values = values.to_dtype(DType::F64)?.flatten_all()?;
            for value in values.to_vec1::<f64>()? {
                crc.update(&value.to_le_bytes());
            }
        }
        Ok(crc.sum())
    }

    fn entries(&self, keep: impl Fn(VarRole) -> bool) -> Vec<(String, Var)> {
        let tree = self.tree();
        let entries = tree.entries.iter();
        let own = entries.filter(|(path, entry)| self.is_above(path) && keep(entry.role));
        own.map(|(path, entry)| (path.clone(), entry.var.clone()))
            .collect()
    }

    /// Whether a full name is in or below this scope.
    fn is_above(&self, path: &str) -> bool {
        path != self.prefix && is_within(path, &self.prefix)
    }

    /// Whether `var` is the learned variable with this full name, in or below this scope.
    pub(crate) fn learns(&self, path: &str, var: &Var) -> bool {
        let tree = self.tree();
        let is_it = |entry: &Entry| entry.var.id() == var.id() && entry.role == VarRole::Learned;
        self.is_above(path) && tree.entries.get(path).is_some_and(is_it)
    }

    /// A counter of the changes of the variables in and below this scope. Caches compare
    /// it. A change that a scope above reports counts too.
    pub fn version(&self) -> u64 {
        let tree = self.tree();
        let is_near =
            |place: &str| is_within(place, &self.prefix) || is_within(&self.prefix, place);
        let near = tree.changes.iter().filter(|(place, _)| is_near(place));
        near.map(|(_, count)| count).sum()
    }

    /// Reports that a variable in or below this scope was changed in place without an
    /// [`Optimiser`](crate::Optimiser).
    pub fn changed(&self) {
        *self.tree().changes.entry(self.prefix.clone()).or_default() += 1;
    }

    /// Sets every variable of the model in and below this scope to its value in
    /// `tensors`.
    ///
    /// No variable is changed unless all of them fit.
    ///
    /// # Errors
    /// [`Error::Usage`] if a variable is missing or unknown; [`Error::Shape`] if the
    /// shapes differ.
    pub fn restore(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.set_all(self.model(), tensors)
    }

    /// Sets every variable that only training needs to its value in `tensors`; see
    /// [`Vars::restore`].
    ///
    /// # Errors
    /// As [`Vars::restore`].
    pub fn restore_training_state(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.set_all(self.training_state(), tensors)
    }

    fn set_all(
        &self,
        variables: Vec<(String, Var)>,
        tensors: &HashMap<String, Tensor>,
    ) -> Result<()> {
        for (path, var) in &variables {
            let Some(tensor) = tensors.get(path) else {
                let problem =
                    "missing from the saved state, which is of a network with other settings";
                return Err(Error::usage(path, problem));
            };
            if tensor.dims() != var.dims() {
                return Err(Error::shape(
                    path,
                    tensor.dims(),
                    format!("shape {:?}", var.dims()),
                ));
            }
        }
        let is_known = |path: &String| variables.iter().any(|(known, _)| known == path);
        if let Some(path) = tensors.keys().filter(|path| !is_known(path)).min() {
            return Err(Error::usage(
                path,
                "saved, but this architecture has no such variable",
            ));
        }
        for (path, var) in &variables {
            var.set(
                &tensors[path]
                    .to_dtype(var.dtype())?
                    .to_device(var.device())?,
            )?;
        }
        self.changed();
        Ok(())
    }
}

impl Tree {
    /// Refuses a variable of `bytes` that does not fit into memory: the system would kill
    /// the process without a message.
    fn check_memory(&self, path: &str, dims: &[usize], bytes: usize) -> Result<()> {
        let needed = self.needed(bytes);
        let free = kernels::free_memory(&self.device);
        let is_free = free.is_none_or(|free| needed as u64 <= free);
        // A first copy of every variable is on the CPU.
        if is_free && Vec::<u8>::new().try_reserve_exact(needed).is_ok() {
            return Ok(());
        }
        let free = free.map_or(String::new(), |free| format!(" of {} MB", free >> 20));
        let problem = format!(
            "with a variable of shape {dims:?} the network and its optimiser need \
             another {} MB, more than the free memory{free}; use fewer units",
            needed >> 20
        );
        Err(Error::usage(path, problem))
    }

    /// The bytes that a variable of `bytes` needs, with the optimiser of all variables:
    /// as much again for each that learns. Those that there are have been allocated.
    fn needed(&self, bytes: usize) -> usize {
        let entries = self.entries.values();
        let learned = entries.filter(|entry| entry.role == VarRole::Learned);
        let size = |entry: &Entry| entry.var.elem_count() * entry.var.dtype().size_in_bytes();
        learned
            .map(size)
            .fold(bytes.saturating_mul(2), usize::saturating_add)
    }
}

/// Whether a full name is that of a scope, or below it.
fn is_within(path: &str, scope: &str) -> bool {
    let rest = path.strip_prefix(scope);
    scope.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn draw(seed: u64, path: &str, shape: &Shape, count: usize, init: Init) -> Vec<f32> {
    let mut rng = random::stream(seed, path, 0);
    let mut normal = |mean: f64, deviation: f64| -> Vec<f32> {
        (0..count)
            .map(|_| {
                let standard: f64 = StandardNormal.sample(&mut rng);
                (mean + deviation * standard) as f32
            })
            .collect()
    };
    match init {
        Init::Const(value) => vec![value as f32; count],
        Init::Randn { mean, stdev } => normal(mean, stdev),
        Init::Uniform { lo, up } => uniform(&mut rng, count, lo, up),
        Init::Kaiming {
            dist,
            fan,
            non_linearity,
        } => {
            let deviation = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            match dist {
                candle_nn::init::NormalOrUniform::Normal => normal(0., deviation),
                candle_nn::init::NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * deviation;
                    uniform(&mut rng, count, -bound, bound)
                }
            }
        }
    }
}

fn uniform(rng: &mut impl rand::Rng, count: usize, lo: f64, up: f64) -> Vec<f32> {
    let sample = |_| {
        let unit: f64 = StandardUniform.sample(rng);
        (lo + (up - lo) * unit) as f32
    };
    (0..count).map(sample).collect()
}

impl SimpleBackend for Vars {
    fn get(
        &self,
        s: Shape,
        name: &str,
        h: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let var = Vars::get(self, name, s, h).map_err(candle_core::Error::wrap)?;
        if dtype == var.dtype() {
            return Ok(var.as_tensor().clone());
        }
        candle_core::bail!(
            "{}: expected element type {:?}, found {dtype:?}",
            self.path(name),
            var.dtype()
        )
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.tree().entries.get(&self.path(name)) {
            Some(entry) => Ok(entry.var.as_tensor().clone()),
            None => candle_core::bail!("{}: no such variable", self.path(name)),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tree().entries.contains_key(&self.path(name))
    }
}

#[cfg(test)]
mod tests;
