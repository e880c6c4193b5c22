//! What names mean at a place in the statement: which column of `schemas/` is behind each.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias,
    TableFactor, TableWithJoins,
};
use event::{Column, TableSchema, tables};

use super::bare;

/// A stored column as seen from a place in the statement.
#[derive(Clone, Debug)]
pub(super) struct Known<'a> {
    /// The relation's name there.
    pub relation: String,
    pub column: &'a Column,
    /// The values it can have; empty when they are not known.
    pub values: Vec<&'a str>,
}

/// Columns of something in FROM, by the name they have there. `None`: computed.
type Columns<'a> = Vec<(String, Option<(&'a Column, Vec<&'a str>)>)>;

#[derive(Default)]
pub(super) struct Scope<'a> {
    relations: Vec<(String, Columns<'a>)>,
}

/// The names of WITH clauses that are known.
#[derive(Default)]
pub(super) struct Withs<'a>(Vec<(String, Columns<'a>)>);

impl<'a> Withs<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub fn add(&mut self, query: &Query, schemas: &'a [Arc<TableSchema>]) {
        for with in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = renamed(columns_of(&with.query, self, schemas), &with.alias);
            self.0.push((normal(&with.alias.name), columns));
        }
    }

    fn get(&self, name: &str) -> Option<&Columns<'a>> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, columns)| columns)
    }
}

impl<'a> Scope<'a> {
    pub fn of(select: &Select, withs: &Withs<'a>, schemas: &'a [Arc<TableSchema>]) -> Scope<'a> {
        let mut scope = Scope::default();
        for TableWithJoins { relation, joins } in &select.from {
            scope.add(relation, withs, schemas);
            joins.iter().for_each(|join| scope.add(&join.relation, withs, schemas));
        }
        scope
    }

    fn add(&mut self, factor: &TableFactor, withs: &Withs<'a>, schemas: &'a [Arc<TableSchema>]) {
        let (name, columns, alias) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let name = last_name(name);
                let columns = match withs.get(&name) {
                    Some(columns) => columns.clone(),
                    None => stored(&name, schemas),
                };
                (name, columns, alias)
            }
            TableFactor::Derived { subquery, alias, .. } => {
                (String::new(), columns_of(subquery, withs, schemas), alias)
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.add(&table_with_joins.relation, withs, schemas);
                table_with_joins.joins.iter().for_each(|join| self.add(&join.relation, withs, schemas));
                return;
            }
            _ => return,
        };
        match alias {
            Some(alias) => self.relations.push((normal(&alias.name), renamed(columns, alias))),
            None => self.relations.push((name, columns)),
        }
    }

    /// The column behind an expression that is nothing but its name.
    pub fn column(&self, expr: &Expr) -> Option<Known<'a>> {
        let (relation, name) = match bare(expr) {
            Expr::Identifier(name) => (None, normal(name)),
            Expr::CompoundIdentifier(names) => match names.as_slice() {
                [relation, name] => (Some(normal(relation)), normal(name)),
                _ => return None,
            },
            _ => return None,
        };
        let here = |(alias, _): &&(String, Columns<'a>)| relation.as_ref().is_none_or(|r| r == alias);
        for (alias, columns) in self.relations.iter().filter(here) {
            if let Some((_, behind)) = columns.iter().find(|(n, _)| *n == name) {
                let (column, values) = behind.clone()?;
                return Some(Known { relation: alias.clone(), column, values });
            }
        }
        None
    }
}

/// In the innermost scope that knows it.
pub(super) fn resolve<'a>(expr: &Expr, scopes: &[Scope<'a>]) -> Option<Known<'a>> {
    scopes.iter().rev().find_map(|scope| scope.column(expr))
}

/// The columns that a query returns, with what is behind those that are passed through.
fn columns_of<'a>(query: &Query, withs: &Withs<'a>, schemas: &'a [Arc<TableSchema>]) -> Columns<'a> {
    let mut inner = Withs(withs.0.clone());
    inner.add(query, schemas);
    match query.body.as_ref() {
        SetExpr::Select(select) => columns_of_select(select, &inner, schemas),
        SetExpr::Query(query) => columns_of(query, &inner, schemas),
        // What both sides of a UNION pass through could be told; that it is not only costs lints.
        _ => Vec::new(),
    }
}

fn columns_of_select<'a>(select: &Select, withs: &Withs<'a>, schemas: &'a [Arc<TableSchema>]) -> Columns<'a> {
    let scope = Scope::of(select, withs, schemas);
    let behind = |expr: &Expr| scope.column(expr).map(|known| (known.column, known.values));
    let mut columns = Columns::new();
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } => columns.push((normal(alias), behind(expr))),
            SelectItem::UnnamedExpr(expr) => {
                if let Some(name) = name_of(expr) {
                    columns.push((name, behind(expr)));
                }
            }
            SelectItem::Wildcard(_) => columns.extend(scope.relations.iter().flat_map(|(_, c)| c.clone())),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), _) => {
                let of = last_name(of);
                let all = scope.relations.iter().filter(|(alias, _)| *alias == of);
                columns.extend(all.flat_map(|(_, c)| c.clone()));
            }
            _ => {}
        }
    }
    columns
}

/// The columns of a stored table or of a view over stored tables.
fn stored<'a>(name: &str, schemas: &'a [Arc<TableSchema>]) -> Columns<'a> {
    let table = |name: &str| schemas.iter().find(|s| s.name == name);
    let whole = |schema: &'a Arc<TableSchema>| -> Columns<'a> {
        let known = |c: &'a Column| (c.name.clone(), Some((c, c.values.iter().map(String::as_str).collect())));
        schema.columns.iter().map(known).collect()
    };
    match name {
        tables::KUBERNETES_CALLS => table(tables::KUBERNETES).map(whole).unwrap_or_default(),
        tables::EVENTS => {
            let sources: Vec<_> = query::SOURCE_TABLES.iter().filter_map(|name| table(name)).collect();
            let Some(first) = sources.first() else { return Vec::new() };
            let shared = first.columns.iter().filter(|c| sources.iter().all(|s| s.column(&c.name).is_some()));
            shared.map(|c| (c.name.clone(), Some((c, values_of_all(&sources, &c.name))))).collect()
        }
        name => table(name).map(whole).unwrap_or_default(),
    }
}

/// What a column can be in any of the tables, or nothing if one of them does not say.
fn values_of_all<'a>(sources: &[&'a Arc<TableSchema>], name: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    for values in sources.iter().filter_map(|s| s.column(name)).map(|c| &c.values) {
        if values.is_empty() {
            return Vec::new();
        }
        all.extend(values.iter().map(String::as_str));
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn renamed<'a>(mut columns: Columns<'a>, alias: &TableAlias) -> Columns<'a> {
    for ((name, _), new) in columns.iter_mut().zip(&alias.columns) {
        *name = normal(&new.name);
    }
    columns
}

fn last_name(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default()
}

/// The name an expression has in the output when it is given none.
pub(super) fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(normal(name)),
        Expr::CompoundIdentifier(names) => names.last().map(normal),
        _ => None,
    }
}

/// SQL folds names that are not quoted.
pub(super) fn normal(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}
