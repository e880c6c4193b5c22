//! One rule file to one rule, or to everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use event::{Origin, TableSchema};
use query::{Lookups, Problem, QueryError, batch_table, nearest};

use crate::derive::{EVIDENCE_COLUMN, EvidenceSource, derive};
use crate::error::RuleProblem;
use crate::header::{self, Header};
use crate::ident::Identity;
use crate::lint;
use crate::memory::{self, StateTable};
use crate::oracle::Look;
use crate::plan::{self, empty_tables, named_relations, scanned_tables};
use crate::program::{self, NotCompiled};
use crate::rule::{Body, Relation, Rule, Window, Windowed};
use crate::tuning::{Exception, Tuning};
use crate::value::placeholders;
use crate::windows::{self, NoShape, Sieves};

/// Where rules are checked: the session they will run in, over empty tables.
pub struct Bench {
    pub base: SessionContext,
    pub schemas: Vec<Arc<TableSchema>>,
    pub states: Vec<Arc<StateTable>>,
    pub tuning: Tuning,
    tables: SessionContext,
}

impl Bench {
    pub fn new(schemas: &[Arc<TableSchema>], lookups: Arc<Lookups>, tuning: Tuning) -> Result<Bench, QueryError> {
        let base = query::session_with(&query::Limits::RULE, lookups);
        base.register_udf(memory::first_seen_function());
        let tables = empty_tables(&base, schemas)?;
        Ok(Bench { base, schemas: schemas.to_vec(), states: Vec::new(), tuning, tables })
    }

    /// Reads the files of state tables, which rules can name from then on.
    pub async fn load_states(&mut self, files: &[(PathBuf, String)], problems: &mut Vec<RuleProblem>) {
        let mut loaded: Vec<Arc<StateTable>> = Vec::new();
        for (path, text) in files {
            let state = StateTable::load(path, text, &self.base, &self.tables, &self.schemas, problems).await;
            match state.map(Arc::new) {
                Some(state) if loaded.iter().any(|s| s.name == state.name) => {
                    let message = format!("state table `{}` is there twice", state.name);
                    problems.push(RuleProblem { path: path.clone(), line: 0, message, hint: None });
                }
                state => loaded.extend(state),
            }
        }
        for state in &loaded {
            let empty = batch_table(state.schema.clone(), Vec::new());
            if let Err(error) = self.tables.register_table(state.name.as_str(), empty) {
                problems.push(from_query(&state.path, QueryError::run(error)));
            }
        }
        loaded.sort_by(|a, b| a.name.cmp(&b.name));
        self.states = loaded;
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
        let exceptions = match &plan {
            Some(plan) => self.tuning.compile(&self.base, &id_of(path), plan, &mut found),
            None => Vec::new(),
        };
        let rule = match (header, plan) {
            (Some(header), Some(plan)) if found.is_empty() => {
                match self.build(path, text, header, &plan, exceptions).await {
                    Ok(rule) => Some(rule),
                    Err(error) => {
                        found.extend(self.explained(path, text, error));
                        None
                    }
                }
            }
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

    async fn build(
        &self,
        path: &Path,
        text: &str,
        header: Header,
        plan: &LogicalPlan,
        exceptions: Vec<Arc<Exception>>,
    ) -> Result<Rule, QueryError> {
        let (tables, states) = self.tables_of(plan)?;
        if tables.is_empty() {
            return Err(Problem::new("the rule reads no table").into());
        }
        if header.learning_us.is_some() && !text.to_lowercase().contains("first_seen") {
            return Err(Problem::new("`learning` without first_seen").hint("only what is new is learned").into());
        }
        let named: Vec<_> = self.states.iter().map(|s| s.named()).collect();
        let remembers = memory::remembers(text, &named);
        let (relations, body) = match header.window {
            None if remembers => {
                let (base, schemas, states) = (&self.base, &self.schemas, &self.states);
                let body = memory::compile(&self.tables, base, schemas, states, text, plan, header.learning_us).await?;
                (Vec::new(), Body::Remembering(Arc::new(body)))
            }
            None => (Vec::new(), self.single(text, plan, &tables).await?),
            Some(_) if memory::asks_what_is_new(text) => {
                return Err(Problem::new("a rule with a window uses first_seen")
                    .hint("rules without a window can; one with a window can join state tables")
                    .into());
            }
            Some(window) => {
                let evidence = self.evidence(text, &header, plan)?;
                let (relations, flat) = self.relations(text).await?;
                let joined = self.states.iter().filter(|s| states.contains(&s.name)).cloned().collect();
                let mut windowed = self.windowed(text, &header, plan, &tables, joined, flat, window, evidence).await?;
                if let Some(column) = beyond_entity(&exceptions, &header.entity) {
                    let reason = format!("tuning.yaml looks at `{column}`, which may change while it holds");
                    (windowed.shape, windowed.early) = (Err(reason.clone()), Err(reason));
                }
                (relations, Body::Windowed(Arc::new(windowed)))
            }
        };
        let rule = Rule {
            id: id_of(path),
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
            version: exceptions
                .iter()
                .fold(Identity::new().part(text.as_bytes()), |id, e| id.part(e.entry.when.as_bytes()))
                .version(),
            exceptions,
            tables,
            states,
            relations,
            body,
        };
        if let Body::Windowed(windowed) = &rule.body {
            self.refuse_findings_from_nothing(&rule, windowed.window).await?;
        }
        Ok(rule)
    }

    /// How a windowed rule will be evaluated.
    #[allow(clippy::too_many_arguments, reason = "the locals of build")]
    async fn windowed(
        &self,
        text: &str,
        header: &Header,
        plan: &LogicalPlan,
        tables: &[String],
        states: Vec<Arc<StateTable>>,
        flat: LogicalPlan,
        window: Window,
        evidence: EvidenceSource,
    ) -> Result<Windowed, QueryError> {
        let shape = match states.is_empty() {
            true => match windows::shape(&self.base, &self.schemas, text, tables, &header.entity).await {
                Ok(shape) => Ok(Arc::new(shape)),
                Err(NoShape::Reason(reason)) => Err(reason),
                Err(NoShape::Error(error)) => return Err(error),
            },
            false => Err("it joins a state table".to_owned()),
        };
        let absent = windows::absent(&flat, &windows::fixed(&self.base, &states)).map_err(QueryError::run)?;
        let sieves = Sieves::compile(&self.base, &self.schemas, flat, tables, &states, &absent).await?;
        let early = match header.emit_final {
            true => Err("its header says so".to_owned()),
            false if !states.is_empty() && window.window_us >= memory::ENDED_US => {
                Err("what held longer ago than two days is asked of the store, when the boundary is final".to_owned())
            }
            false => {
                let plan = self.tables.state().optimize(plan).map_err(QueryError::run)?;
                windows::monotone(&plan, &header.entity)
            }
        };
        Ok(Windowed { window, evidence, shape, absent, states, sieves: Arc::new(sieves), early })
    }

    /// The stored tables that a plan rests on, and the state tables it names.
    fn tables_of(&self, plan: &LogicalPlan) -> Result<(Vec<String>, Vec<String>), QueryError> {
        let (mut tables, mut states) = (BTreeSet::new(), Vec::new());
        for name in scanned_tables(plan).map_err(QueryError::run)? {
            if query::lookups(&self.base).contains(&name) {
                continue;
            }
            match self.states.iter().find(|s| s.name == name) {
                Some(state) => {
                    tables.insert(state.table.clone());
                    states.push(name);
                }
                None => drop(tables.insert(name)),
            }
        }
        Ok((tables.into_iter().collect(), states))
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

    /// The relations the rule names, and the optimized plan over them. Seen as plain tables, a view's columns count as
    /// its own.
    async fn relations(&self, text: &str) -> Result<(Vec<Relation>, LogicalPlan), QueryError> {
        let flat = query::fork(&self.base);
        let mut relations = Vec::new();
        for name in named_relations(&self.tables, text).map_err(QueryError::run)? {
            let view = self.tables.table_provider(name.as_str()).await.map_err(QueryError::run)?;
            flat.register_table(name.as_str(), batch_table(view.schema(), Vec::new())).map_err(QueryError::run)?;
            // A state table is no relation of events: no window cuts it.
            if self.states.iter().all(|state| state.name != name) {
                relations.push(Relation { name });
            }
        }
        let plan = query::plan_rule(&flat, text).await?;
        let plan = flat.state().optimize(&plan).map_err(QueryError::run)?;
        match scanned_tables(&plan).map_err(QueryError::run)?.is_empty() {
            true => Err(never_fires().into()),
            false => Ok((relations, plan)),
        }
    }

    /// Idle windows are skipped, which is only right for rules that find nothing in them.
    async fn refuse_findings_from_nothing(&self, rule: &Rule, window: Window) -> Result<(), QueryError> {
        let mut empty = std::collections::HashMap::new();
        for relation in &rule.relations {
            let view = self.tables.table_provider(relation.name.as_str()).await.map_err(QueryError::run)?;
            empty.insert(relation.name.clone(), batch_table(view.schema(), Vec::new()));
        }
        let relations = &|name: &str| empty[name].clone();
        let none = |state: &Arc<StateTable>| (state.name.clone(), RecordBatch::new_empty(state.schema.clone()));
        let joined: Vec<_> = rule.windowed().states.iter().map(none).collect();
        let (boundary, origin) = (0, Origin::Live);
        let look = Look { base: &self.base, rule, window, boundary, origin, relations, joined: &joined };
        let answer = look.evaluate_in_silence().await?;
        match answer.held.is_empty() {
            true => Ok(()),
            false => Err(Problem::new("the rule fires on a window without any event")
                .hint("it must rest on rows: join what is absent to what is present")
                .into()),
        }
    }
}

pub(crate) fn id_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A column that an exception looks at and that is not the same for all that an entity does.
fn beyond_entity<'a>(exceptions: &'a [Arc<Exception>], entity: &[String]) -> Option<&'a String> {
    exceptions.iter().flat_map(|e| &e.columns).find(|column| !entity.contains(column))
}

fn never_fires() -> Problem {
    Problem::new("the rule can never fire: its conditions contradict each other")
}

pub(crate) fn from_query(path: &Path, error: QueryError) -> RuleProblem {
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
