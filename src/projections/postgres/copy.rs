//! Rows as a binary copy stream: the quickest way into a table that has no key to meet.
//!
//! The stream goes out in pieces while the rest is still being written, so that the server works beside us.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::bounded;
use super::bulk::Kind;
use crate::projections::bulk::Cell;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Bytes per piece: a few of them fit between the two processes.
const PIECE_BYTES: usize = 64 << 10;

/// Copies whole rows of `kinds` by `sql`, a `COPY ... FROM STDIN (FORMAT binary)`.
pub async fn copy(
    connection: &mut PgConnection,
    sql: &str,
    kinds: &[Kind],
    cells: impl IntoIterator<Item = Cell>,
    at_most: Duration,
) -> Result<(), sqlx::Error> {
    let mut stream = bounded(at_most, connection.copy_in_raw(sql)).await?;
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4096);
    piece.extend_from_slice(SIGNATURE);
    for (at, cell) in cells.into_iter().enumerate() {
        let column = at % kinds.len();
        if column == 0 {
            if piece.len() >= PIECE_BYTES {
                bounded(at_most, stream.send(piece.as_slice())).await?;
                piece.clear();
            }
            piece.extend_from_slice(&(kinds.len() as i16).to_be_bytes());
        }
        put(&mut piece, kinds[column], cell.storable());
    }
    piece.extend_from_slice(&(-1i16).to_be_bytes());
    bounded(at_most, stream.send(piece.as_slice())).await?;
    bounded(at_most, stream.finish()).await.map(drop)
}

fn put(piece: &mut Vec<u8>, kind: Kind, cell: Cell) {
    let mut field = |bytes: &[u8]| {
        piece.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        piece.extend_from_slice(bytes);
    };
    match (kind, cell) {
        (_, Cell::Null) => piece.extend_from_slice(&(-1i32).to_be_bytes()),
        (Kind::Bool, Cell::Int(number)) => field(&[u8::from(number != 0)]),
        (Kind::Float, Cell::Int(number)) => field(&(number as f64).to_be_bytes()),
        (_, Cell::Int(number)) => field(&number.to_be_bytes()),
        (_, Cell::Float(number)) => field(&number.to_be_bytes()),
        (_, Cell::Text(text)) => field(text.as_bytes()),
    }
}
