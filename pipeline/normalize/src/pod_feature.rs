//! The columns that a pod's spec can fill, by the names that `pod:` has in schema files.

use event::ColumnType;

macro_rules! features {
    ($($feature:ident $name:literal $kind:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum PodFeature {
            $($feature,)*
        }

        impl PodFeature {
            pub const ALL: &[PodFeature] = &[$(PodFeature::$feature,)*];

            /// As written in `schemas/`.
            pub fn name(self) -> &'static str {
                match self {
                    $(PodFeature::$feature => $name,)*
                }
            }

            /// The type of its column.
            pub fn kind(self) -> ColumnType {
                match self {
                    $(PodFeature::$feature => ColumnType::$kind,)*
                }
            }
        }
    };
}

features! {
    SpecWhole "spec_whole" Bool,
    Privileged "privileged" Bool,
    HostPid "host_pid" Bool,
    HostIpc "host_ipc" Bool,
    HostNetwork "host_network" Bool,
    HostProcess "host_process" Bool,
    HostPorts "host_ports" StringList,
    HostPaths "host_paths" StringList,
    CapsAdded "caps_added" StringList,
    CapsDropAll "caps_drop_all" Bool,
    RunAsRoot "run_as_root" Bool,
    RunAsNonRoot "run_as_non_root" Bool,
    NoPrivilegeEscalation "no_privilege_escalation" Bool,
    ReadOnlyRootFilesystem "read_only_root_filesystem" Bool,
    Seccomp "seccomp" StringList,
    Apparmor "apparmor" StringList,
    Selinux "selinux" StringList,
    Sysctls "sysctls" StringList,
    ProcMounts "proc_mounts" StringList,
    ResourcesMissing "resources_missing" StringList,
    ProbesMissing "probes_missing" StringList,
    ProbeHosts "probe_hosts" StringList,
    AutomountToken "automount_token" Bool,
    ServiceLinks "service_links" Bool,
    ServiceAccount "service_account" String,
    NodeName "node_name" String,
    Images "images" StringList,
    Commands "commands" StringList,
    SecretEnv "secret_env" StringList,
    Volumes "volumes" StringList,
}
