//! What requests say of pods, as the `pod_*` columns.

use event::Source::Kubernetes;

use super::{cells, normalize};

/// A request by `verb` for `resource`, and what its columns should be; those not named are not looked at.
fn check(verb: &str, resource: &str, bodies: &str, expected: &str) {
    let event = format!(
        r#"{{"auditID":"a","verb":"{verb}","stageTimestamp":"2024-01-01T00:00:00Z","objectRef":{{"resource":"{resource}"}},{bodies}}}"#
    );
    let normalized = normalize(Kubernetes, event.clone());
    let columns: Vec<&str> = expected.split("; ").filter_map(|c| Some(c.split_once('=')?.0)).collect();
    let batch = &normalized.batches[0].rows;
    let found: Vec<String> = columns.iter().map(|column| cells(batch, 0, column)).collect();
    assert_eq!(found.join("; "), expected, "{event}");
}

const BAD: &str = r#"{"hostPID":true,"hostIPC":true,"hostNetwork":true,"serviceAccountName":"sa","nodeName":"n1","automountServiceAccountToken":false,"enableServiceLinks":false,
 "securityContext":{"runAsUser":0,"seccompProfile":{"type":"RuntimeDefault"},"sysctls":[{"name":"kernel.msgmax","value":"1"}],"seLinuxOptions":{"type":"spc_t"}},
 "volumes":[{"name":"a","hostPath":{"path":"/"}},{"name":"b","secret":{"secretName":"s"}},{"name":"c","emptyDir":{}},{"name":"d"}],
 "initContainers":[{"name":"i","image":"busybox","args":["-c","id"],"command":["sh"]}],
 "containers":[{"name":"c","image":"nginx:1.27","ports":[{"containerPort":80},{"hostPort":8080}],"securityContext":{"privileged":true,"procMount":"Unmasked","capabilities":{"add":["NET_ADMIN","CAP_SYS_ADMIN"]}},
   "resources":{"limits":{"cpu":"1"},"requests":{"memory":"1Gi"}},"livenessProbe":{"httpGet":{"host":"10.0.0.1","path":"/"}},"env":[{"name":"P","valueFrom":{"secretKeyRef":{"name":"db","key":"p"}}}]}]}"#;
const BAD_COLUMNS: &str = "pod_spec_whole=true; pod_privileged=true; pod_host_pid=true; pod_host_ipc=true; pod_host_network=true; \
    pod_host_process=false; pod_host_ports=[8080]; pod_host_paths=[/]; pod_caps_added=[NET_ADMIN, SYS_ADMIN]; pod_caps_drop_all=false; \
    pod_run_as_root=true; pod_run_as_non_root=false; pod_no_privilege_escalation=false; pod_read_only_root_filesystem=false; \
    pod_seccomp=[RuntimeDefault]; pod_apparmor=[Unset]; pod_selinux=[type=spc_t]; pod_sysctls=[kernel.msgmax]; pod_proc_mounts=[Unmasked]; \
    pod_resources_missing=[limits.cpu, limits.memory, limits.ephemeral-storage, requests.cpu, requests.memory]; \
    pod_probes_missing=[readinessProbe]; pod_probe_hosts=[10.0.0.1]; pod_automount_token=false; pod_service_links=false; \
    pod_service_account=sa; pod_node_name=n1; pod_images=[busybox, nginx:1.27]; pod_commands=[sh -c id]; pod_secret_env=[db]; \
    pod_volumes=[hostPath, secret, emptyDir]";

const GOOD: &str = r#"{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},"containers":[{"name":"c","image":"i@sha256:0",
 "securityContext":{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["all"]},"appArmorProfile":{"type":"RuntimeDefault"}},
 "resources":{"limits":{"cpu":1,"memory":"1","ephemeral-storage":"1"}},"livenessProbe":{"exec":{}},"readinessProbe":{"exec":{}}}]}"#;
const GOOD_COLUMNS: &str = "pod_privileged=false; pod_host_pid=false; pod_host_ports=[]; pod_caps_added=[]; pod_caps_drop_all=true; pod_run_as_root=false; \
    pod_run_as_non_root=true; pod_no_privilege_escalation=true; pod_read_only_root_filesystem=true; pod_seccomp=[RuntimeDefault]; \
    pod_apparmor=[RuntimeDefault]; pod_resources_missing=[]; pod_probes_missing=[]; pod_automount_token=-; pod_service_account=-; pod_volumes=[]";

#[test]
fn specs_of_pods_and_of_all_that_makes_them() {
    for (spec, columns) in [(BAD, BAD_COLUMNS), (GOOD, GOOD_COLUMNS)] {
        let body = |pod: String| format!(r#""requestObject":{pod}"#);
        check("create", "pods", &body(format!(r#"{{"spec":{spec}}}"#)), columns);
        check("update", "deployments", &body(format!(r#"{{"spec":{{"template":{{"spec":{spec}}}}}}}"#)), columns);
        let job = format!(r#"{{"spec":{{"jobTemplate":{{"spec":{{"template":{{"spec":{spec}}}}}}}}}}}"#);
        check("create", "cronjobs", &body(job), columns);
        check("create", "podtemplates", &body(format!(r#"{{"template":{{"spec":{spec}}}}}"#)), columns);
        // The response of a patch has the whole spec, so its patch does not matter.
        let patched = format!(r#""requestObject":{{"spec":{{"hostIPC":false}}}},"responseObject":{{"spec":{spec}}}"#);
        check("patch", "pods", &patched, columns);
    }
}

#[test]
fn a_patch_alone_says_what_it_says() {
    let body = |patch: &str| format!(r#""requestObject":{patch}"#);
    let nothing = "pod_host_pid=-; pod_host_paths=-; pod_caps_drop_all=-; pod_resources_missing=-; pod_seccomp=-";
    let template = |spec: &str| format!(r#"{{"spec":{{"template":{{"spec":{spec}}}}}}}"#);
    let containers = template(r#"{"containers":[{"name":"c","securityContext":{"privileged":true}}]}"#);
    check("patch", "daemonsets", &body(&containers), &format!("pod_spec_whole=false; pod_privileged=true; {nothing}"));
    check("patch", "daemonsets", &body(&template("{}")), "pod_spec_whole=false; pod_privileged=-");
    check("patch", "daemonsets", &body(r#"{"metadata":{"labels":{"a":"b"}}}"#), "pod_spec_whole=-; pod_privileged=-");
    let failed = format!(r#"{},"responseObject":{{"kind":"Status","code":409}}"#, body(&containers));
    check("patch", "daemonsets", &failed, "pod_spec_whole=false; pod_privileged=true");

    let operation = |path: &str, value: &str| body(&format!(r#"[{{"op":"add","path":"{path}","value":{value}}}]"#));
    let privileged = operation("/spec/template/spec/containers/0/securityContext/privileged", "true");
    check("patch", "deployments", &privileged, &format!("pod_spec_whole=false; pod_privileged=true; {nothing}"));
    check("patch", "pods", &operation("/spec/hostPID", "true"), "pod_privileged=-; pod_host_pid=true");
    check("patch", "pods", &operation("/spec/containers/-", r#"{"image":"x"}"#), "pod_images=[x]");
    check(
        "patch",
        "pods",
        &operation("/spec/volumes", r#"[{"hostPath":{"path":"/etc"}}]"#),
        "pod_host_paths=[/etc]; pod_volumes=[hostPath]",
    );
    check("patch", "pods", &operation("/spec", r#"{"hostNetwork":true}"#), "pod_host_network=true");
    check("patch", "deployments", &operation("/spec/replicas", "3"), "pod_spec_whole=-");
    check("patch", "deployments", &operation("/metadata/labels/a~1b", "\"c\""), "pod_spec_whole=-");
    check("patch", "pods", &body(r#"[{"op":"remove","path":"/spec/hostPID"}]"#), "pod_spec_whole=-");
}

#[test]
fn requests_that_make_no_pods_have_none() {
    let spec = r#""requestObject":{"spec":{"hostPID":true,"template":{"spec":{}}}}"#;
    for (verb, resource) in [("get", "pods"), ("delete", "pods"), ("create", "services"), ("create", "replicas")] {
        check(verb, resource, spec, "pod_spec_whole=-; pod_host_pid=-");
    }
    check("create", "pods", r#""requestObject":{"spec":5}"#, "pod_spec_whole=-");
    let sub = r#""objectRef":{"resource":"pods","subresource":"status"},"requestObject":{"spec":{"hostPID":true}}"#;
    let event = format!(r#"{{"auditID":"a","verb":"update","stageTimestamp":"2024-01-01T00:00:00Z",{sub}}}"#);
    assert_eq!(cells(&normalize(Kubernetes, event).batches[0].rows, 0, "pod_host_pid"), "pod_host_pid=-");
}

#[test]
fn ephemeral_containers_and_old_apparmor_annotations_count() {
    let body = r#""objectRef":{"resource":"pods","subresource":"ephemeralcontainers"},"responseObject":{"spec":{"containers":[{"name":"c","image":"a"}],"ephemeralContainers":[{"name":"d","image":"b","securityContext":{"capabilities":{"add":["SYS_PTRACE"]}}}]}}"#;
    let event = format!(r#"{{"auditID":"a","verb":"patch","stageTimestamp":"2024-01-01T00:00:00Z",{body}}}"#);
    let shown = cells(&normalize(Kubernetes, event).batches[0].rows, 0, "pod_images pod_caps_added");
    assert_eq!(shown, "pod_images=[a, b] pod_caps_added=[SYS_PTRACE]");
    let old = r#""requestObject":{"metadata":{"annotations":{"container.apparmor.security.beta.kubernetes.io/c":"unconfined"}},"spec":{"containers":[{"name":"c"},{"name":"d"}]}}"#;
    check("create", "pods", old, "pod_apparmor=[Unconfined, Unset]");
}

#[test]
fn lists_end_visibly() {
    let ports: Vec<String> = (1..=1000).map(|port| format!(r#"{{"hostPort":{port}}}"#)).collect();
    let body = format!(r#""requestObject":{{"spec":{{"containers":[{{"ports":[{}]}}]}}}}"#, ports.join(","));
    let event = format!(
        r#"{{"auditID":"a","verb":"create","stageTimestamp":"2024-01-01T00:00:00Z","objectRef":{{"resource":"pods"}},{body}}}"#
    );
    let shown = cells(&normalize(Kubernetes, event).batches[0].rows, 0, "pod_host_ports");
    assert!(shown.ends_with("255, 256, …]"), "{shown}");
}
