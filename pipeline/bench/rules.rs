//! Many single-event rules over the steady stream: one scan for all of them against stock DataFusion, one plan per rule.
//! Parsing is not counted. The rules are made from the words that rules are made of, in the proportions of packs that
//! people use: mostly an operation and a few more conditions, some patterns on command lines and agents, some regular
//! expressions, a few paths into `raw`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use detect::RuleSet;
use detect::yardstick::{OneScan, Stock};
use event::Batch;
use normalize::Schemas;

use super::figure::Figures;
use super::measure::best;

/// (service, what is done, to what): CloudTrail names operations like this.
const SERVICES: [(&str, &[&str], &[&str]); 10] = [
    (
        "iam",
        &["Create", "Delete", "Update", "Attach", "Detach", "Put", "List", "Get"],
        &["User", "Role", "RolePolicy", "UserPolicy", "AccessKey", "LoginProfile", "Group", "SAMLProvider"],
    ),
    (
        "ec2",
        &["Create", "Delete", "Modify", "Describe", "Run", "Terminate", "Authorize", "Revoke"],
        &["Instances", "SecurityGroupIngress", "Snapshots", "Volumes", "Vpc", "FlowLogs", "KeyPair", "NetworkAclEntry"],
    ),
    (
        "s3",
        &["Put", "Delete", "Get", "Create"],
        &["BucketPolicy", "BucketAcl", "BucketEncryption", "Object", "BucketLogging", "BucketReplication"],
    ),
    ("kms", &["Disable", "ScheduleDeletionOf", "Create", "Put"], &["Key", "KeyPolicy", "Grant", "Alias"]),
    ("cloudtrail", &["Stop", "Delete", "Update", "Put"], &["Logging", "Trail", "EventSelectors"]),
    ("lambda", &["Create", "Update", "Add", "Delete"], &["Function", "FunctionCode", "Permission", "LayerVersion"]),
    ("rds", &["Create", "Modify", "Delete", "Describe"], &["DBInstance", "DBSnapshot", "DBInstances", "DBCluster"]),
    ("sts", &["Assume", "Get"], &["Role", "RoleWithSAML", "FederationToken", "CallerIdentity"]),
    ("secretsmanager", &["Get", "Delete", "Put", "List"], &["SecretValue", "Secret", "ResourcePolicy", "Secrets"]),
    ("guardduty", &["Delete", "Update", "Create", "Stop"], &["Detector", "IPSet", "Members", "MonitoringMembers"]),
];
const RESOURCES: [&str; 20] = [
    "secrets",
    "pods",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "clusterroles",
    "clusterrolebindings",
    "daemonsets",
    "deployments",
    "cronjobs",
    "jobs",
    "nodes",
    "namespaces",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "certificatesigningrequests",
    "persistentvolumes",
    "networkpolicies",
    "events",
];
const VERBS: [&str; 6] = ["create", "delete", "patch", "update", "get", "list"];
const TOOLS: [&str; 16] = [
    "curl",
    "wget",
    "nmap",
    "nc -e",
    "socat",
    "base64 -d",
    "chmod +x",
    "/dev/tcp/",
    "xmrig",
    "kubectl",
    "nsenter",
    "mount -t",
    "iptables -F",
    "history -c",
    "python -c",
    "crontab",
];
const AGENTS: [&str; 8] =
    ["kali", "parrot", "python-requests", "Pacu", "stratus-red-team", "S3 Browser", "Boto3", "TruffleHog"];
const BLOCKS: [&str; 6] =
    ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "185.220.101.0/24", "45.155.205.0/24", "2001:db8::/32"];
const FALCO: [&str; 8] = [
    "Run shell untrusted",
    "Clear Log Activities",
    "Write Binary Under UsrLocalBin",
    "Terminal shell in container",
    "Read sensitive file untrusted",
    "Drop and execute new binary in container",
    "Packet socket created in container",
    "Netcat Remote Code Execution in Container",
];

/// Numbers that look drawn and are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn cloudtrail(draw: &mut Draw) -> String {
    let (service, deeds, things) = SERVICES[draw.below(SERVICES.len())];
    let mut name = || format!("'{}{}'", draw.of(deeds), draw.of(things));
    let (one, two, three) = (name(), name(), name());
    let more = match draw.below(12) {
        0 => "AND error_code IS NULL".to_owned(),
        1 => "AND error_code IN ('AccessDenied', 'Client.UnauthorizedOperation')".to_owned(),
        2 => "AND user_identity_type = 'Root'".to_owned(),
        3 => format!("AND NOT cidr_match(source_ip_address, '{}')", draw.of(&BLOCKS)),
        4 => format!("AND http_request_user_agent LIKE '%{}%'", draw.of(&AGENTS)),
        5 => "AND user_identity_arn NOT LIKE '%:role/ci-%' AND NOT read_only".to_owned(),
        6 => "AND lower(actor_user_name) LIKE '%admin%'".to_owned(),
        7 => "AND mfa IS NOT TRUE".to_owned(),
        8 => "AND role_arn ~ ':role/(Admin|OrganizationAccountAccessRole)'".to_owned(),
        9 => "AND raw->'requestParameters'->>'policyDocument' LIKE '%\"Principal\":\"*\"%'".to_owned(),
        10 => "AND raw->'requestParameters'->>'cidrIp' = '0.0.0.0/0'".to_owned(),
        _ => "AND ip_is_public(source_ip_address) AND session_mfa IS NOT TRUE".to_owned(),
    };
    let name = match draw.below(6) {
        0..3 => format!("event_name = {one}"),
        3..5 => format!("event_name IN ({one}, {two}, {three})"),
        _ => format!("event_name LIKE '{}%'", draw.of(deeds)),
    };
    format!(
        "SELECT actor_user_name, event_name, source_ip_address, user_identity_arn, error_code FROM cloudtrail \
         WHERE event_source = '{service}.amazonaws.com' AND {name} {more}"
    )
}

fn kubernetes(draw: &mut Draw) -> String {
    let (verb, other, resource) = (draw.of(&VERBS), draw.of(&VERBS), draw.of(&RESOURCES));
    let more = match draw.below(10) {
        0 => "AND actor_user_name NOT LIKE 'system:%'".to_owned(),
        1 => "AND response_code >= 400".to_owned(),
        2 => "AND objectref_namespace IN ('kube-system', 'default') AND actor_user_type = 'ServiceAccount'".to_owned(),
        3 => "AND actor_user_name = 'system:anonymous'".to_owned(),
        4 => format!("AND NOT cidr_match(src_endpoint_ip, '{}') AND response_code < 300", draw.of(&BLOCKS)),
        5 => format!("AND http_request_user_agent LIKE '%{}%'", draw.of(&AGENTS)),
        6 => {
            "AND array_has(actor_user_groups, 'system:masters') AND NOT starts_with(actor_user_name, 'eks:')".to_owned()
        }
        7 => "AND pod_privileged AND pod_images IS NOT NULL".to_owned(),
        8 => format!("AND objectref_name ~ '^({}|etcd|admin-.*)$'", draw.of(&TOOLS).replace([' ', '/', '+'], "")),
        _ => "AND raw->'responseStatus'->>'reason' = 'Forbidden'".to_owned(),
    };
    let table = if draw.below(2) == 0 { "kubernetes_calls" } else { "kubernetes" };
    format!(
        "SELECT cluster, actor_user_name, objectref_namespace, objectref_name, verb, src_endpoint_ip FROM {table} \
         WHERE objectref_resource = '{resource}' AND verb IN ('{verb}', '{other}') {more}"
    )
}

fn falco(draw: &mut Draw) -> String {
    let (rule, tool, other) = (draw.of(&FALCO), draw.of(&TOOLS), draw.of(&TOOLS));
    let condition = match draw.below(5) {
        0 => format!("rule = '{rule}' AND proc_cmdline LIKE '%{tool}%'"),
        1 => format!("proc_cmdline LIKE '%{tool}%' OR proc_pcmdline LIKE '%{other}%'"),
        2 => format!("proc_name IN ('sh', 'bash', 'dash') AND proc_cmdline LIKE '%{tool}%{}%'", draw.of(&TOOLS)),
        3 => format!("rule = '{rule}' AND proc_cmdline ~ '(http|ftp)s?://[0-9.]+/' AND container_id <> 'host'"),
        _ => format!(
            "evt_type = 'execve' AND container_image_repository LIKE '%/{}' AND user_name = 'root'",
            draw.of(&AGENTS)
        ),
    };
    format!(
        "SELECT coalesce(actor_user_name, '-') AS actor_user_name, rule, proc_cmdline, container_id FROM falco WHERE {condition}"
    )
}

/// `count` rules, every tenth of them without a path, a pattern or a function being the exception.
fn pack(count: usize) -> Vec<(PathBuf, String)> {
    let draw = &mut Draw(1);
    let sql = |draw: &mut Draw| match draw.below(20) {
        0..10 => cloudtrail(draw),
        10..17 => kubernetes(draw),
        _ => falco(draw),
    };
    let header = "/*\ntitle: A rule\nseverity: low\nentity: [actor_user_name]\nsummary: \"{actor_user_name}\"\n*/\n";
    (0..count).map(|n| (PathBuf::from(format!("pack/rule-{n:04}.sql")), format!("{header}{}", sql(draw)))).collect()
}

/// Batches as they come from normalize, one table each.
pub fn many_rules(batches: &[Batch], rounds: usize, figures: &mut Figures) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let rows: usize = batches.iter().map(|b| b.rows.num_rows()).sum();
    for (name, count) in [("rules-100", 100), ("rules-1000", 1_000)] {
        let schemas = Schemas::builtin();
        let rules = runtime.block_on(RuleSet::parse(&pack(count), schemas.tables(), ""))?;
        let stock = runtime.block_on(Stock::new(&rules))?;
        let ours = OneScan::new(&rules);
        let by_stock = || -> Result<usize> {
            let run = |b: &Batch| Ok(runtime.block_on(stock.run(&b.table, &b.rows))?);
            batches.iter().map(run).sum()
        };
        let in_one_scan = || batches.iter().map(|b| ours.run(&b.table, &b.rows)).sum::<Option<usize>>();
        let (found, found_by_stock) = (in_one_scan().context("a rule of the bench fails")?, by_stock()?);
        anyhow::ensure!(found == found_by_stock, "one scan finds {found} rows, stock DataFusion {found_by_stock}");
        let stock_took = best(rounds, || drop(std::hint::black_box(by_stock())));
        let took = best(rounds, || {
            std::hint::black_box(in_one_scan());
        });
        let each = |took: std::time::Duration| took.as_secs_f64() * 1e9 / rows as f64;
        figures.add_against(name, each(took), each(stock_took));
    }
    Ok(())
}
