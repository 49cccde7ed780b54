//! Data sets and their file formats. Named data sets are plugins.

mod bytes;
pub(crate) mod channels;
pub mod cifar;
mod data_set;
mod drawn;
pub(crate) mod files;
mod growing;
pub mod hub;
pub mod idx;
pub mod images;
pub mod numbers;
pub mod pictures;
pub mod pixels;
mod room;
pub mod score;
pub mod text;

pub use self::data_set::{Content, DataSet, ExampleSpec, Framing};
pub(crate) use self::files::cache;
pub use self::files::{at_home, find, folder};
pub use self::room::Room;
pub use crate::flow::examples::{Augment, Examples, Split};
