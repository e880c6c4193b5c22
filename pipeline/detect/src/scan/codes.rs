//! The distinct values of a column, found once per batch: each row has a code, each code a value. Conditions are
//! computed per value and spread by code.

use std::cell::OnceCell;
use std::hash::{BuildHasher, Hasher};

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, UInt32Array, make_view};
use arrow::compute::take;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use foldhash::fast::RandomState;

/// Text up to this length lives inside its view.
const INLINE_MAX: usize = 12;

/// So many rows are looked at before a column is judged to repeat nothing …
const SAMPLE: usize = 1_024;

/// … namely when this share of them (in 16ths) has values of their own: then a code is a row.
const OWN_VALUES_16THS: usize = 14;

/// The code of rows for which a column was not computed.
pub const NONE: u32 = u32::MAX;

pub struct Codes {
    pub of_row: Vec<u32>,
    /// By code. NULL is a value like others.
    pub values: ArrayRef,
    /// Of the values, in columns of text.
    hashes: Vec<u64>,
    rows: OnceCell<Rows>,
}

/// Rows by code: those of code `c` are `rows[starts[c]..starts[c + 1]]`, ascending.
struct Rows {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Codes {
    pub fn of(column: &ArrayRef, state: &RandomState) -> Result<Codes, ArrowError> {
        let found = match column.data_type() {
            DataType::Utf8View => intern_views(column.as_string_view(), state),
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                intern_texts(column, |row| texts.value(row), state)
            }
            DataType::Int64 => {
                let numbers = column.as_primitive::<Int64Type>().values();
                intern(column, |row| hash_number(numbers[row], state), |a, b| numbers[a] == numbers[b])
            }
            DataType::Boolean => {
                let flags = column.as_boolean();
                intern(column, |row| u64::from(flags.value(row)), |a, b| flags.value(a) == flags.value(b))
            }
            _ => None,
        };
        let Some(found) = found else { return Ok(Codes::own(column.clone())) };
        let values = take(column, &UInt32Array::from(found.first), None)?;
        Ok(Codes { of_row: found.of_row, values, hashes: found.hashes, rows: OnceCell::new() })
    }

    /// Every row has a code of its own.
    pub fn own(column: ArrayRef) -> Codes {
        let of_row = (0..column.len() as u32).collect();
        Codes { of_row, values: column, hashes: Vec::new(), rows: OnceCell::new() }
    }

    /// Codes over the rows `rows` of `count`; the others have [`NONE`].
    pub fn spread(mut self, rows: &[u32], count: usize) -> Codes {
        let mut of_row = vec![NONE; count];
        for (row, code) in rows.iter().zip(&self.of_row) {
            of_row[*row as usize] = *code;
        }
        self.of_row = of_row;
        self
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The hash of a value that is text, as [`hash_text`] gives it.
    pub fn hash(&self, code: usize, text: &str, state: &RandomState) -> u64 {
        self.hashes.get(code).copied().unwrap_or_else(|| hash_text(text.as_bytes(), state))
    }

    pub fn rows_of(&self, code: u32) -> &[u32] {
        let rows = self.rows.get_or_init(|| self.by_code());
        let of = |code: u32| rows.starts[code as usize] as usize;
        &rows.rows[of(code)..of(code + 1)]
    }

    fn by_code(&self) -> Rows {
        let mut starts = vec![0u32; self.len() + 1];
        for code in self.of_row.iter().filter(|c| **c != NONE) {
            starts[*code as usize + 1] += 1;
        }
        for code in 0..self.len() {
            starts[code + 1] += starts[code];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; starts[self.len()] as usize];
        for (row, code) in self.of_row.iter().enumerate().filter(|(_, c)| **c != NONE) {
            let place = &mut next[*code as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Rows { starts, rows }
    }
}

/// The text of a value in a column of text.
pub fn text(values: &dyn Array, code: usize) -> Option<&str> {
    if values.is_null(code) {
        return None;
    }
    match values.data_type() {
        DataType::Utf8View => Some(values.as_string_view().value(code)),
        DataType::Utf8 => Some(values.as_string::<i32>().value(code)),
        _ => None,
    }
}

pub fn number(values: &dyn Array, code: usize) -> Option<i64> {
    match values.data_type() {
        DataType::Int64 if values.is_valid(code) => Some(values.as_primitive::<Int64Type>().value(code)),
        _ => None,
    }
}

pub fn hash_text(text: &[u8], state: &RandomState) -> u64 {
    match text.len() {
        0..=INLINE_MAX => hash_view(make_view(text, 0, 0), state),
        _ => {
            let mut hasher = state.build_hasher();
            hasher.write(text);
            hasher.finish()
        }
    }
}

pub fn hash_number(number: i64, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_i64(number);
    hasher.finish()
}

fn hash_view(view: u128, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_u128(view);
    hasher.finish()
}

struct Found {
    of_row: Vec<u32>,
    /// The row that has the value first, by code.
    first: Vec<u32>,
    hashes: Vec<u64>,
}

/// Texts in views: a short one is its view, of longer ones the views tell most apart.
fn intern_views(texts: &StringViewArray, state: &RandomState) -> Option<Found> {
    let views = texts.views();
    let is_short = |view: u128| view as u32 as usize <= INLINE_MAX;
    let hash = |row: usize| match is_short(views[row]) {
        true => hash_view(views[row], state),
        false => hash_text(texts.value(row).as_bytes(), state),
    };
    let same = |a: usize, b: usize| {
        let (x, y) = (views[a], views[b]);
        // The lower half of a view is length and first bytes.
        x == y || (!is_short(x) && x as u64 == y as u64 && texts.value(a) == texts.value(b))
    };
    intern(texts, hash, same)
}

fn intern_texts<'a>(column: &dyn Array, text: impl Fn(usize) -> &'a str, state: &RandomState) -> Option<Found> {
    intern(column, |row| hash_text(text(row).as_bytes(), state), |a, b| text(a) == text(b))
}

/// One table of codes, open addressing. `None` when nearly every row has a value of its own.
fn intern(column: &dyn Array, hash: impl Fn(usize) -> u64, same: impl Fn(usize, usize) -> bool) -> Option<Found> {
    let count = column.len();
    let nulls = column.nulls();
    let mut slots = vec![NONE; (2 * count.min(SAMPLE)).next_power_of_two()];
    let mut found = Found { of_row: Vec::with_capacity(count), first: Vec::new(), hashes: Vec::new() };
    let mut null = NONE;
    for row in 0..count {
        if row == SAMPLE && found.first.len() * 16 >= SAMPLE * OWN_VALUES_16THS {
            return None;
        }
        if nulls.is_some_and(|n| n.is_null(row)) {
            if null == NONE {
                null = found.add(row, 0);
            }
            found.of_row.push(null);
            continue;
        }
        // Neighbours are often equal.
        if row > 0 && found.of_row[row - 1] != null && same(row - 1, row) {
            found.of_row.push(found.of_row[row - 1]);
            continue;
        }
        let hash = hash(row);
        let mut slot = hash as usize & (slots.len() - 1);
        let code = loop {
            match slots[slot] {
                NONE => {
                    let code = found.add(row, hash);
                    slots[slot] = code;
                    if found.first.len() * 2 > slots.len() {
                        slots = grown(&found.hashes, null, slots.len() * 4);
                    }
                    break code;
                }
                code if found.hashes[code as usize] == hash && same(found.first[code as usize] as usize, row) => {
                    break code;
                }
                _ => slot = (slot + 1) & (slots.len() - 1),
            }
        };
        found.of_row.push(code);
    }
    Some(found)
}

impl Found {
    fn add(&mut self, row: usize, hash: u64) -> u32 {
        self.first.push(row as u32);
        self.hashes.push(hash);
        self.first.len() as u32 - 1
    }
}

fn grown(hashes: &[u64], null: u32, size: usize) -> Vec<u32> {
    let mut slots = vec![NONE; size];
    for (code, hash) in hashes.iter().enumerate().filter(|(code, _)| *code as u32 != null) {
        let mut slot = *hash as usize & (size - 1);
        while slots[slot] != NONE {
            slot = (slot + 1) & (size - 1);
        }
        slots[slot] = code as u32;
    }
    slots
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_have_their_values() {
        let long = |n: usize| format!("a text that does not fit into a view {}", n % 300);
        let texts: Vec<Option<String>> = (0..9_000)
            .map(|n| match n % 7 {
                0 => None,
                1 => Some(String::new()),
                2 => Some(format!("v{}", n % 50)),
                3 => Some("\0\0".to_owned()),
                4 => Some("\0".to_owned()),
                5 => Some(format!("exactly 13 {:02}", n % 90)),
                _ => Some(long(n)),
            })
            .collect();
        let numbers: Vec<Option<i64>> = (0..9_000).map(|n| (n % 5 > 0).then_some(n % 11)).collect();
        check(Arc::new(texts.iter().map(Option::as_deref).collect::<StringViewArray>()));
        check(Arc::new(texts.iter().map(Option::as_deref).collect::<StringArray>()));
        check(Arc::new(numbers.iter().copied().collect::<Int64Array>()));
        check(Arc::new(numbers.iter().map(|n| n.map(|n| n > 3)).collect::<BooleanArray>()));
        check(Arc::new((0..9_000).map(|n| Some(n.to_string())).collect::<StringViewArray>()));
        check(Arc::new(StringViewArray::from_iter_values([""; 0])));
    }

    /// Spreading gives the column again, codes are distinct, rows by code are all rows.
    fn check(column: ArrayRef) {
        let codes = Codes::of(&column, &RandomState::default()).expect("codes");
        let again = take(&codes.values, &UInt32Array::from(codes.of_row.clone()), None).expect("takes");
        assert_eq!(&again, &column);
        let mut rows: Vec<u32> = (0..codes.len() as u32).flat_map(|c| codes.rows_of(c).to_vec()).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..column.len() as u32).collect::<Vec<_>>());
        let texts: Vec<_> =
            (0..codes.len()).map(|c| arrow::util::display::array_value_to_string(&codes.values, c)).collect();
        let distinct: std::collections::HashSet<_> =
            texts.iter().zip(0..).map(|(t, c)| (t.as_ref().expect("shown").clone(), codes.values.is_null(c))).collect();
        assert_eq!(distinct.len(), codes.len());
    }
}
