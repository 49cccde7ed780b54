//! Images in a parquet file, checked before use.

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::FileReader;
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;

use super::Hub;
use crate::data::images::Images;
use crate::data::pictures;

/// The images of a table, or a message if they are not as expected. `counts` has the
/// number of images of each class.
pub(super) fn images(
    table: &dyn FileReader,
    hub: &Hub,
    counts: &[usize],
) -> Result<Images, String> {
    // The library panics on some damaged files. Known cases are checked first.
    let chunks = table
        .metadata()
        .row_groups()
        .iter()
        .flat_map(|group| group.columns());
    let places = |chunk: &ColumnChunkMetaData| {
        [
            Some(chunk.compressed_size()),
            Some(chunk.data_page_offset()),
            chunk.dictionary_page_offset(),
        ]
    };
    if let Some(negative) = chunks.flat_map(places).flatten().find(|number| *number < 0) {
        return Err(format!(
            "the file is damaged: found a column with a negative offset or length, \
             {negative}"
        ));
    }
    let read = std::panic::AssertUnwindSafe(|| read(table, hub, counts));
    std::panic::catch_unwind(read)
        .unwrap_or_else(|_| Err("the file is damaged: its reader panicked".into()))
}

fn read(table: &dyn FileReader, hub: &Hub, counts: &[usize]) -> Result<Images, String> {
    let [images, labels] = hub.columns;
    let image = column(table, &format!("{images}.bytes"), Type::BYTE_ARRAY)?;
    let label = column(table, labels, Type::INT64)?;
    let size: usize = counts.iter().sum();
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for group in 0..table.num_row_groups() {
        let first = classes.len();
        let rows = table
            .get_row_group(group)
            .map_err(|error| error.to_string())?;
        let expected = usize::try_from(rows.metadata().num_rows())
            .unwrap_or(0)
            .min(size);
        let (pictures, labels) =
            match (rows.get_column_reader(image), rows.get_column_reader(label)) {
                (
                    Ok(ColumnReader::ByteArrayColumnReader(pictures)),
                    Ok(ColumnReader::Int64ColumnReader(labels)),
                ) => (values(pictures, expected)?, values(labels, expected)?),
                (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
                _ => return Err("a column does not have the stated type".into()),
            };
        for (row, label) in (first..).zip(labels) {
            let class = usize::try_from(label)
                .ok()
                .filter(|&class| class < counts.len());
            let class = class.and_then(|class| u8::try_from(class).ok());
            let expected = counts.len() - 1;
            classes
                .push(class.ok_or_else(|| {
                    format!("row {row}: class {label}, expected 0 to {expected}")
                })?);
        }
        let decoded: Vec<Vec<u8>> = (first..)
            .zip(pictures)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(row, picture)| {
                exactly(picture.data(), hub.shape).map_err(|why| format!("row {row}: {why}"))
            })
            .collect::<Result<_, _>>()?;
        pixels.extend(decoded.into_iter().flatten());
    }
    for (class, &expected) in counts.iter().enumerate() {
        let found = classes
            .iter()
            .filter(|&&found| usize::from(found) == class)
            .count();
        if found != expected {
            return Err(format!(
                "{found} images of class {class}, expected {expected}"
            ));
        }
    }
    Images::new(pixels, classes, hub.shape).map_err(|error| error.to_string())
}

fn column(table: &dyn FileReader, path: &str, kind: Type) -> Result<usize, String> {
    let columns = table.metadata().file_metadata().schema_descr().columns();
    let fits = |column: &ColumnDescriptor| {
        column.path().string() == path
            && column.physical_type() == kind
            && column.max_rep_level() == 0
    };
    columns
        .iter()
        .position(|column| fits(column))
        .ok_or_else(|| {
            let found: Vec<String> = columns
                .iter()
                .map(|c| format!("{} {}", c.path().string(), c.physical_type()))
                .collect();
            format!(
                "has no column {path} of type {kind}; it has {}",
                found.join(", ")
            )
        })
}

/// The values of a column of `expected` rows, none of which may be missing.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    expected: usize,
) -> Result<Vec<T::T>, String> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let read = reader.read_records(expected, Some(&mut levels), None, &mut values);
    read.map_err(|error| error.to_string())?;
    match values.len() {
        found if found == expected => Ok(values),
        found => Err(format!(
            "{found} values in a column of {expected} rows; the others are missing"
        )),
    }
}

/// The bytes of an image, channel by channel, or a message if it does not have this
/// shape.
fn exactly(picture: &[u8], shape: [usize; 3]) -> Result<Vec<u8>, String> {
    let image = pictures::decode(picture)?;
    let [channels, height, width] = shape;
    let color = image.color();
    let found = [
        usize::from(color.channel_count()),
        image.height() as usize,
        image.width() as usize,
    ];
    if found != shape || color.bytes_per_pixel() != color.channel_count() {
        return Err(format!(
            "an image of shape {found:?}, {color:?}, expected {shape:?} with 8 bits per \
             channel"
        ));
    }
    let interleaved = image.as_bytes();
    let channel = |channel| interleaved.iter().skip(channel).step_by(channels).copied();
    let bytes: Vec<u8> = (0..channels).flat_map(channel).collect();
    debug_assert_eq!(bytes.len(), channels * height * width);
    Ok(bytes)
}
