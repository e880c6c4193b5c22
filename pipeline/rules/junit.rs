//! The outcome of rule tests as JUnit XML, the form that CI systems read: one suite per rule, one case per case, with
//! file and line of what failed. After the schema that Jenkins publishes for its xUnit plugin.

use std::fmt::Write;
use std::time::Duration;

use super::test::{Outcome, Suite, Verdict};

pub(super) fn report(suites: &[Suite], took: Duration) -> String {
    let sum = |count: &dyn Fn(&Suite) -> usize| suites.iter().map(count).sum::<usize>();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    line(
        &mut out,
        format_args!(
            "<testsuites name=\"stakeout test\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{}\">",
            sum(&|s| s.cases.len() + s.broken.len()),
            sum(&failures),
            sum(&errors),
            seconds(took)
        ),
    );
    suites.iter().for_each(|suite| suite_of(&mut out, suite));
    line(&mut out, format_args!("</testsuites>"));
    out
}

fn failures(suite: &Suite) -> usize {
    suite.cases.iter().filter(|(_, v)| matches!(v.outcome, Outcome::Failed(_))).count()
}

fn errors(suite: &Suite) -> usize {
    suite.cases.iter().filter(|(_, v)| matches!(v.outcome, Outcome::Broken(_))).count() + suite.broken.len()
}

fn suite_of(out: &mut String, suite: &Suite) {
    let (rule, file) = (escape(suite.rule), escape(&suite.path.display().to_string()));
    line(
        out,
        format_args!(
            "  <testsuite name=\"{rule}\" file=\"{file}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{}\">",
            suite.cases.len() + suite.broken.len(),
            failures(suite),
            errors(suite),
            seconds(suite.cases.iter().map(|(_, verdict)| verdict.took).sum())
        ),
    );
    for problem in &suite.broken {
        let open = format!("    <testcase name=\"has tests\" classname=\"{rule}\" file=\"{file}\">");
        line(out, format_args!("{open}{}</testcase>", detail("error", "the tests cannot be run", problem)));
    }
    for (case, Verdict { outcome, took }) in &suite.cases {
        let open = format!(
            "    <testcase name=\"{}\" classname=\"{rule}\" file=\"{file}\" line=\"{}\" time=\"{}\"",
            escape(&case.name),
            case.line,
            seconds(*took)
        );
        let place = format!("{}:{}", suite.path.display(), case.line);
        let detail = match outcome {
            Outcome::Passed => {
                line(out, format_args!("{open}/>"));
                continue;
            }
            Outcome::Failed(diff) => {
                let first = diff.0.first().map_or("", String::as_str);
                detail("failure", first, &format!("{place}\n{diff}"))
            }
            Outcome::Broken(error) => detail("error", error, &format!("{place}\n{error}")),
        };
        line(out, format_args!("{open}>{detail}</testcase>"));
    }
    line(out, format_args!("  </testsuite>"));
}

fn detail(kind: &str, message: &str, text: &str) -> String {
    format!("<{kind} message=\"{}\">{}</{kind}>", escape(message), escape(text))
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

/// Text for attributes and elements. What XML 1.0 cannot carry at all becomes a question mark.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push_str(&format!("&#{};", c as u32)),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_takes_any_text() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("a < b && c > \"d\"", "a &lt; b &amp;&amp; c &gt; &quot;d&quot;");
        check("one\ntwo\u{1b}[0m", "one&#10;two?[0m");
        check("größer", "größer");
    }
}
