//! Tables of images, as the hub has them.

use std::io::Cursor;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

pub const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label;
}";

pub type Row = (Option<Vec<u8>>, i64);

pub fn parquet(schema: &str, rows: &[Row], group: usize) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    for rows in rows.chunks(group) {
        let mut columns = writer.next_row_group().unwrap();
        let levels: Vec<i16> = rows
            .iter()
            .map(|(image, _)| if image.is_some() { 2 } else { 0 })
            .collect();
        let bytes: Vec<ByteArray> = rows
            .iter()
            .filter_map(|(image, _)| image.clone().map(ByteArray::from))
            .collect();
        let mut image = columns.next_column().unwrap().unwrap();
        image
            .typed::<ByteArrayType>()
            .write_batch(&bytes, Some(&levels), None)
            .unwrap();
        image.close().unwrap();
        let mut path = columns.next_column().unwrap().unwrap();
        path.typed::<ByteArrayType>()
            .write_batch(&[], Some(&vec![0; rows.len()]), None)
            .unwrap();
        path.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|&(_, label)| label).collect();
        let mut label = columns.next_column().unwrap().unwrap();
        label
            .typed::<Int64Type>()
            .write_batch(&labels, Some(&vec![1; rows.len()]), None)
            .unwrap();
        label.close().unwrap();
        columns.close().unwrap();
    }
    writer.into_inner().unwrap()
}

pub fn png(image: impl Into<image::DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .into()
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

pub fn grey(width: u32, height: u32, value: u8) -> Vec<u8> {
    png(image::GrayImage::from_fn(width, height, |x, y| {
        image::Luma([value.wrapping_add((10 * y + x) as u8)])
    }))
}

/// Rows with `counts[c]` images of each class `c`, with alternating classes.
pub fn rows(counts: &[usize]) -> Vec<Row> {
    let mut rows = Vec::new();
    for turn in 0..counts.iter().copied().max().unwrap_or(0) {
        let having = (0..counts.len()).filter(|&class| counts[class] > turn);
        rows.extend(having.map(|class| {
            (
                Some(grey(5, 4, 50 * class as u8 + turn as u8)),
                class as i64,
            )
        }));
    }
    rows
}
