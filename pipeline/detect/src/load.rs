//! One rule file to one rule, or to everything that is wrong with it.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use event::{Origin, TableSchema};
use query::{Problem, QueryError, batch_table, nearest};

use crate::derive::{Derived, EVIDENCE_COLUMN, EvidenceSource, derive};
use crate::error::RuleProblem;
use crate::header::{self, Header};
use crate::ident::Identity;
use crate::lint;
use crate::oracle;
use crate::plan::{self, empty_tables, named_relations, scanned_tables, used_columns};
use crate::program::{self, NotCompiled};
use crate::rule::{Body, Relation, Rule, Window};
use crate::value::placeholders;

/// Where rules are checked: the session they will run in, over empty tables.
pub struct Bench {
    pub base: SessionContext,
    pub schemas: Vec<Arc<TableSchema>>,
    tables: SessionContext,
}

impl Bench {
    pub fn new(schemas: &[Arc<TableSchema>]) -> Result<Bench, QueryError> {
        let base = query::session(&query::Limits::RULE);
        let tables = empty_tables(&base, schemas)?;
        Ok(Bench { base, schemas: schemas.to_vec(), tables })
    }

    /// Reads one file. Mistakes are appended to `problems`; a rule is returned only when there are none.
    pub async fn load(&self, path: &Path, text: &str, problems: &mut Vec<RuleProblem>) -> Option<Rule> {
        let mut found = Vec::new();
        let header = header::parse(path, text, &mut found);
        let plan = match query::plan_rule(&self.tables, text).await {
            Ok(plan) => Some(plan),
            Err(error) => {
                found.extend(self.explained(path, text, error));
                None
            }
        };
        if let (Some(header), Some(plan)) = (&header, &plan) {
            check_output(path, header, plan, &mut found);
        }
        let rule = match (header, plan) {
            (Some(header), Some(plan)) if found.is_empty() => match self.build(path, text, header, &plan).await {
                Ok(rule) => Some(rule),
                Err(error) => {
                    found.extend(self.explained(path, text, error));
                    None
                }
            },
            _ => None,
        };
        problems.append(&mut found);
        rule
    }

    /// What the planner says without a place is told by the lints, where they see why.
    fn explained(&self, path: &Path, text: &str, error: QueryError) -> Vec<RuleProblem> {
        let problem = from_query(path, error);
        let mistakes = if problem.line == 0 { lint::mistakes(path, text, &self.schemas) } else { Vec::new() };
        if mistakes.is_empty() { vec![problem] } else { mistakes }
    }

    async fn build(&self, path: &Path, text: &str, header: Header, plan: &LogicalPlan) -> Result<Rule, QueryError> {
        let tables: Vec<String> = scanned_tables(plan).map_err(QueryError::run)?.into_iter().collect();
        if tables.is_empty() {
            return Err(Problem::new("the rule reads no table").into());
        }
        let (relations, body) = match header.window {
            None => (Vec::new(), self.single(text, plan, &tables).await?),
            Some(window) => {
                let evidence = self.evidence(text, &header, plan)?;
                (self.relations(text).await?, Body::Windowed { window, evidence })
            }
        };
        let rule = Rule {
            id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_owned(),
            sql: text.to_owned(),
            title: header.title,
            severity: header.severity,
            attack: header.attack,
            window: header.window,
            entity: header.entity,
            summary: header.summary,
            triage: header.triage,
            benign: header.benign,
            suppress_us: header.suppress_us,
            needs_level: header.needs_level,
            references: header.references,
            version: Identity::new().part(text.as_bytes()).version(),
            tables,
            relations,
            body,
        };
        if let Body::Windowed { window, .. } = &rule.body {
            self.refuse_findings_from_nothing(&rule, *window).await?;
        }
        Ok(rule)
    }

    async fn single(&self, text: &str, plan: &LogicalPlan, tables: &[String]) -> Result<Body, QueryError> {
        let not_row_local = |reason: &str| {
            let message = format!("a rule without a window looks at one row at a time, but {reason}");
            Err(Problem::new(message).hint("give it a `window`").into())
        };
        if let Some(reason) = plan::not_row_local(plan, true).map_err(QueryError::run)? {
            return not_row_local(reason);
        }
        if named_relations(&self.tables, text).map_err(QueryError::run)?.len() > 1 {
            return not_row_local("it has UNION");
        }
        match program::compile(&self.base, &self.schemas, text, tables).await {
            Ok(program) => Ok(Body::Single(Arc::new(program))),
            Err(NotCompiled::NotRowLocal(reason)) => not_row_local(reason),
            Err(NotCompiled::NeverFires) => Err(never_fires().into()),
            Err(NotCompiled::Error(error)) => Err(error),
        }
    }

    /// How the rule's evidence will be found; a rule for which nobody can tell is refused.
    fn evidence(&self, text: &str, header: &Header, plan: &LogicalPlan) -> Result<EvidenceSource, QueryError> {
        let fields = plan.schema().fields();
        if let Some(field) = fields.iter().find(|f| f.name() == EVIDENCE_COLUMN) {
            return match field.data_type() {
                DataType::List(_) | DataType::Utf8 | DataType::Utf8View => Ok(EvidenceSource::Listed),
                other => Err(Problem::new(format!("column `{EVIDENCE_COLUMN}` is {other}"))
                    .hint("select array_agg(event_uid) AS evidence")
                    .into()),
            };
        }
        let state = self.base.state();
        let is_row_wise = |name: &str| {
            !state.aggregate_functions().contains_key(name) && !state.window_functions().contains_key(name)
        };
        let mut derived = derive(text, &header.entity, &is_row_wise).map_err(|reason| {
            Problem::new(format!("which events the rule rests on cannot be derived: {reason}"))
                .hint("select them: array_agg(event_uid) AS evidence")
        })?;
        for (expression, name) in derived.entity.iter_mut().zip(&header.entity) {
            let field = fields.iter().find(|f| f.name() == name).expect("entity columns were checked");
            *expression = match field.data_type() {
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => format!("({expression})"),
                _ => format!("CAST({expression} AS VARCHAR)"),
            };
        }
        Ok(EvidenceSource::Derived(derived))
    }

    /// The relations the rule names, each with the columns it takes from it. Seen as plain tables, a view's
    /// columns count as its own.
    async fn relations(&self, text: &str) -> Result<Vec<Relation>, QueryError> {
        let flat = query::fork(&self.base);
        for name in named_relations(&self.tables, text).map_err(QueryError::run)? {
            let view = self.tables.table_provider(name.as_str()).await.map_err(QueryError::run)?;
            flat.register_table(name.as_str(), batch_table(view.schema(), Vec::new())).map_err(QueryError::run)?;
        }
        let plan = query::plan_rule(&flat, text).await?;
        let plan = flat.state().optimize(&plan).map_err(QueryError::run)?;
        let relations = used_columns(&plan).map_err(QueryError::run)?;
        if relations.is_empty() {
            return Err(never_fires().into());
        }
        // A table that the optimizer dropped must still be there by name when the rule is planned.
        let mut named = Vec::new();
        for name in named_relations(&self.tables, text).map_err(QueryError::run)? {
            let used = relations.iter().find(|r| r.name == name).cloned();
            let none = || plan::WINDOW_COLUMNS.map(str::to_owned).to_vec();
            named.push(used.unwrap_or_else(|| Relation { name: name.clone(), columns: none() }));
        }
        Ok(named)
    }

    /// Idle windows are skipped, which is only right for rules that find nothing in them.
    async fn refuse_findings_from_nothing(&self, rule: &Rule, window: Window) -> Result<(), QueryError> {
        let mut empty = std::collections::HashMap::new();
        for relation in &rule.relations {
            let view = self.tables.table_provider(relation.name.as_str()).await.map_err(QueryError::run)?;
            empty.insert(relation.name.clone(), batch_table(view.schema(), Vec::new()));
        }
        let answer = oracle::evaluate(&self.base, rule, window, 0, Origin::Live, &|name| empty[name].clone()).await?;
        match answer.held.is_empty() {
            true => Ok(()),
            false => Err(Problem::new("the rule fires on a window without any event")
                .hint("it must rest on rows: join what is absent to what is present")
                .into()),
        }
    }
}

fn never_fires() -> Problem {
    Problem::new("the rule can never fire: its conditions contradict each other")
}

fn from_query(path: &Path, error: QueryError) -> RuleProblem {
    let (line, message, hint) = match error {
        QueryError::Sql(problem) => (problem.line.unwrap_or(0), problem.message, problem.hint),
        QueryError::Run(text) => match text.split_once("\nhint: ") {
            Some((message, hint)) => (0, message.to_owned(), Some(hint.to_owned())),
            None => (0, text, None),
        },
        other => (0, other.to_string(), None),
    };
    RuleProblem { path: path.to_owned(), line, message, hint }
}

/// Entity columns and summary placeholders are columns of the SELECT, and all columns can be shown.
fn check_output(path: &Path, header: &Header, plan: &LogicalPlan, problems: &mut Vec<RuleProblem>) {
    let fields = plan.schema().fields();
    let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    let mut problem = |line: u64, message: String, hint: Option<String>| {
        problems.push(RuleProblem { path: path.to_owned(), line, message, hint });
    };
    let missing = |name: &str| match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the SELECT returns {}", names.join(", ")),
    };
    for name in &header.entity {
        if !names.contains(&name.as_str()) {
            let message = format!("entity column `{name}` is not a column of the SELECT");
            problem(header.entity_line, message, Some(missing(name)));
        }
    }
    for name in placeholders(&header.summary) {
        if !names.contains(&name) {
            let message = format!("`{{{name}}}` in the summary is not a column of the SELECT");
            problem(header.summary_line, message, Some(missing(name)));
        }
    }
    for field in fields {
        if matches!(field.data_type(), DataType::Union(..) | DataType::Struct(_) | DataType::Map(..)) {
            let hint = "take one value as text: ->> instead of ->, or CAST(… AS VARCHAR)";
            problem(0, format!("column `{}` cannot be shown in a finding", field.name()), Some(hint.into()));
        }
    }
}

/// Evidence query parts shared by all windowed rules: see [`crate::evidence`].
pub(crate) fn derived(rule: &Rule) -> Option<&Derived> {
    match &rule.body {
        Body::Windowed { evidence: EvidenceSource::Derived(derived), .. } => Some(derived),
        _ => None,
    }
}
