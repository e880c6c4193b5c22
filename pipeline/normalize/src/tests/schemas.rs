//! The built-in schemas are what rules expect; wrong ones are reported completely, with place and hint.

use event::{AuditLevel, ColumnType, tables};

use crate::Schemas;
use crate::pod_feature::PodFeature;
use crate::transform::Transform;

const META: &str = "time ingest_time event_uid source cluster origin topic partition offset message_index file_sha256 \
                    source_watermark row_hash redacted raw";
const COMMON: &str = "actor_user_name actor_user_type actor_user_uid src_endpoint_ip api_operation api_service_name \
                      resource_type resource_name resource_namespace cloud_account_uid cloud_region status status_code \
                      http_request_user_agent user_agent_family severity message";

fn columns(table: &str) -> String {
    let schemas = Schemas::builtin();
    let table = schemas.table(table).unwrap();
    assert!(table.columns.iter().all(|c| !c.doc.is_empty()), "every column is documented");
    table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn tables_have_the_columns_that_code_and_rules_count_on() {
    let check = |table: &str, own: &str| assert_eq!(columns(table), own, "{table}");
    check("events", &format!("{META} {COMMON}"));
    check("unparsed", &format!("{META} reason bytes"));
    check(
        "kubernetes",
        &format!(
            "{META} {COMMON} level stage verb request_uri actor_user_groups impersonated_user_name source_ips \
             objectref_api_group objectref_resource objectref_subresource objectref_namespace objectref_name \
             response_code response_reason authorization_decision authorization_reason request_received_time \
             actor_user_aws_arn actor_user_aws_canonical_arn actor_user_access_key_id actor_user_session_name \
             actor_user_pod_name actor_user_pod_uid actor_user_node_name actor_user_credential_uid \
             issued_credential_uid impersonated_user_groups objectref_uid uri_path exec_argv exec_container \
             dry_run response_message authorization_binding authorization_role pod_security_violations \
             pod_security_exempt token_expiration_seconds object_labels object_owner_uid object_owner_kind \
             object_owner_name rbac_role_ref_kind rbac_role_ref_name rbac_subjects rbac_rules pod_spec_whole \
             pod_privileged pod_host_pid pod_host_ipc pod_host_network pod_host_process pod_host_ports \
             pod_host_paths pod_caps_added pod_caps_drop_all pod_run_as_root pod_run_as_non_root \
             pod_no_privilege_escalation pod_read_only_root_filesystem pod_seccomp pod_apparmor pod_selinux \
             pod_sysctls pod_proc_mounts pod_resources_missing pod_probes_missing pod_probe_hosts \
             pod_automount_token pod_service_links pod_service_account pod_node_name pod_images pod_commands \
             pod_secret_env pod_volumes"
        ),
    );
    check(
        "cloudtrail",
        &format!(
            "{META} {COMMON} event_name event_source event_type event_category read_only management_event \
             error_code error_message request_id user_identity_type user_identity_arn user_identity_principal_id \
             access_key_id session_issuer_arn session_mfa invoked_by recipient_account_id vpc_endpoint_id \
             event_base_name principal session_name session_created_time mfa console_session instance_session \
             service_call source_ip_address web_identity_provider web_identity_subject issued_access_key_id \
             issued_session_arn role_arn role_session_name target_name target_arn object_key resource_arns \
             bytes_transferred_out"
        ),
    );
    check(
        "falco",
        &format!(
            "{META} {COMMON} rule priority hostname tags output evt_type k8s_ns_name k8s_pod_name container_id \
             container_name container_image_repository proc_name proc_cmdline proc_exepath proc_pname user_name \
             fd_name rule_source container_image_tag container_image_digest k8s_pod_uid proc_pid proc_tty \
             proc_pcmdline proc_ancestors user_loginuid fd_rip fd_rport fd_sip fd_sport"
        ),
    );
}

#[test]
fn the_built_in_tables_have_types_and_a_hash() {
    let schemas = Schemas::builtin();
    let names: Vec<&str> = schemas.tables().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, tables::STORED);
    let kubernetes = schemas.table("kubernetes").unwrap();
    let kind = |name| kubernetes.column(name).unwrap().kind;
    assert_eq!(kind("source_ips"), ColumnType::StringList);
    assert_eq!(kind("response_code"), ColumnType::Int64);
    assert_eq!(kind("request_received_time"), ColumnType::Timestamp);
    assert!(kubernetes.column("cluster").unwrap().nullable && !kubernetes.column("time").unwrap().nullable);
    assert!(kubernetes.column("status").unwrap().common && !kubernetes.column("verb").unwrap().common);
    assert_eq!(kubernetes.column("status").unwrap().values, ["Success", "Failure"]);
    assert_eq!(kubernetes.column("authorization_decision").unwrap().values, ["allow", "forbid"]);
    assert_eq!(kubernetes.column("pod_privileged").unwrap().level, Some(AuditLevel::Request));
    assert_eq!(kubernetes.column("stage").unwrap().level, None);
    assert_eq!(schemas.hash(), Schemas::builtin().hash());
}

const FILES: [&str; 5] = ["events.yaml", "kubernetes.yaml", "cloudtrail.yaml", "falco.yaml", "unparsed.yaml"];

fn shipped(file: &str) -> String {
    std::fs::read_to_string(format!("{}/../../schemas/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Replaces text in the shipped files and expects these mistakes, in this order; `@text::` stands for the
/// line at which the replaced file has `text` first.
fn check(edits: &[(&str, &str, &str)], expected: &[&str]) {
    let mut texts: Vec<(String, String)> = FILES.iter().map(|file| (file.to_string(), shipped(file))).collect();
    for (file, from, to) in edits {
        let text = &mut texts.iter_mut().find(|(name, _)| name == file).unwrap().1;
        assert!(text.contains(from), "{from}");
        *text = text.replacen(from, to, 1);
    }
    let files: Vec<(&str, &str)> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let error = Schemas::parse(&files).unwrap_err().to_string();
    let line = |file: &str, text: &str| {
        let (_, content) = texts.iter().find(|(name, _)| name == file).unwrap();
        1 + content.lines().position(|l| l.contains(text)).unwrap_or_else(|| panic!("no {text}"))
    };
    let expected: Vec<String> = expected
        .iter()
        .map(|message| {
            let (place, rest) = message.split_once(":: ").unwrap_or((message, ""));
            match place.split_once('@') {
                Some((file, text)) => format!("{file}:{}: {rest}", line(file, text)),
                None => message.to_string(),
            }
        })
        .collect();
    assert_eq!(error, expected.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once_with_place_and_hint() {
    check(
        &[
            ("kubernetes.yaml", "    transform: kubernetes_user_type", "    transform: kubernetes_usr_type"),
            ("kubernetes.yaml", "  api_operation:\n    path: verb", "  api_operatoin:\n    path: verb"),
            ("kubernetes.yaml", "    path: stage", "    paht: stage"),
            ("falco.yaml", "    type: list<string>", "    type: list"),
            ("falco.yaml", "    path: hostname", "    path: host name"),
            ("falco.yaml", "    doc: As `actor_user_name`.\n", ""),
        ],
        &[
            "kubernetes.yaml@kubernetes_usr_type:: unknown transform `kubernetes_usr_type`\nhint: did you mean `kubernetes_user_type`?",
            "kubernetes.yaml@paht:: unknown key `paht` in `stage`\nhint: did you mean `path`?",
            "kubernetes.yaml@  stage:: column `stage` has neither path nor default",
            "falco.yaml@path: host name:: bad path `host name`: unexpected ` ` at column 5\nhint: paths look like user.username, output_fields[\"k8s.ns.name\"] or resources[0].ARN",
            "falco.yaml@type: list:: unknown type `list`\nhint: one of string, int64, bool, timestamp, list<string>, binary, hash",
            "falco.yaml@  user_name:: column `user_name` has no doc\nhint: say what it means, with an example, and when it is null",
            "kubernetes.yaml@api_operatoin:: unknown common column `api_operatoin`\nhint: did you mean `api_operation`?",
        ],
    );
}

#[test]
fn values_and_levels_are_checked() {
    check(
        &[
            ("kubernetes.yaml", "values: [allow, forbid]", "values: allow"),
            ("kubernetes.yaml", "values: [user, namespace, runtimeClass]", "values: [user, user]"),
            ("kubernetes.yaml", "level: Request\n", "level: Requests # x\n"),
            ("kubernetes.yaml", "    pod: host_pid\n", "    pod: host_pid\n    values: [mine, host]\n"),
        ],
        &[
            "kubernetes.yaml@values: allow:: `values` should be a list of texts",
            "kubernetes.yaml@values: [user, user]:: `user` stands twice in `values`",
            "kubernetes.yaml@level: Requests # x:: unknown audit level `Requests`\nhint: did you mean `Request`?",
            "kubernetes.yaml@  pod_host_pid:: column `pod_host_pid`: `values` are of text",
        ],
    );
}

#[test]
fn transforms_and_pods_must_fit_their_columns() {
    check(
        &[
            ("kubernetes.yaml", "    path: [requestURI, requestObject.dryRun]", "    path: requestURI"),
            ("kubernetes.yaml", "    transform: uri_path", "    transform: exec_argv"),
            ("kubernetes.yaml", "    pod: host_pid", "    pod: host_ports"),
            ("kubernetes.yaml", "    pod: host_ipc", "    pod: host_icp"),
            ("falco.yaml", "    path: hostname", "    pod: node_name"),
            ("cloudtrail.yaml", "    path: readOnly", "    default: no"),
        ],
        &[
            "kubernetes.yaml@pod: host_icp:: unknown fact of pods `host_icp`\nhint: did you mean `host_ipc`?",
            "kubernetes.yaml@  uri_path:: column `uri_path`: transform `exec_argv` gives list<string>, not string",
            "kubernetes.yaml@  dry_run:: column `dry_run`: transform `dry_run` takes 2 paths, not 1",
            "kubernetes.yaml@  pod_host_pid:: column `pod_host_pid`: pods have `host_ports` as list<string>, not bool",
            "cloudtrail.yaml@  read_only:: column `read_only`: a default gives text, not bool",
            "falco.yaml@  hostname:: column `hostname`: only Kubernetes has pods",
        ],
    );
}

#[test]
fn every_transform_and_fact_of_pods_is_used_and_documented() {
    let files = FILES.map(shipped);
    for transform in Transform::ALL {
        let used = files.iter().any(|file| file.contains(&format!("    transform: {}\n", transform.name())));
        let documented = files[0].contains(&format!(" {} ", transform.name()))
            || files[0].contains(&format!(" {},", transform.name()));
        assert!(used && documented, "{}", transform.name());
    }
    for feature in PodFeature::ALL {
        assert!(
            files[1].contains(&format!(
                "  pod_{0}:\n    type: {1}\n    pod: {0}\n",
                feature.name(),
                feature.kind().name()
            )),
            "{}",
            feature.name()
        );
    }
}

#[test]
fn columns_are_declared_once() {
    check(
        &[
            ("falco.yaml", "  fd_name:", "  proc_name: # again"),
            ("cloudtrail.yaml", "  event_source:", "  status: # again"),
        ],
        &[
            "falco.yaml@  proc_name: # again:: duplicate column `proc_name`\nhint: the first one is at line 94",
            "cloudtrail.yaml@  status: # again:: duplicate column `status`\nhint: events.yaml declares it; fill it under `common`, or choose another name",
        ],
    );
}

#[test]
fn columns_that_code_fills_are_not_to_be_changed() {
    check(
        &[
            ("events.yaml", "  ingest_time:", "  arrival_time:"),
            ("unparsed.yaml", "    type: binary", "    type: string"),
            ("kubernetes.yaml", "table: kubernetes", "table: k8s"),
        ],
        &[
            "kubernetes.yaml:1: table `k8s` should be `kubernetes`, as its file",
            "events.yaml@arrival_time:: column 2 of `meta` is `arrival_time`, should be `ingest_time`",
            "unparsed.yaml@  bytes:: column `bytes` has type binary",
        ],
    );
}

#[test]
fn files_that_are_missing_or_no_yaml_are_mistakes() {
    let events = shipped("events.yaml");
    let files = [("s/events.yaml", events.as_str()), ("s/falco.yaml", "table: [\n"), ("s/unparsed.yaml", "5")];
    let mistakes = Schemas::parse(&files).unwrap_err().mistakes;
    let missing: Vec<&str> =
        mistakes.iter().filter(|m| m.message == "file is missing").map(|m| m.file.as_str()).collect();
    assert_eq!(missing, ["kubernetes.yaml", "cloudtrail.yaml"]);
    assert!(mistakes.iter().any(|m| m.file == "s/falco.yaml" && m.line > 0 && m.message.starts_with("not YAML: ")));
    assert!(mistakes.iter().any(|m| m.file == "s/unparsed.yaml" && m.message == "`table` is missing"));
}

#[test]
fn a_folder_is_read_like_the_built_in_files() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    assert_eq!(Schemas::load(&dir).unwrap().hash(), Schemas::builtin().hash());
    let error = Schemas::load(std::path::Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.mistakes.len(), 5);
    assert!(error.to_string().starts_with("/nowhere/events.yaml: cannot be read: "), "{error}");
}
