//! Functions on lookups. The name is a constant; the values are compared with the key columns of the lookup in
//! their order, as many as are given. NULL is in no lookup.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewArray};
use datafusion::error::Result;

use super::{Args, Cell, Function, Known, Takes, distinct, list_type, refused};
use crate::lookups::Lookup;
use crate::{Lookups, Problem};

pub(super) fn functions(lookups: &Arc<Lookups>) -> Vec<Function> {
    let test = |name, holds| test(name, lookups, holds);
    vec![
        test("in_lookup", |lookup, values| Ok(lookup.exact(values).is_some())),
        test("in_lookup_like", |lookup, values| Ok(lookup.like(values))),
        test("in_lookup_prefix", |lookup, values| Ok(lookup.prefix(values))),
        test("in_lookup_cidr", Lookup::cidr).constants(with(lookups, |lookup, known| {
            lookup.takes(known.len() - 1)?;
            lookup.addresses().map(drop)
        })),
        lookup_value(lookups),
        lookup_list(lookups),
        lookup_missing(lookups),
    ]
}

type Holds = fn(&Lookup, &[&str]) -> Result<bool, Problem>;

/// `name('lookup', value …)`: some row of the lookup has the values.
fn test(name: &'static str, lookups: &Arc<Lookups>, holds: Holds) -> Function {
    let held = lookups.clone();
    let body = move |args: &Args| {
        let lookup = checked(&held, &args.known(), name).map_err(refused)?;
        lookup.takes(args.values.len() - 1).map_err(refused)?;
        of_values(args, 1, |values| values.map_or(Ok(false), |values| holds(lookup, values)))
    };
    Function::new(name, &[Takes::Text, Takes::Text], bool::data_type(), body)
        .more(Takes::Text)
        .constants(with(lookups, |lookup, known| lookup.takes(known.len() - 1)))
}

/// `lookup_value('lookup', 'column', value …)`: the column of the first row that has the values.
fn lookup_value(lookups: &Arc<Lookups>) -> Function {
    let held = lookups.clone();
    let body = move |args: &Args| {
        let lookup = checked(&held, &args.known(), "lookup_value").map_err(refused)?;
        let column = column(lookup, &args.known()).map_err(refused)?;
        lookup.takes(args.values.len() - 2).map_err(refused)?;
        of_values(args, 2, |values| {
            let row = values.and_then(|values| lookup.exact(values));
            Ok(row.and_then(|row| lookup.cell(row, column)).map(str::to_owned))
        })
    };
    Function::new("lookup_value", &[Takes::Text; 3], Option::<String>::data_type(), body).more(Takes::Text).constants(
        with(lookups, |lookup, known| {
            column(lookup, known)?;
            lookup.takes(known.len() - 2)
        }),
    )
}

/// `lookup_list('lookup')` or `lookup_list('lookup', 'column')`: all values of a column, the first one unless named.
fn lookup_list(lookups: &Arc<Lookups>) -> Function {
    let listed = |lookup: &Lookup, known: &[Known]| match known.len() {
        1 => Ok(lookup.values(None)),
        2 => Ok(lookup.values(Some(column(lookup, known)?))),
        n => Err(Problem::new(format!("`lookup_list` takes a lookup and a column, not {n} values"))),
    };
    let held = lookups.clone();
    let body = move |args: &Args| {
        let lookup = checked(&held, &args.known(), "lookup_list").map_err(refused)?;
        let values = listed(lookup, &args.known()).map_err(refused)?;
        Ok(Vec::<String>::array(&[values], &vec![0; args.rows]))
    };
    Function::new("lookup_list", &[Takes::Text], list_type(), body)
        .more(Takes::Text)
        .constants(with(lookups, move |lookup, known| listed(lookup, known).map(drop)))
}

/// `lookup_missing('lookup', list)`: the values of the list that are not in the lookup, patterns included.
fn lookup_missing(lookups: &Arc<Lookups>) -> Function {
    let held = lookups.clone();
    let body = move |args: &Args| {
        let lookup = checked(&held, &args.known(), "lookup_missing").map_err(refused)?;
        let missing = |list: Vec<String>| -> Vec<String> {
            list.into_iter().filter(|value| !lookup.like(&[value.as_str()])).collect()
        };
        let cells: Vec<Vec<String>> = args.lists(1)?.into_iter().map(missing).collect();
        let rows: Vec<usize> = (0..cells.len()).collect();
        Ok(Vec::<String>::array(&cells, &rows))
    };
    Function::new("lookup_missing", &[Takes::Text, Takes::List], list_type(), body)
        .constants(with(lookups, |_, _| Ok(())))
}

/// A check of constants that begins with the lookup's name.
fn with<C: Fn(&Lookup, &[Known]) -> Result<(), Problem>>(
    lookups: &Arc<Lookups>,
    check: C,
) -> impl Fn(&[Known]) -> Result<(), Problem> + use<C> {
    let lookups = lookups.clone();
    move |known| check(checked(&lookups, known, "a lookup function")?, known)
}

fn checked<'a>(lookups: &'a Lookups, known: &[Known], function: &str) -> Result<&'a Lookup, Problem> {
    match known[0] {
        Some(name) => lookups.get(name),
        None => Err(Problem::new(format!("`{function}` takes the name of the lookup as a constant"))
            .hint("write it in quotes: in_lookup('own_accounts', …)")),
    }
}

fn column(lookup: &Lookup, known: &[Known]) -> Result<usize, Problem> {
    match known[1] {
        Some(name) => lookup.column(name),
        None => Err(Problem::new("the column of a lookup is a constant").hint("write it in quotes")),
    }
}

/// `answer` to the values from `first` on of each row, computed once for equal ones; `None` if one is NULL.
fn of_values<T: Cell>(
    args: &Args,
    first: usize,
    answer: impl Fn(Option<&[&str]>) -> Result<T, Problem>,
) -> Result<ArrayRef> {
    let columns = (first..args.values.len()).map(|place| args.texts(place)).collect::<Result<Vec<_>>>()?;
    let mut problem = None;
    let mut cell = |values: Option<&[&str]>| {
        answer(values).unwrap_or_else(|p| {
            problem = Some(p);
            T::default()
        })
    };
    let (cells, rows) = match columns.as_slice() {
        [one] => distinct(one.iter(), |value| cell(value.as_ref().map(std::slice::from_ref))),
        // Several columns repeat together less often than each alone, and keys would have to be built.
        many => ((0..args.rows).map(|row| cell(row_of(many, row).as_deref())).collect(), (0..args.rows).collect()),
    };
    match problem {
        Some(problem) => Err(refused(problem)),
        None => Ok(T::array(&cells, &rows)),
    }
}

fn row_of(columns: &[StringViewArray], row: usize) -> Option<Vec<&str>> {
    columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect()
}
