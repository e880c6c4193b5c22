//! `raw` without what columns of the same row say as well. Ids, times and URIs never repeat, so once the rest is compressed they are
//! most of it, and would be stored twice. In the place of a text that a column has stands one byte which no JSON has; whoever reads
//! `raw` reads these columns along, and their texts are put back.

use std::collections::HashSet;
use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use event::push_micros;
use foldhash::fast::FixedState;
use memchr::memmem;

/// Columns whose texts are taken out. Reading `raw` reads all of them.
pub const COLUMNS_MAX: usize = 8;

/// Ways in which a value may stand in `raw` ([`Column::push`]). What they make of a value is part of the format, as the codes are.
const FORMS: usize = 3;

/// Of the control characters, which JSON has nowhere, those that are not white space; one per column and form.
const CODES: [u8; COLUMNS_MAX * FORMS] =
    [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27];

/// Begins a row that has such characters of its own, and has been left as it is.
const AS_IT_IS: u8 = 28;

/// Of shorter texts a hole saves nothing.
const TEXT_MIN: usize = 8;

/// Fewer rows are not cut, and do not tell what pays; of large ones no more are looked at than have these bytes.
const ROWS_MIN: usize = 16;
const LOOKED_AT_BYTES: usize = 1 << 20;

/// Bytes that a column must take out of a row, on average, counting texts that the rows before did not have.
const GAIN_MIN: usize = 3;

/// Blocks of text that is put together.
const BLOCK_BYTES: u32 = 1 << 18;

/// A column that `raw` can be cut by.
#[derive(Clone, Copy)]
enum Column<'a> {
    Text(&'a StringViewArray),
    Time(&'a TimestampMicrosecondArray),
}

impl<'a> Column<'a> {
    fn of(column: &'a ArrayRef) -> Option<Column<'a>> {
        match column.data_type() {
            DataType::Utf8View => Some(Column::Text(column.as_string_view())),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(Column::Time(column.as_primitive())),
            _ => None,
        }
    }

    /// Appends a value as JSON may have it in a string; false, and nothing that matters, if it has no such form.
    fn push(&self, row: usize, form: usize, text: &mut String) -> bool {
        match self {
            Column::Text(column) if column.is_valid(row) => push_text(column.value(row), form, text),
            Column::Time(column) if column.is_valid(row) => push_micros(column.value(row), [6, 0, 3][form], text),
            _ => false,
        }
    }

    /// What is put back has no code in it, so putting back once is enough; and it stands for itself.
    fn is_plain(&self, row: usize) -> bool {
        match self {
            Column::Text(column) => {
                column.is_valid(row) && column.value(row).bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\')
            }
            Column::Time(_) => true,
        }
    }
}

/// Which of the columns are worth it, by some rows; the best ones first.
pub fn choose(raw: &StringViewArray, columns: &[&ArrayRef]) -> Vec<usize> {
    if raw.len() < ROWS_MIN {
        return Vec::new();
    }
    let mut bytes = 0;
    let small = |raw: &Option<&str>| {
        let before = bytes;
        bytes += raw.map_or(0, str::len);
        before < LOOKED_AT_BYTES
    };
    let rows = raw.iter().take_while(small).count().max(ROWS_MIN);
    let mut cutters: Vec<Cutter> = (0..rows).map(|_| Cutter::default()).collect();
    let columns: Vec<Option<Column>> = columns.iter().map(|column| Column::of(column)).collect();
    let mut left: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].is_some()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < COLUMNS_MAX {
        let gain = |column: usize, cutters: &mut [Cutter]| -> usize {
            let mut known = HashSet::new();
            let mut of_row = |(row, cutter): (usize, &mut Cutter)| {
                let found = cutter.find(raw.value(row), columns[column], row)?;
                known.insert(FixedState::default().hash_one(&raw.value(row)[found.start..found.end])).then_some(found)
            };
            cutters.iter_mut().enumerate().filter_map(&mut of_row).map(|hole| hole.end - hole.start).sum()
        };
        // What is worth little now is worth less when others have taken their part.
        let mut gains: Vec<(usize, usize)> = left.iter().map(|column| (gain(*column, &mut cutters), *column)).collect();
        gains.retain(|(gain, _)| *gain >= GAIN_MIN * rows);
        let Some((_, best)) = gains.iter().copied().max_by_key(|(gain, _)| *gain) else { break };
        left = gains.into_iter().map(|(_, column)| column).filter(|column| *column != best).collect();
        for (row, cutter) in cutters.iter_mut().enumerate() {
            if let Some(hole) = cutter.find(raw.value(row), columns[best], row) {
                cutter.add(hole, chosen.len());
            }
        }
        chosen.push(best);
    }
    chosen
}

/// `raw` without the texts of the columns.
pub fn cut(raw: &StringViewArray, columns: &[&ArrayRef]) -> StringViewArray {
    let columns: Vec<Option<Column>> = columns.iter().map(|column| Column::of(column)).collect();
    let mut built = StringViewBuilder::with_capacity(raw.len()).with_fixed_block_size(BLOCK_BYTES);
    let (mut cutter, mut text) = (Cutter::default(), String::new());
    for (row, raw) in raw.iter().enumerate() {
        let Some(raw) = raw else {
            built.append_null();
            continue;
        };
        text.clear();
        if next_code(raw.as_bytes(), 0).is_some() {
            text.push(char::from(AS_IT_IS));
            text.push_str(raw);
        } else {
            cutter.holes.clear();
            for (number, column) in columns.iter().enumerate() {
                if let Some(hole) = cutter.find(raw, *column, row) {
                    cutter.add(hole, number);
                }
            }
            cutter.write(raw, &mut text);
        }
        built.append_value(&text);
    }
    built.finish()
}

/// What [`cut`] was given, or the number of a column that is not there.
pub fn filled(cut: &StringViewArray, columns: &[&ArrayRef]) -> Result<StringViewArray, usize> {
    let columns: Vec<Option<Column>> = columns.iter().map(|column| Column::of(column)).collect();
    let mut built = StringViewBuilder::with_capacity(cut.len()).with_fixed_block_size(BLOCK_BYTES);
    let mut text = String::new();
    for (row, cut) in cut.iter().enumerate() {
        match cut {
            None => built.append_null(),
            Some(cut) => match cut.strip_prefix(char::from(AS_IT_IS)) {
                Some(raw) => built.append_value(raw),
                None => {
                    text.clear();
                    fill(cut, &columns, row, &mut text)?;
                    built.append_value(&text);
                }
            },
        }
    }
    Ok(built.finish())
}

fn fill(cut: &str, columns: &[Option<Column>], row: usize, text: &mut String) -> Result<(), usize> {
    let mut from = 0;
    while let Some(at) = next_code(cut.as_bytes(), from) {
        text.push_str(&cut[from..at]);
        let (number, form) = COLUMN_AND_FORM[usize::from(cut.as_bytes()[at])];
        let column = columns.get(number).copied().flatten();
        if !column.is_some_and(|column| column.push(row, form, text)) {
            return Err(number);
        }
        from = at + 1;
    }
    text.push_str(&cut[from..]);
    Ok(())
}

/// By code; a column that there is not for what is none.
const COLUMN_AND_FORM: [(usize, usize); b' ' as usize] = {
    let mut of = [(COLUMNS_MAX, 0); b' ' as usize];
    let mut at = 0;
    while at < CODES.len() {
        of[CODES[at] as usize] = (at / FORMS, at % FORMS);
        at += 1;
    }
    of
};

/// A place of `raw` between two quotes, and the form in which a column's value stands there.
#[derive(Clone, Copy)]
struct Hole {
    start: usize,
    end: usize,
    form: usize,
}

#[derive(Default)]
struct Cutter {
    /// In order, each with its code.
    holes: Vec<(Hole, u8)>,
    quoted: String,
}

impl Cutter {
    /// The first place that has a column's value and is not a hole yet.
    fn find(&mut self, raw: &str, column: Option<Column>, row: usize) -> Option<Hole> {
        let column = column.filter(|column| column.is_plain(row))?;
        (0..FORMS).find_map(|form| {
            self.quoted.clear();
            self.quoted.push('"');
            if !column.push(row, form, &mut self.quoted) || self.quoted.len() <= TEXT_MIN {
                return None;
            }
            self.quoted.push('"');
            let holes = memmem::find_iter(raw.as_bytes(), self.quoted.as_bytes());
            let mut holes = holes.map(|at| Hole { start: at + 1, end: at + self.quoted.len() - 1, form });
            holes.find(|hole| self.is_free(hole))
        })
    }

    fn is_free(&self, hole: &Hole) -> bool {
        self.holes.iter().all(|(other, _)| hole.end <= other.start || other.end <= hole.start)
    }

    fn add(&mut self, hole: Hole, column: usize) {
        let place = self.holes.partition_point(|(other, _)| other.start < hole.start);
        self.holes.insert(place, (hole, CODES[column * FORMS + hole.form]));
    }

    fn write(&self, raw: &str, text: &mut String) {
        let mut from = 0;
        for (hole, code) in &self.holes {
            text.push_str(&raw[from..hole.start]);
            text.push(char::from(*code));
            from = hole.end;
        }
        text.push_str(&raw[from..]);
    }
}

fn push_text(value: &str, form: usize, text: &mut String) -> bool {
    match form {
        0 => text.push_str(value),
        // As encoders write it that think of HTML, Go's for one.
        1 => {
            let mut from = 0;
            for (at, sign) in value.match_indices(['&', '<', '>']) {
                text.push_str(&value[from..at]);
                text.push_str(match sign {
                    "&" => "\\u0026",
                    "<" => "\\u003c",
                    _ => "\\u003e",
                });
                from = at + 1;
            }
            text.push_str(&value[from..]);
            return from > 0;
        }
        // An id with something behind it.
        _ => match value.rsplit_once('/') {
            Some((id, _)) => text.push_str(id),
            None => return false,
        },
    }
    true
}

/// The first control character at or after `from` that is not white space.
fn next_code(bytes: &[u8], from: usize) -> Option<usize> {
    const STEP: usize = 32;
    let is_code = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<STEP>()) {
        let (words, _) = chunk.as_chunks::<8>();
        if words.iter().fold(0, |marks, word| marks | control_marks(u64::from_le_bytes(*word))) != 0
            && let Some(found) = chunk.iter().position(is_code)
        {
            return Some(at + found);
        }
        at += STEP;
    }
    bytes.get(at..)?.iter().position(is_code).map(|found| at + found)
}

/// Not zero if one of the bytes is below a space.
fn control_marks(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    word.wrapping_sub(ONES * u64::from(b' ')) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(values.iter().copied().collect::<StringViewArray>())
    }

    fn times(values: &[i64]) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
    }

    /// What is left of one row.
    fn left(raw: &str, columns: &[ArrayRef]) -> String {
        let (raw, columns) = (StringViewArray::from(vec![raw]), columns.iter().collect::<Vec<_>>());
        let cut = cut(&raw, &columns);
        assert_eq!(filled(&cut, &columns), Ok(raw));
        cut.value(0).to_owned()
    }

    #[test]
    fn each_form_is_found() {
        let check = |raw, column, expected: &str| assert_eq!(left(raw, &[column]), expected, "{raw}");
        check(r#"{"id":"0123456789","n":1}"#, texts(&[Some("0123456789")]), "{\"id\":\"\u{1}\",\"n\":1}");
        check(r#"{"u":"/a?b=c\u0026d=\u003ce\u003e"}"#, texts(&[Some("/a?b=c&d=<e>")]), "{\"u\":\"\u{2}\"}");
        check(
            r#"{"id":"0123456789","s":"Done"}"#,
            texts(&[Some("0123456789/Done")]),
            "{\"id\":\"\u{3}\",\"s\":\"Done\"}",
        );
        let at = 1_709_210_096_120_000;
        check(r#"["2024-02-29T12:34:56.120000Z"]"#, times(&[at]), "[\"\u{1}\"]");
        check(r#"["2024-02-29T12:34:56.120Z"]"#, times(&[at]), "[\"\u{3}\"]");
        check(r#"["2024-02-29T12:34:56Z"]"#, times(&[at - 120_000]), "[\"\u{2}\"]");
    }

    #[test]
    fn what_is_not_there_as_it_is_stays() {
        for (raw, value) in [
            (r#"{"id":"0123456789 "}"#, Some("0123456789")),
            (r#"{"id":"0123"}"#, Some("0123")),
            (r#"{"id":"\u0030123456789"}"#, Some("0123456789")),
            (r#"{"id":"01234\"56789"}"#, Some("01234\"56789")),
            (r#"{"id":"0123456789"}"#, None),
            ("", Some("0123456789")),
        ] {
            assert_eq!(left(raw, &[texts(&[value])]), raw);
        }
        assert_eq!(left(r#"["2024-02-29T12:34:56.120Z"]"#, &[times(&[1_709_210_096_120_001])]).len(), 28);
    }

    #[test]
    fn no_hole_is_within_another() {
        let id = || texts(&[Some("0123456789")]);
        assert_eq!(left(r#"["0123456789"]"#, &[id(), id()]), "[\"\u{1}\"]");
        assert_eq!(left(r#"["0123456789","0123456789"]"#, &[id(), id()]), "[\"\u{1}\",\"\u{4}\"]");
        // A value that is written like what is left of another one.
        assert_eq!(left(r#"["0123456789",""]"#, &[id(), texts(&[Some("\u{1}\",\"\u{1}\",\"")])]).len(), 8);
    }

    #[test]
    fn rows_with_control_characters_are_left_alone() {
        for raw in ["\u{1}", "\u{1c}", "\u{1c}\u{1c} \"0123456789\"", "a\u{1b}[0m \"0123456789\""] {
            assert_eq!(left(raw, &[texts(&[Some("0123456789")])]), format!("\u{1c}{raw}"));
        }
        assert_eq!(
            left("{\n\t\"id\" : \"0123456789\"\r\n}", &[texts(&[Some("0123456789")])]),
            "{\n\t\"id\" : \"\u{1}\"\r\n}"
        );
    }

    #[test]
    fn codes_are_found_at_every_place() {
        for byte in 0..=0x20u8 {
            for at in 0..70 {
                let mut text = "plain é \n\t\u{7f} text, ".repeat(4).into_bytes();
                text.truncate(70);
                text[at] = byte;
                let expected = (byte < b' ' && !b"\t\r\n".contains(&byte)).then_some(at);
                assert_eq!((next_code(&text, 0), next_code(&text, at)), (expected, expected), "{byte} at {at}");
                assert_eq!(next_code(&text, at + 1), None);
            }
        }
        assert_eq!((next_code(b"", 0), next_code(b"a", 5)), (None, None));
    }

    #[test]
    fn damage_is_named() {
        let id = texts(&[Some("0123456789")]);
        for (cut, number) in [("\u{4}", 1), ("\u{2}", 0), ("\u{3}", 0), ("\u{1d}", COLUMNS_MAX)] {
            assert_eq!(filled(&StringViewArray::from(vec![cut]), &[&id]).unwrap_err(), number, "{cut:?}");
        }
    }

    #[test]
    fn any_rows_come_back() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let pieces = [
            "\"",
            "\\",
            "/",
            "&",
            "\\u0026",
            "0123456789",
            "01234567",
            "é",
            "\u{1}",
            "\u{1c}",
            " ",
            "\n",
            "2024-02-29T12:34:56",
            ".120000",
            "Z",
            ",",
            "<",
            "\u{7f}",
        ];
        for _ in 0..3_000 {
            let some = |random: &mut StdRng| -> String {
                (0..random.random_range(0..12)).map(|_| pieces[random.random_range(0..pieces.len())]).collect()
            };
            let rows = random.random_range(1..6);
            let values = |random: &mut StdRng| -> Vec<String> { (0..rows).map(|_| some(random)).collect() };
            let columns: Vec<ArrayRef> = (0..random.random_range(0..=COLUMNS_MAX))
                .map(|_| match random.random_range(0..5) {
                    0 => times(&vec![1_709_210_096_120_000; rows]),
                    _ => Arc::new(StringViewArray::from_iter_values(values(&mut random))) as ArrayRef,
                })
                .collect();
            // Of pieces, and of what columns have between quotes.
            let raw = StringViewArray::from_iter_values((0..rows).map(|row| {
                let mut raw = some(&mut random);
                for column in &columns {
                    raw.push('"');
                    let pushed = Column::of(column).unwrap().push(row, random.random_range(0..FORMS), &mut raw);
                    raw.push_str(if pushed { "\"" } else { "x" });
                    raw.push_str(&some(&mut random));
                }
                raw
            }));
            let columns: Vec<&ArrayRef> = columns.iter().collect();
            let cut = cut(&raw, &columns);
            assert_eq!(filled(&cut, &columns), Ok(raw.clone()), "{raw:?} {columns:?}");
        }
    }

    #[test]
    fn columns_that_never_repeat_are_chosen() {
        let rows = 300;
        let id = |n: usize| format!("{:08x}-{n:04}", n * 7919);
        let all = |text: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringViewArray::from_iter_values((0..rows).map(text)))
        };
        let raw = all(&|n| format!(r#"{{"id":"{}","same":"a longer text, always","few":"{:08}"}}"#, id(n), n % 8));
        let (ids, same, few) = (all(&id), all(&|_| "a longer text, always".into()), all(&|n| format!("{:08}", n % 8)));
        let elsewhere = all(&|n| format!("elsewhere {n}"));
        let twin = ids.clone();
        let columns = [&same, &elsewhere, &ids, &few, &twin];
        assert_eq!(choose(raw.as_string_view(), &columns), [4]);
        assert_eq!(choose(raw.as_string_view(), &[]), [0; 0]);
        assert_eq!(choose(&StringViewArray::from(Vec::<&str>::new()), &columns), [0; 0]);
    }
}
