"""The rules under comparison, as predicates over events and over windows of events.

Each says in Python what `<name>.sql` says in SQL, from the header's sentence and the vendor's format; policies are
parsed here where the SQL has patterns. Rules named `outside-*` are not of the pack: they are in `detections/` beside
this file and reach what the pack's rules do not find on the data.
"""
import json
import re
from collections import defaultdict
from types import SimpleNamespace

from vendor import (account, address, allowing, base_name, by_service, code, conditions, from_console, is_call,
                    is_outsider, network, one_or_list, own, principal, principals, service_itself, user_name, worked)

FILTERS = {}
WINDOWS = {}
SECOND = 1_000_000
MINUTE = 60 * SECOND


def filter_rule(source):
    """Registers a predicate on one event under the rule's name, the function's with dashes."""
    def register(finds):
        FILTERS[finds.__name__.replace("_", "-")] = SimpleNamespace(source=source, finds=finds)
        return finds
    return register


def window_rule(*sources, window, every, looks_at=lambda e: True):
    """Registers a function from the rows of a window to the entities that hold; sizes in seconds."""
    def register(holds):
        WINDOWS[holds.__name__.replace("_", "-")] = SimpleNamespace(
            sources=sources, window=window, every=every, looks_at=looks_at, holds=holds)
        return holds
    return register


def grouped(rows, *keys):
    """Groups by the values of `keys`; a NULL in one of them is no entity."""
    groups = defaultdict(list)
    for row in rows:
        entity = tuple(key(row) for key in keys)
        if None not in entity:
            groups[entity].append(row)
    return groups.items()


# Single events of CloudTrail.


@filter_rule("cloudtrail")
def aws_console_login_without_mfa(e):
    kind = e.at("userIdentity", "type")
    return (e.at("eventName") == "ConsoleLogin" and worked(e) and e.at("additionalEventData", "MFAUsed") == "No"
            and (kind in ("IAMUser", "Root")
                 or kind == "AssumedRole" and not e.at("additionalEventData", "SamlProviderArn")
                 and "AWSReservedSSO_" not in e.text("userIdentity", "arn")))


@filter_rule("cloudtrail")
def aws_root_account_activity(e):
    if e.call("sts", "AssumeRoot"):
        return True
    reads = e.at("readOnly")
    if reads is None:
        reads = re.match("Get|List|Describe|Head|Lookup|Check|View", e.at("eventName"))
    return (e.at("userIdentity", "type") == "Root" and e.at("eventType") != "AwsServiceEvent" and not reads
            and e.at("userIdentity", "invokedBy") in (None, "signin.amazonaws.com"))


@filter_rule("cloudtrail")
def aws_mfa_requirement_bypassed(e):
    if not worked(e):
        return False
    if e.call("iam", "DeactivateMFADevice", "DeleteVirtualMFADevice"):
        return True
    name = e.at("eventName")
    reads = e.at("readOnly")
    if reads is None:
        reads = re.match("Get|List|Describe|Generate|Simulate", name)
    sensitive = (
        e.at("eventSource") in ("iam.amazonaws.com", "organizations.amazonaws.com", "cloudtrail.amazonaws.com")
        or e.call("kms", "PutKeyPolicy", "CreateGrant", "DisableKey", "ScheduleKeyDeletion", "DeleteImportedKeyMaterial",
                  "DisableKeyRotation", "DeleteAlias", "UpdateAlias")
        or e.at("eventSource") == "s3.amazonaws.com" and re.match("(Put|Delete)(Bucket|AccountPublicAccessBlock)", name)
        or e.call("secretsmanager", "DeleteSecret"))
    mfa = e.text("userIdentity", "sessionContext", "attributes", "mfaAuthenticated")
    return bool(
        e.at("userIdentity", "type") == "IAMUser" and mfa == "false" and sensitive and not reads
        and e.text("userIdentity", "accessKeyId").startswith("ASIA")
        and (not by_service(e) or e.at("userIdentity", "invokedBy") == "signin.amazonaws.com")
        and name not in ("CreateVirtualMFADevice", "EnableMFADevice", "ResyncMFADevice", "ChangePassword"))


@filter_rule("cloudtrail")
def aws_iam_credential_added_for_other_user(e):
    user = e.asks("userName")
    added = (e.call("iam", "CreateAccessKey", "CreateLoginProfile", "UpdateLoginProfile", "UploadSSHPublicKey",
                    "CreateServiceSpecificCredential", "ResetServiceSpecificCredential")
             or e.call("iam", "UpdateAccessKey") and e.asks("status") == "Active")
    itself = e.at("userIdentity", "type") == "IAMUser" and user_name(e) == user
    return added and worked(e) and user is not None and not itself


ADMIN = ("AdministratorAccess", "PowerUserAccess", "IAMFullAccess")
RIGHTS_TO_RIGHTS = re.compile(
    r"\*|\*:\*|iam:\*|iam:put\*|iam:attach\*|iam:create\*|iam:passrole|iam:put(user|role|group)policy"
    r"|iam:attach(user|role|group)policy|iam:createpolicyversion|sts:\*|sts:assumerole")


def is_admin_document(document, leads_there=RIGHTS_TO_RIGHTS):
    return any(
        "*" in one_or_list(s.get("Resource"))
        and ("NotAction" in s or any(leads_there.fullmatch(a.lower()) for a in one_or_list(s.get("Action"))))
        for s in allowing(document))


def attaches_admin(e):
    match = re.fullmatch("arn:aws[^:]*:iam::aws:policy/(.*)", e.text("requestParameters", "policyArn"))
    return match is not None and match[1] in ADMIN


def joins_admins(e):
    return e.call("iam", "AddUserToGroup") and re.search("(?i)admin|poweruser", e.text("requestParameters", "groupName"))


@filter_rule("cloudtrail")
def aws_iam_admin_policy_granted(e):
    if not worked(e) or service_itself(e):
        return False
    written = (e.call("iam", "PutUserPolicy", "PutRolePolicy", "PutGroupPolicy")
               or e.call("iam", "CreatePolicyVersion") and e.asks("setAsDefault") is True)
    return bool(
        e.call("iam", "AttachUserPolicy", "AttachRolePolicy", "AttachGroupPolicy") and attaches_admin(e)
        or written and is_admin_document(e.asks("policyDocument"))
        or joins_admins(e)
        or e.call("iam", "DeleteUserPermissionsBoundary", "DeleteRolePermissionsBoundary"))


def trusts_outsider(statement, account_id):
    if {"aws:PrincipalOrgID", "aws:PrincipalOrgPaths"} & set(conditions(statement)):
        return False
    named = principals(statement)
    if any(name == "*" and kind == "AWS" or is_outsider(kind, name, account_id) for kind, name in named):
        return True
    if "sts:AssumeRoleWithWebIdentity" not in one_or_list(statement.get("Action")):
        return False
    keys = conditions(statement)
    return not any(key.endswith(":sub") or key == "cognito-identity.amazonaws.com:aud" for key in keys)


@filter_rule("cloudtrail")
def aws_iam_role_trust_external(e):
    document = e.asks("policyDocument") or e.asks("assumeRolePolicyDocument")
    return (e.call("iam", "UpdateAssumeRolePolicy", "CreateRole") and worked(e)
            and any(trusts_outsider(s, own(e)) for s in allowing(document)))


@filter_rule("cloudtrail")
def aws_federated_access_added(e):
    return worked(e) and not service_itself(e) and (
        e.call("rolesanywhere", "CreateTrustAnchor", "UpdateTrustAnchor", "EnableTrustAnchor", "CreateProfile")
        or e.call("iam", "CreateOpenIDConnectProvider", "AddClientIDToOpenIDConnectProvider",
                  "UpdateOpenIDConnectProviderThumbprint", "CreateSAMLProvider", "UpdateSAMLProvider")
        or any(e.call(service, "AssociateDirectory", "CreateExternalIdPConfigurationForDirectory",
                      "UpdateExternalIdPConfigurationForDirectory", "EnableExternalIdPConfigurationForDirectory",
                      "CreateTrustedTokenIssuer", "UpdateTrustedTokenIssuer") for service in ("sso", "sso-directory"))
        or e.call("sts", "GetFederationToken") and e.at("userIdentity", "type") in ("IAMUser", "Root"))


@filter_rule("cloudtrail")
def aws_snapshot_or_image_shared(e):
    if not worked(e) or service_itself(e):
        return False
    added = (one_or_list(e.asks("createVolumePermission", "add", "items"))
             + one_or_list(e.asks("launchPermission", "add", "items"))
             + [{"id": value} for value in one_or_list(e.asks("valuesToAdd"))])
    outside = [name for item in added for name in item.values() if name != own(e)]
    return bool(
        (e.call("ec2", "ModifySnapshotAttribute", "ModifyImageAttribute")
         or e.call("rds", "ModifyDBSnapshotAttribute", "ModifyDBClusterSnapshotAttribute")) and outside
        or e.call("rds", "StartExportTask")
        or e.call("ec2", "CreateStoreImageTask", "ExportImage", "CreateInstanceExportTask")
        or e.at("eventSource") == "rds.amazonaws.com" and e.asks("publiclyAccessible") is True
        and re.match("(Create|Modify|Restore)DB", e.at("eventName")))


WATCHED = (22, 2379, 3306, 3389, 5432, 6379, 6443, 9200, 10250)


def ranges_opened(e):
    """(blocks, protocol, first port, last port) of every range that a call opens."""
    if e.call("ec2", "AuthorizeSecurityGroupIngress"):
        for item in one_or_list(e.asks("ipPermissions", "items")) or [e.asks()]:
            blocks = [b for version in ("ipRanges", "ipv6Ranges")
                      for b in one_or_list((item.get(version) or {}).get("items"))] + [item]
            yield ([b.get("cidrIp") or b.get("cidrIpv6") for b in blocks], item.get("ipProtocol"),
                   item.get("fromPort", 0), item.get("toPort", 65535))
    if (e.call("ec2", "CreateNetworkAclEntry", "ReplaceNetworkAclEntry") and e.asks("egress") is False
            and e.asks("ruleAction") == "allow"):
        ports = e.asks("portRange") or {}
        yield ([e.asks("cidrBlock"), e.asks("ipv6CidrBlock")], e.asks("aclProtocol"), ports.get("from", 0),
               ports.get("to", 65535))


def of_the_world(blocks):
    return any(block and int(block.split("/")[1]) == 0 for block in blocks)


@filter_rule("cloudtrail")
def aws_security_group_open_to_world(e):
    return worked(e) and not service_itself(e) and any(
        of_the_world(blocks) and (protocol == "-1" or any(int(low) <= port <= int(high) for port in WATCHED))
        for blocks, protocol, low, high in ranges_opened(e))


@filter_rule("cloudtrail")
def aws_s3_bucket_shared_or_public(e):
    if e.at("eventSource") not in ("s3.amazonaws.com", "s3express.amazonaws.com") or not worked(e) or service_itself(e):
        return False
    name, asked = e.at("eventName"), json.dumps(e.asks())
    bounded = re.compile("aws:(PrincipalOrg(ID|Paths)|Principal(Account|Arn)|(Vpc)?SourceIp|SourceVpce?|Source(Account|Arn"
                         "|OrgID))|s3:DataAccessPointAccount")
    if name == "PutBucketPolicy":
        return any(
            is_outsider(kind, who, own(e))
            or kind == "AWS" and who == "*" and not any(bounded.fullmatch(key) for key in conditions(s))
            for s in allowing(e.asks("bucketPolicy")) for kind, who in principals(s))
    if name in ("PutBucketAcl", "PutObjectAcl", "CreateBucket", "PutObject"):
        canned = one_or_list(e.asks("x-amz-acl"))
        return (any(acl in ("public-read", "public-read-write", "authenticated-read") for acl in canned)
                or bool(re.search("acs.amazonaws.com/groups/global/(AllUsers|AuthenticatedUsers)", asked)))
    return (name == "PutBucketWebsite"
            or name == "PutBucketOwnershipControls" and bool(re.search("BucketOwnerPreferred|ObjectWriter", asked))
            or name == "PutBucketReplication" and any(
                rule.get("Destination", {}).get("Account", own(e)) != own(e)
                for rule in one_or_list(e.asks("ReplicationConfiguration", "Rule"))))


@filter_rule("cloudtrail")
def aws_imds_protection_weakened(e):
    if not worked(e) or service_itself(e) or not e.call(
            "ec2", "ModifyInstanceMetadataOptions", "ModifyInstanceMetadataDefaults", "RunInstances",
            "CreateLaunchTemplate", "CreateLaunchTemplateVersion"):
        return False
    request = e.asks(e.at("eventName") + "Request") or e.asks()
    options = (request.get("LaunchTemplateData") or {}).get("MetadataOptions") or e.asks("metadataOptions") or request
    options = {key.lower(): value for key, value in options.items()}
    tokens = options.get("httptokens")
    return bool(tokens == "optional" or int(options.get("httpputresponsehoplimit") or 0) > 1
                or e.call("ec2", "ModifyInstanceMetadataOptions") and tokens is None
                and options.get("httpendpoint") == "enabled")


@filter_rule("cloudtrail")
def aws_eks_cluster_access_granted(e):
    open_endpoint = (e.asks("resourcesVpcConfig", "endpointPublicAccess") is True
                     and of_the_world(e.asks("resourcesVpcConfig", "publicAccessCidrs") or ["0.0.0.0/0"]))
    return worked(e) and not service_itself(e) and bool(
        e.call("eks", "CreateAccessEntry", "AssociateAccessPolicy", "CreatePodIdentityAssociation",
               "UpdatePodIdentityAssociation", "AssociateIdentityProviderConfig")
        or e.call("eks", "UpdateAccessEntry") and e.asks("kubernetesGroups")
        or e.call("eks", "UpdateClusterConfig") and (open_endpoint or e.asks("accessConfig", "authenticationMode")))


@filter_rule("cloudtrail")
def aws_load_balancer_plaintext_listener(e):
    actions = e.asks("defaultActions") or []
    to_https = len(actions) == 1 and (actions[0].get("redirectConfig") or {}).get("protocol") == "HTTPS"
    listener = base_name(e) in ("CreateListener", "ModifyListener")
    distribution = base_name(e) in ("CreateDistribution", "CreateDistributionWithTags", "UpdateDistribution")
    old = re.match("ELBSecurityPolicy-(2015-|2016-08|TLS-1-[01]-|TLS13-1-[01]-|FS-2018-06|FS-1-1-)",
                   e.text("requestParameters", "sslPolicy"))
    return worked(e) and not service_itself(e) and bool(
        e.at("eventSource") == "elasticloadbalancing.amazonaws.com" and listener
        and (e.asks("protocol") == "HTTP" and not to_https or old)
        or e.at("eventSource") == "cloudfront.amazonaws.com" and distribution
        and re.search('"viewerProtocolPolicy": "allow-all"', json.dumps(e.asks())))


# Single events that the pack's rules do not reach on the data.


@filter_rule("cloudtrail")
def outside_aws_refused(e):
    return not worked(e)


@filter_rule("cloudtrail")
def outside_aws_principal(e):
    return (principal(e) or "").endswith(":user/bert-jan") and by_service(e) is False and base_name(e) != e.at("eventName")


@filter_rule("cloudtrail")
def outside_aws_public_caller(e):
    ip = address(e)
    return ip is not None and ip.is_global and not ip.is_multicast


@filter_rule("kubernetes")
def k8s_pod_exec(e):
    return (is_call(e) and e.at("objectRef", "resource") == "pods" and e.at("verb") in ("create", "get")
            and e.at("objectRef", "subresource") in ("exec", "attach", "portforward") and code(e) in (None, 101)
            and None not in (e.at("objectRef", "namespace"), e.at("objectRef", "name"), e.at("user", "username")))


@filter_rule("kubernetes")
def outside_k8s_refused(e):
    return is_call(e) and code(e) in (401, 403)


@filter_rule("kubernetes")
def outside_k8s_node_writes(e):
    return (e.text("user", "username").startswith("system:node:") and e.at("verb") in ("create", "update", "patch")
            and e.at("objectRef", "subresource") is None)


@filter_rule("falco")
def outside_falco_warning(e):
    return e.text("priority").lower() == "warning"


# Windows over CloudTrail.


def refused(e):
    return re.search("AccessDenied|UnauthorizedOperation", e.text("errorCode")) is not None


@window_rule("cloudtrail", window=600, every=60, looks_at=refused)
def aws_access_denied_burst(rows):
    def who(e):
        return e.at("userIdentity", "arn") or user_name(e)
    for entity, calls in grouped(rows, account, who):
        if len(calls) >= 10 and len({e.at("eventName") for e in calls}) >= 5:
            yield entity


def discovers(e):
    reads = e.at("readOnly")
    if reads is None:
        reads = re.match("Get|List|Describe", e.at("eventName"))
    return (reads and not by_service(e) and re.match("Get|List|Describe|Lookup|Search|BatchGet", e.at("eventName"))
            and e.at("eventCategory") in (None, "Management"))


@window_rule("cloudtrail", window=600, every=60, looks_at=discovers)
def aws_discovery_burst(rows):
    telling = {"GetCallerIdentity", "ListUsers", "ListRoles", "GetAccountSummary", "GetAccountAuthorizationDetails",
               "ListBuckets", "DescribeTrails", "ListDetectors", "DescribeSnapshots"}
    mail = {"GetAccountSendingEnabled", "GetSendQuota", "ListIdentities", "GetAccount", "ListEmailIdentities",
            "GetIdentityVerificationAttributes"}
    for entity, calls in grouped(rows, account, principal):
        kinds = {(e.at("eventSource"), base_name(e)) for e in calls}
        names = {e.at("eventName") for e in calls}
        enough = 20 if any(map(from_console, calls)) else 8
        broad = len(kinds) >= enough and len({source for source, _ in kinds}) >= 4 and names & telling
        sending = {e.at("eventName") for e in calls if e.at("eventSource") in ("ses.amazonaws.com", "email.amazonaws.com")}
        if broad or len(sending & mail) >= 3:
            yield entity


def harvests(e):
    return not by_service(e) and (
        e.call("ec2", "GetPasswordData", "DescribeLaunchTemplateVersions")
        or e.call("ec2", "DescribeInstanceAttribute") and e.asks("attribute") in (None, "userData"))


def harvested(e):
    template = e.asks("DescribeLaunchTemplateVersionsRequest") or {}
    named = re.search("instance/(i-[0-9a-fA-F]+)", e.text("errorMessage"))
    return (e.asks("instanceId") or template.get("LaunchTemplateId") or template.get("LaunchTemplateName")
            or (named and named[1]))


@window_rule("cloudtrail", window=600, every=60, looks_at=harvests)
def aws_ec2_credential_harvest(rows):
    for entity, calls in grouped(rows, account, principal):
        if len({harvested(e) for e in calls} - {None}) >= 5:
            yield entity


EVASIONS = {
    "trail": {"cloudtrail": "StopLogging DeleteTrail UpdateTrail PutEventSelectors DeleteEventDataStore "
                            "StopEventDataStoreIngestion"},
    "logs": {"ec2": "DeleteFlowLogs", "wafv2": "DeleteLoggingConfiguration", "rds": "StopActivityStream",
             "route53resolver": "DeleteResolverQueryLogConfig DisassociateResolverQueryLogConfig",
             "bedrock": "DeleteModelInvocationLoggingConfiguration"},
    "guardrail": {"guardduty": "DeleteDetector UpdateDetector DisassociateMembers DeleteMembers StopMonitoringMembers "
                               "DisassociateFromAdministratorAccount DisassociateFromMasterAccount",
                  "securityhub": "DisableSecurityHub", "macie2": "DisableMacie", "access-analyzer": "DeleteAnalyzer",
                  "config": "StopConfigurationRecorder DeleteConfigurationRecorder DeleteDeliveryChannel DeleteConfigRule",
                  "organizations": "LeaveOrganization DetachPolicy DeletePolicy"},
    "factor": {"iam": "DeactivateMFADevice DeleteVirtualMFADevice"},
    "bucket": {"s3": "DeleteBucketEncryption DeleteBucketReplication DeleteBucketPublicAccessBlock "
                     "DeleteAccountPublicAccessBlock"},
}


def evasion(e):
    return next((kind for kind, services in EVASIONS.items()
                 if any(e.call(service, *names.split()) for service, names in services.items())), None)


@window_rule("cloudtrail", window=1800, every=180, looks_at=lambda e: evasion(e) and not service_itself(e))
def aws_evasion_chain(rows):
    for entity, calls in grouped(rows, account, principal):
        kinds, done = {evasion(e) for e in calls}, {evasion(e) for e in calls if worked(e)}
        if len(kinds) >= 2 and len(kinds) + len(done) >= 4:
            yield entity


def grants(e):
    return (e.call("iam", "AttachUserPolicy", "AttachRolePolicy") and attaches_admin(e)
            or e.call("iam", "PutUserPolicy", "PutRolePolicy")
            and is_admin_document(e.asks("policyDocument"), re.compile(r"\*|\*:\*|iam:\*|iam:put\*|iam:attach\*"))
            or joins_admins(e))


def builds(e):
    return (e.call("iam", "CreateUser", "CreateRole", "CreateAccessKey", "CreateLoginProfile")
            or e.call("iam", "UpdateAssumeRolePolicy") and any(
                kind == "AWS" and name == "*" or kind == "AWS" and is_outsider(kind, name, own(e))
                for s in allowing(e.asks("policyDocument")) for kind, name in principals(s)))


@window_rule("cloudtrail", window=900, every=90,
             looks_at=lambda e: worked(e) and not service_itself(e) and (grants(e) or builds(e)))
def aws_iam_admin_principal_chain(rows):
    for entity, calls in grouped(rows, account, lambda e: e.asks("userName") or e.asks("roleName")):
        if any(map(grants, calls)) and any(map(builds, calls)):
            yield entity


PATCHING = ("AWS-RunPatchBaseline", "AWS-GatherSoftwareInventory", "AWS-UpdateSSMAgent", "AWS-ApplyPatchBaseline",
            "AWS-RunPatchBaselineAssociation", "AmazonCloudWatch-ManageAgent")


def reaches(e):
    return worked(e) and not service_itself(e) and (
        e.call("ssm", "StartSession", "ResumeSession")
        or e.call("ssm", "SendCommand", "StartAutomationExecution") and e.asks("documentName") not in PATCHING
        or e.call("ec2-instance-connect", "SendSSHPublicKey", "SendSerialConsoleSSHPublicKey")
        or e.call("ec2", "EnableSerialConsoleAccess", "GetConsoleScreenshot"))


@window_rule("cloudtrail", window=600, every=60, looks_at=reaches)
def aws_instance_remote_access(rows):
    for entity, calls in grouped(rows, account, principal):
        targets = {i for e in calls for i in one_or_list(e.asks("instanceIds") or e.asks("target") or e.asks("instanceId"))}
        serial = any(e.at("eventName") in ("SendSerialConsoleSSHPublicKey", "EnableSerialConsoleAccess") for e in calls)
        if len(targets) >= 3 or serial or any(e.call("ssm", "SendCommand") and e.asks("targets") for e in calls):
            yield entity


LOSSES = (
    (4, "kms", "ScheduleKeyDeletion DisableKey DeleteImportedKeyMaterial"),
    (4, "backup", "DeleteBackupVault DeleteBackupVaultLockConfiguration"),
    (4, "eks", "DeleteCluster"),
    (3, "elasticfilesystem", "DeleteFileSystem"),
    (3, "rds", "DeleteDBInstanceAutomatedBackup DeleteDBClusterAutomatedBackup"),
    (2, "rds", "DeleteDBSnapshot DeleteDBClusterSnapshot"),
    (2, "backup", "DeleteRecoveryPoint"),
    (2, "ec2", "DeregisterImage DisableEbsEncryptionByDefault"),
    (1, "ec2", "DeleteSnapshot"),
)


def loss(e):
    if not worked(e) or service_itself(e) or re.search(
            ":role/service-role/AWS(DataLifecycleManagerDefaultRole|BackupDefaultServiceRole)", principal(e) or ""):
        return 0
    if e.call("rds", "DeleteDBInstance", "DeleteDBCluster") and e.asks("skipFinalSnapshot") is True:
        return 3
    if e.call("secretsmanager", "DeleteSecret") and e.asks("forceDeleteWithoutRecovery") is True:
        return 2
    return next((weight for weight, service, names in LOSSES if e.call(service, *names.split())), 0)


@window_rule("cloudtrail", window=1800, every=180, looks_at=loss)
def aws_recovery_resource_destroyed(rows):
    def person(e):
        return (e.at("userIdentity", "type") in ("IAMUser", "Root") or from_console(e)
                or "AWSReservedSSO_" in (principal(e) or ""))
    for entity, calls in grouped(rows, account, principal):
        if sum(map(loss, calls)) >= (2 if any(map(person, calls)) else 6):
            yield entity


def reads_secrets(e):
    return not by_service(e) and (
        e.call("secretsmanager", "GetSecretValue", "BatchGetSecretValue")
        or e.call("ssm", "GetParameter", "GetParameters", "GetParametersByPath") and e.asks("withDecryption") is True)


@window_rule("cloudtrail", window=600, every=60, looks_at=reads_secrets)
def aws_secret_store_bulk_read(rows):
    def name(e):
        arn = re.fullmatch("arn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.+)-[A-Za-z0-9]{6}", e.text("requestParameters", "secretId"))
        return arn[1] if arn else e.asks("secretId")

    def takes_all(e):
        filters = e.asks("filters")
        excludes = not filters or any(v.startswith("!") for f in filters for v in f.get("values", []))
        return (e.call("secretsmanager", "BatchGetSecretValue") and worked(e) and not e.asks("secretIdList") and excludes
                or e.call("ssm", "GetParametersByPath") and e.asks("path") == "/" and e.asks("recursive") is True)

    for entity, calls in grouped(rows, account, principal):
        secrets = {name(e) for e in calls} - {None}
        parameters = {p for e in calls if e.call("ssm", "GetParameter", "GetParameters")
                      for p in one_or_list(e.asks("names") or e.asks("name"))}
        batches = sum(e.call("secretsmanager", "BatchGetSecretValue") for e in calls)
        if (len(secrets) >= 10 or len(parameters) >= 10 or batches >= 3
                or len({e.at("awsRegion") for e in calls}) >= 3 or any(map(takes_all, calls))):
            yield entity


def ports_of(e):
    """Where the ranges begin that a call opens or closes; a rule of all protocols has no port."""
    items = (one_or_list(e.asks("ipPermissions", "items"))
             or e.at("eventName").startswith("Revoke")
             and one_or_list(e.at("responseElements", "revokedSecurityGroupRuleSet", "items")) or [e.asks()])
    return {item.get("fromPort") for item in items}


@window_rule("cloudtrail", window=4200, every=420,
             looks_at=lambda e: worked(e) and not service_itself(e) and (
                 e.call("ec2", "RevokeSecurityGroupIngress")
                 or any(of_the_world(blocks) for blocks, *_ in ranges_opened(e))
                 and e.call("ec2", "AuthorizeSecurityGroupIngress")))
def aws_security_group_briefly_opened(rows):
    for entity, calls in grouped(rows, account, lambda e: e.asks("groupId")):
        opened = [e for e in calls if e.at("eventName").startswith("Authorize")]
        closed = [e for e in calls if e.at("eventName").startswith("Revoke")]
        if not opened or not closed:
            continue
        lasted = max(e.time for e in closed) - min(e.time for e in opened)
        same = set().union(*map(ports_of, opened)) & set().union(*map(ports_of, closed))
        if -2 * SECOND <= lasted <= 60 * MINUTE and same:
            yield entity


@window_rule("cloudtrail", window=900, every=90, looks_at=lambda e: not by_service(e) and not from_console(e))
def aws_session_key_multiple_addresses(rows):
    for entity, calls in grouped(rows, account, lambda e: e.at("userIdentity", "accessKeyId")):
        places = {network(ip) for ip in map(address, calls) if ip is not None and ip.is_global}
        if entity[1].startswith("ASIA") and len(places) >= 2:
            yield entity


@window_rule("cloudtrail", window=1200, every=120, looks_at=lambda e: e.at("eventName") == "ConsoleLogin")
def aws_console_bruteforce_then_success(rows):
    def login(e):
        return user_name(e) or e.at("userIdentity", "type") or "(unknown)"
    failed = [e for e in rows if not worked(e)]
    for success in filter(worked, rows):
        before = [f for f in failed if account(f) == account(success)
                  and (login(f) == login(success) or f.at("sourceIPAddress") == success.at("sourceIPAddress"))
                  and success.time - 15 * MINUTE <= f.time <= success.time + 2 * SECOND]
        if len(before) >= 5:
            yield account(success), login(success)
    for entity, calls in grouped(failed, account, lambda e: e.at("sourceIPAddress")):
        if len({e.uid if login(e).startswith("HIDDEN") else login(e) for e in calls}) >= 5:
            yield entity
    factor = [e for e in failed if e.at("additionalEventData", "MFAUsed") == "Yes"
              or re.search("(?i)mfa|multi-?factor", e.text("errorMessage"))]
    for entity, calls in grouped(factor, account, login):
        if len(calls) >= 3:
            yield entity


# Windows that the pack's rules do not reach on the data: sequences, absence, other sources, all sources.


@window_rule("cloudtrail", window=360, every=60, looks_at=lambda e: e.at("eventSource") == "secretsmanager.amazonaws.com")
def outside_aws_written_then_read(rows):
    """A secret's value is written and read again within five minutes, by name."""
    for read in rows:
        if read.at("eventName") == "GetSecretValue" and any(
                put.at("eventName") == "PutSecretValue" and put.asks("secretId") == read.asks("secretId")
                and put.time <= read.time <= put.time + 5 * MINUTE for put in rows):
            yield (read.asks("secretId"),)


@window_rule("cloudtrail", window=600, every=120, looks_at=worked)
def outside_aws_made_and_kept(rows):
    """A role is made and not deleted in the same window."""
    deleted = {e.asks("roleName") for e in rows if e.call("iam", "DeleteRole")}
    for made in rows:
        if made.call("iam", "CreateRole") and made.asks("roleName") not in deleted:
            yield (made.asks("roleName"),)


@window_rule("kubernetes", window=300, every=30, looks_at=is_call)
def k8s_secret_read_burst(rows):
    reads = [e for e in rows if e.at("verb") == "get" and e.at("objectRef", "resource") == "secrets"
             and e.at("objectRef", "name") is not None and code(e) is not None and code(e) < 400
             and not e.text("user", "username").startswith("system:node:")]
    for (user,), calls in grouped(reads, lambda e: e.at("user", "username")):
        spaces = {e.at("objectRef", "namespace") for e in calls} - {None}
        if len({(e.text("objectRef", "namespace"), e.at("objectRef", "name")) for e in calls}) >= 10 or len(spaces) >= 3:
            yield "prod", user


@window_rule("kubernetes", window=60, every=10, looks_at=is_call)
def outside_k8s_failing_user(rows):
    """Five failed requests to three kinds of objects."""
    failing = [e for e in rows if (code(e) or 0) >= 400]
    for entity, calls in grouped(failing, lambda e: e.at("user", "username")):
        if len(calls) >= 5 and len({e.at("objectRef", "resource") for e in calls} - {None}) >= 3:
            yield entity


@window_rule("kubernetes", window=120, every=20, looks_at=is_call)
def outside_k8s_created_then_deleted(rows):
    """One user makes a pod and deletes it within a minute."""
    pods = [e for e in rows if e.at("objectRef", "resource") == "pods" and e.at("objectRef", "subresource") is None]
    for gone in pods:
        if gone.at("verb") == "delete" and any(
                made.at("verb") in ("get", "patch") and made.at("objectRef", "name") == gone.at("objectRef", "name")
                and made.at("objectRef", "namespace") == gone.at("objectRef", "namespace")
                and gone.time - 60 * SECOND <= made.time <= gone.time for made in pods):
            yield gone.at("objectRef", "namespace"), gone.at("objectRef", "name")


@window_rule("cloudtrail", "kubernetes", "falco", window=3600, every=1800)
def outside_busy_hour(rows):
    """A hundred events of one source within an hour."""
    for entity, events in grouped(rows, lambda e: e.source):
        if len(events) >= 100:
            yield entity
