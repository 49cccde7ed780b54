//! What a network computes, as a list of operations that other programs can read.

use candle_core::{DType, Device, Tensor, D};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::flow::input::{Normalise, SHORTEST};

/// Why a part of a network is not in a graph.
pub(crate) const NOT_EXPORTED: &str =
    "this one cannot be exported; its scores come from `onward predict`. To the author of the \
     plugin: it has no method `graph`";

/// A value of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Node(usize);

/// An operation on values with `R` rows each. Constants have no rows; they are repeated.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// The examples, `(R, …)`.
    Input,
    /// Numbers, such as a variable of the network.
    Constant {
        /// The full name of the variable, or a name that no variable has.
        name: String,
    },
    /// `(R, D)` and a constant `(D, N)` to `(R, N)`.
    Matmul,
    /// `a + b`.
    Add,
    /// `a·b`, element by element.
    Multiply,
    /// `a / b`, element by element.
    Divide,
    /// The larger of `a` and `b`.
    Maximum,
    /// `max(a, slope·a)`.
    LeakyRelu {
        /// 0 for the usual ReLU.
        slope: f64,
    },
    /// `√a`.
    Sqrt,
    /// `log softmax` over the columns of `(R, C)`.
    LogSoftmax,
    /// The sum over the last dimension, `(R, A, M)` to `(R, A)`.
    SumLast,
    /// Images `(R, C, H, W)` and kernels `(N, C, K, K)` to `(R, N, H, W)`, with zeros
    /// around the images.
    Conv {
        /// The number of zeros on each side.
        padding: usize,
    },
    /// The largest of each `size×size` pixels; what is left at the edges is dropped.
    MaxPool {
        /// Height and width.
        size: usize,
    },
    /// The mean of each cell of pixels.
    MeanPool {
        /// Height and width.
        size: [usize; 2],
    },
    /// The same numbers with another shape of a row.
    Shape {
        /// The shape without the rows.
        dims: Vec<usize>,
    },
    /// The numbers of a constant in another shape, such as `(N,)` as `(N, 1, 1)`.
    Reshape {
        /// The whole shape.
        dims: Vec<usize>,
    },
    /// Columns of zeros after those of `(R, D)`.
    PadColumns {
        /// Their number.
        count: usize,
    },
    /// Columns side by side.
    ConcatColumns,
    /// Rows one below the other: views of the same examples, `(V·R, …)`.
    ConcatRows,
    /// Numbers of views, `(V·R, 1)`, as a row for each view, `(V, R)`.
    Views {
        /// `V`.
        count: usize,
    },
    /// Rows and columns exchanged.
    Transpose,
}

/// An operation with its arguments.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// What is done.
    #[serde(flatten)]
    pub operation: Operation,
    /// To which values.
    pub of: Vec<Node>,
    /// The shape of the result without its rows; of a constant its whole shape.
    pub shape: Vec<usize>,
}

impl Entry {
    fn is_constant(&self, name: &str) -> bool {
        matches!(&self.operation, Operation::Constant { name: own } if own == name)
    }
}

/// Operations in the order in which they can be computed. The last one is the result.
///
/// Layers, goodness functions and architectures add theirs. `Run::graph` asks them, and
/// compares the result with the network's own.
///
/// ```
/// use onward_core::candle_core::{Device, Tensor};
/// use onward_core::flow::graph::Graph;
///
/// let mut graph = Graph::default();
/// let x = graph.input(&[2]);
/// let weight = graph.constant(&Tensor::new(&[[1f32, 0.], [1., -1.]], &Device::Cpu)?)?;
/// let sums = graph.matmul(x, weight)?;
/// graph.relu(sums);
///
/// let rows = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// assert_eq!(graph.evaluate(&rows)?.to_vec2::<f32>()?, [[3., 0.]]);
/// # Ok::<(), onward_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Graph {
    entries: Vec<Entry>,
    constants: Vec<(String, Tensor)>,
}

impl Node {
    /// The place of its operation among those of the graph.
    pub fn index(self) -> usize {
        self.0
    }
}

impl Graph {
    /// The operations.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The constants by name, in 32 bits on the CPU.
    pub fn constants(&self) -> &[(String, Tensor)] {
        &self.constants
    }

    /// The shape of a value without its rows; of a constant its whole shape.
    pub fn shape(&self, node: Node) -> &[usize] {
        &self.entries[node.0].shape
    }

    fn width(&self, node: Node) -> usize {
        self.shape(node).iter().product()
    }

    fn push(&mut self, operation: Operation, of: &[Node], shape: Vec<usize>) -> Node {
        let of = of.to_vec();
        self.entries.push(Entry {
            operation,
            of,
            shape,
        });
        Node(self.entries.len() - 1)
    }

    /// The examples, each of this shape.
    pub fn input(&mut self, shape: &[usize]) -> Node {
        self.push(Operation::Input, &[], shape.to_vec())
    }

    /// A variable by its full name.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn variable(&mut self, name: &str, value: &Tensor) -> Result<Node> {
        if let Some(known) = self
            .entries
            .iter()
            .position(|entry| entry.is_constant(name))
        {
            return Ok(Node(known));
        }
        let value = value.detach().to_device(&Device::Cpu)?;
        let value = value.to_dtype(DType::F32)?.contiguous()?;
        let (shape, name) = (value.dims().to_vec(), name.to_string());
        self.constants.push((name.clone(), value));
        Ok(self.push(Operation::Constant { name }, &[], shape))
    }

    /// Numbers that are no variable.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn constant(&mut self, value: &Tensor) -> Result<Node> {
        let name = format!("constant.{}", self.constants.len());
        self.variable(&name, value)
    }

    /// A single number.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn number(&mut self, value: f64) -> Result<Node> {
        self.constant(&Tensor::new(&[value as f32], &Device::Cpu)?)
    }

    /// `x·W` for rows `(R, D)` and a constant `(D, N)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not match.
    pub fn matmul(&mut self, x: Node, weight: Node) -> Result<Node> {
        match self.shape(x) {
            [_] => self.matmul_of_each(x, weight),
            found => Err(Error::shape("matmul", found, "rows (R, D)")),
        }
    }

    /// `x·W` for each of the rows of an example, `(R, …, D)`, and a constant `(D, N)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not match.
    pub fn matmul_of_each(&mut self, x: Node, weight: Node) -> Result<Node> {
        match (self.shape(x), self.shape(weight)) {
            (&[ref sides @ .., columns], &[rows, units]) if columns == rows => {
                let shape = [sides, &[units]].concat();
                Ok(self.push(Operation::Matmul, &[x, weight], shape))
            }
            (x, weight) => Err(Error::shape("matmul", x, format!("as {weight:?}"))),
        }
    }

    /// `a + b`.
    pub fn add(&mut self, a: Node, b: Node) -> Node {
        self.push(Operation::Add, &[a, b], self.shape(a).to_vec())
    }

    /// `a·b`, element by element.
    pub fn multiply(&mut self, a: Node, b: Node) -> Node {
        self.push(Operation::Multiply, &[a, b], self.shape(a).to_vec())
    }

    /// `a` times a number.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn times(&mut self, a: Node, factor: f64) -> Result<Node> {
        let factor = self.number(factor)?;
        Ok(self.multiply(a, factor))
    }

    /// `max(a, 0)`.
    pub fn relu(&mut self, a: Node) -> Node {
        self.leaky_relu(a, 0.)
    }

    /// `max(a, slope·a)`.
    pub fn leaky_relu(&mut self, a: Node, slope: f64) -> Node {
        let shape = self.shape(a).to_vec();
        self.push(Operation::LeakyRelu { slope }, &[a], shape)
    }

    /// The logarithm of the softmax over the columns.
    pub fn log_softmax(&mut self, a: Node) -> Node {
        self.push(Operation::LogSoftmax, &[a], self.shape(a).to_vec())
    }

    /// The sum of each of `groups` equal parts of a row, `(R, groups)`.
    pub fn sums(&mut self, a: Node, groups: usize) -> Node {
        let each = self.width(a) / groups.max(1);
        let grouped = self.shaped(a, &[groups, each]);
        self.push(Operation::SumLast, &[grouped], vec![groups])
    }

    /// The sum of the squares of a row, `(R, 1)`.
    pub fn sum_squares(&mut self, a: Node) -> Node {
        let squares = self.multiply(a, a);
        self.sums(squares, 1)
    }

    /// A convolution of images with kernels of odd size, and zeros around the images.
    pub fn conv(&mut self, x: Node, kernels: Node) -> Node {
        let (mut shape, of_kernels) = (self.shape(x).to_vec(), self.shape(kernels));
        let padding = of_kernels[3] / 2;
        shape[0] = of_kernels[0];
        self.push(Operation::Conv { padding }, &[x, kernels], shape)
    }

    /// The largest of each `size×size` pixels.
    pub fn max_pool(&mut self, x: Node, size: usize) -> Node {
        if size == 1 {
            return x;
        }
        let [channels, height, width] = [0, 1, 2].map(|side| self.shape(x)[side]);
        let shape = vec![channels, height / size, width / size];
        self.push(Operation::MaxPool { size }, &[x], shape)
    }

    /// The mean of each cell of pixels.
    pub fn mean_pool(&mut self, x: Node, size: [usize; 2]) -> Node {
        let [channels, height, width] = [0, 1, 2].map(|side| self.shape(x)[side]);
        let shape = vec![channels, height / size[0], width / size[1]];
        self.push(Operation::MeanPool { size }, &[x], shape)
    }

    /// The same numbers with another shape of a row.
    pub fn shaped(&mut self, x: Node, dims: &[usize]) -> Node {
        if self.shape(x) == dims {
            return x;
        }
        let operation = Operation::Shape {
            dims: dims.to_vec(),
        };
        self.push(operation, &[x], dims.to_vec())
    }

    /// A constant with another shape.
    pub fn reshaped(&mut self, constant: Node, dims: &[usize]) -> Node {
        if self.shape(constant) == dims {
            return constant;
        }
        let dims = dims.to_vec();
        let operation = Operation::Reshape { dims: dims.clone() };
        self.push(operation, &[constant], dims)
    }

    /// The numbers of a row side by side, `(R, D)`.
    pub fn flat(&mut self, x: Node) -> Node {
        self.shaped(x, &[self.width(x)])
    }

    /// Rows of `width` columns, with zeros after those of `(R, D)`.
    pub fn padded(&mut self, x: Node, width: usize) -> Node {
        let count = width - self.width(x);
        if count == 0 {
            return x;
        }
        self.push(Operation::PadColumns { count }, &[x], vec![width])
    }

    /// Columns side by side.
    pub fn beside(&mut self, parts: &[Node]) -> Node {
        if let [part] = parts {
            return *part;
        }
        let width = parts.iter().map(|part| self.width(*part)).sum();
        self.push(Operation::ConcatColumns, parts, vec![width])
    }

    /// Views of the same examples, one below the other.
    pub fn views(&mut self, views: &[Node]) -> Node {
        let shape = self.shape(views[0]).to_vec();
        self.push(Operation::ConcatRows, views, shape)
    }

    /// A number for each of `views`, `(V·R, 1)`, as columns, `(R, V)`.
    pub fn views_as_columns(&mut self, x: Node, views: usize) -> Node {
        let rows = self.push(Operation::Views { count: views }, &[x], Vec::new());
        self.push(Operation::Transpose, &[rows], vec![views])
    }

    /// Rows that are normalised as [`Input::normalised`](crate::Input::normalised) does.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn normalised(&mut self, x: Node, how: Normalise) -> Result<Node> {
        let Some(length) = how.length(self.width(x)) else {
            return Ok(x);
        };
        let (shape, rows) = (self.shape(x).to_vec(), self.flat(x));
        let squares = self.sum_squares(rows);
        let root = self.push(Operation::Sqrt, &[squares], vec![1]);
        let shortest = self.number(SHORTEST)?;
        let root = self.push(Operation::Maximum, &[root, shortest], vec![1]);
        let unit = self.push(Operation::Divide, &[rows, root], self.shape(rows).to_vec());
        let scaled = self.times(unit, length)?;
        Ok(self.shaped(scaled, &shape))
    }

    /// The same without operations that the result does not need.
    pub fn pruned(self) -> Self {
        let mut needed = vec![false; self.entries.len()];
        for (index, entry) in self.entries.iter().enumerate().rev() {
            let is_last = index + 1 == self.entries.len();
            needed[index] |= is_last || entry.operation == Operation::Input;
            if needed[index] {
                entry.of.iter().for_each(|node| needed[node.0] = true);
            }
        }
        let mut place = vec![0; self.entries.len()];
        let mut pruned = Self::default();
        for (index, mut entry) in self.entries.into_iter().enumerate() {
            if !needed[index] {
                continue;
            }
            place[index] = pruned.entries.len();
            entry
                .of
                .iter_mut()
                .for_each(|node| *node = Node(place[node.0]));
            pruned.entries.push(entry);
        }
        let constants = self.constants.into_iter();
        pruned.constants = constants
            .filter(|(name, _)| pruned.entries.iter().any(|entry| entry.is_constant(name)))
            .collect();
        pruned
    }

    /// The result for examples `(R, …)` on the CPU, with candle's operations.
    ///
    /// # Errors
    /// Errors of candle, for example if the examples have another shape.
    pub fn evaluate(&self, examples: &Tensor) -> Result<Tensor> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let of: Vec<&Tensor> = entry.of.iter().map(|node| &values[node.0]).collect();
            values.push(self.compute(entry, &of, examples)?);
        }
        let last = values.pop();
        last.ok_or_else(|| Error::usage("graph", "there is no operation"))
    }

    fn compute(&self, entry: &Entry, of: &[&Tensor], examples: &Tensor) -> Result<Tensor> {
        Ok(match &entry.operation {
            Operation::Input => examples.clone(),
            Operation::Constant { name } => {
                let found = self.constants.iter().find(|(known, _)| known == name);
                let found = found.map(|(_, value)| value.clone());
                found.ok_or_else(|| Error::usage(name, "there is no such constant"))?
            }
            Operation::Matmul => of[0].broadcast_matmul(of[1])?,
            Operation::Add => of[0].broadcast_add(of[1])?,
            Operation::Multiply => of[0].broadcast_mul(of[1])?,
            Operation::Divide => of[0].broadcast_div(of[1])?,
            Operation::Maximum => of[0].broadcast_maximum(of[1])?,
            Operation::LeakyRelu { slope } => crate::kernels::leaky_relu(of[0], *slope)?,
            Operation::Sqrt => of[0].sqrt()?,
            Operation::LogSoftmax => crate::kernels::log_softmax(of[0])?,
            Operation::SumLast => of[0].sum(D::Minus1)?,
            Operation::Conv { padding } => of[0].conv2d(of[1], *padding, 1, 1, 1)?,
            Operation::MaxPool { size } => of[0].max_pool2d(*size)?,
            Operation::MeanPool { size } => of[0].avg_pool2d((size[0], size[1]))?,
            Operation::Shape { dims } => of[0].reshape([&[of[0].dim(0)?], &dims[..]].concat())?,
            Operation::Reshape { dims } => of[0].reshape(&dims[..])?,
            Operation::PadColumns { count } => of[0].pad_with_zeros(1, 0, *count)?,
            Operation::ConcatColumns => Tensor::cat(of, 1)?,
            Operation::ConcatRows => Tensor::cat(of, 0)?,
            Operation::Views { count } => of[0].reshape((*count, ()))?,
            Operation::Transpose => of[0].t()?.contiguous()?,
        })
    }
}

/// The inputs of a network in a [`Graph`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// The neutral view, `(R, …)`.
    pub neutral: Node,
    /// A view for each class, `(C·R, …)`, and the number of classes, if the sampler makes
    /// hypotheses.
    pub hypotheses: Option<(Node, usize)>,
}
