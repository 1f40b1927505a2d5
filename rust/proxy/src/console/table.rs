//! Rows as a server sends them.

use flightmode_wire::server::FromServer;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    Int(i64),
    Float(f64),
    Null,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Int(number as i64)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Int(number as i64)
    }
}

impl From<bool> for Cell {
    fn from(is: bool) -> Self {
        Self::Int(i64::from(is))
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

pub type Row = Vec<Cell>;

/// What a column holds, by the numbers that Postgres has for types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int = 20,
    Text = 25,
    Float = 701,
}

/// Columns and rows.
pub struct Table {
    pub columns: &'static [(&'static str, Type)],
    pub rows: Vec<Row>,
}

impl Table {
    /// Its description and its rows; not the end of the command.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = count(self.columns.len());
        for (name, kind) in self.columns {
            body.extend_from_slice(name.as_bytes());
            // No table, no column of one.
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&(*kind as u32).to_be_bytes());
            let width: i16 = if *kind == Type::Text { -1 } else { 8 };
            body.extend_from_slice(&width.to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&[0; 2]);
        }
        FromServer::RowDescription(&body).write(out);
        for row in &self.rows {
            let mut body = count(row.len());
            for cell in row {
                let text = match cell {
                    Cell::Null => {
                        body.extend_from_slice(&(-1_i32).to_be_bytes());
                        continue;
                    }
                    Cell::Text(text) => text.clone(),
                    Cell::Int(number) => number.to_string(),
                    Cell::Float(number) => number.to_string(),
                };
                body.extend_from_slice(&(text.len() as i32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
            FromServer::DataRow(&body).write(out);
        }
    }
}

fn count(length: usize) -> Vec<u8> {
    (length as i16).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_length_and_nulls_have_none() {
        let table = Table {
            columns: &[("n", Type::Int), ("t", Type::Text)],
            rows: vec![vec![7_usize.into(), Cell::Null]],
        };
        let mut out = Vec::new();
        table.write(&mut out);
        let row = b"D\0\0\0\x0f\0\x02\0\0\0\x017\xff\xff\xff\xff";
        assert_eq!(&out[out.len() - row.len()..], row);
        assert_eq!(out[..7], *b"T\0\0\0\x2e\0\x02");
    }
}
